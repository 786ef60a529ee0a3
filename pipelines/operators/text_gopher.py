"""The quality rules of Gopher (Rae et al. 2021, "Scaling Language Models", appendix A.1.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field, field_validator

from omnimill.pipelines.operators.text import TextOperator
from omnimill.pipelines.operators.text_words import LETTER, above, below, lines_of, words_of

_BULLETS = ("•", "●", "▪", "◦", "‣", "*", "-")


class TextQuality(TextOperator):
    """Rules that turn down text which is not prose.

    Number of words, mean word length, hash signs and ellipses per word, share of words with a letter, shares of lines
    that begin with a bullet and that end with an ellipsis, and how many different stop words there are. Lines are those
    that are not blank. All but the shares of lines are rules about words and hold for scripts with spaces only.

    stop_words: by language code. An example of a language that is not listed passes the rule.
    assume_language: of examples that name none; None lets them pass the rule.
    """

    version: ClassVar[int] = 2

    op: Literal["text_quality"]
    roles: tuple[str, ...] = ("body",)
    min_words: int | None = Field(50, ge=0)
    max_words: int | None = Field(100_000, ge=1)
    min_mean_word_length: float | None = Field(3.0, ge=0)
    max_mean_word_length: float | None = Field(10.0, gt=0)
    max_symbols_per_word: float | None = Field(0.1, ge=0)
    min_letter_words: float | None = Field(0.8, ge=0, le=1)
    max_bullet_lines: float | None = Field(0.9, ge=0, le=1)
    max_ellipsis_lines: float | None = Field(0.3, ge=0, le=1)
    min_stop_words: int | None = Field(2, ge=0)
    stop_words: dict[str, tuple[str, ...]] = Field({"en": ("the", "be", "to", "of", "and", "that", "have", "with")})
    assume_language: str | None = "en"

    @field_validator("stop_words")
    @classmethod
    def _whole_words(cls, stop_words: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if not all(re.fullmatch(r"\w+", word) for words in stop_words.values() for word in words):
            raise ValueError("a stop word is one word of letters")
        return stop_words

    def measure(self, frame: pl.DataFrame) -> pl.DataFrame:
        text, count = pl.col("text"), pl.col("text_words")
        word = pl.col("word")
        words = (
            words_of(frame.filter(~pl.col("unspaced")))
            .group_by("row", maintain_order=True)
            .agg(
                text_words=pl.len(),
                mean_word_length=word.str.len_chars().mean(),
                letter_words=word.str.contains(LETTER).mean(),
            )
        )
        line = pl.col("line")
        lines = (
            lines_of(frame)
            .group_by("row", maintain_order=True)
            .agg(
                bullet_lines=pl.any_horizontal(line.str.starts_with(mark) for mark in _BULLETS).mean(),
                ellipsis_lines=(line.str.ends_with("...") | line.str.ends_with("…")).mean(),
            )
        )
        return (
            frame.join(words, on="row", how="left", maintain_order="left")
            .with_columns(pl.when(~pl.col("unspaced")).then(count.fill_null(0)))
            .with_columns(
                hashes_per_word=text.str.count_matches("#", literal=True) / count,
                ellipses_per_word=text.str.count_matches(r"\.\.\.|…") / count,
            )
            .join(lines, on="row", how="left", maintain_order="left")
            .with_columns(stop_words=self._stop_words())
            .fill_nan(None)
        )

    def _stop_words(self) -> pl.Expr:
        """How many of its language's stop words a text has; null when there are none for its language."""
        language = (
            pl.coalesce("language", pl.lit(self.assume_language, pl.String)).str.to_lowercase().str.extract(r"^(\w+)")
        )
        found = pl.lit(None, pl.UInt32)
        for code, words in self.stop_words.items():
            present = pl.sum_horizontal(pl.col("text").str.contains(rf"(?i)\b{word}\b") for word in words)
            found = pl.when((language == code) & ~pl.col("unspaced")).then(present).otherwise(found)
        return found

    def rules(self) -> Mapping[str, pl.Expr]:
        length = "mean_word_length"
        return {
            "no_words": pl.col("text_words") == 0,
            "few_words": below("text_words", self.min_words),
            "many_words": above("text_words", self.max_words),
            "word_length": below(length, self.min_mean_word_length) | above(length, self.max_mean_word_length),
            "many_symbols": above("hashes_per_word", self.max_symbols_per_word)
            | above("ellipses_per_word", self.max_symbols_per_word),
            "few_letters": below("letter_words", self.min_letter_words),
            "bullet_lines": above("bullet_lines", self.max_bullet_lines),
            "ellipsis_lines": above("ellipsis_lines", self.max_ellipsis_lines),
            "few_stop_words": below("stop_words", self.min_stop_words),
        }
