"""Filters of text, computed as polars expressions over a whole batch of examples.

Each judges the texts of the roles it names, put together line by line; an example without such text passes. Words are
what white space separates, so the word rules are for languages that write spaces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field, field_validator, model_validator

from omnimill.pipelines.base import Operator
from omnimill.schema import Example

_WORD = r"\S+"
_ELLIPSIS = r"\.\.\.|…"
_BULLET = r"^[•●▪◦‣*-]"
_LETTER = r"\p{Alphabetic}"


class TextOperator(Operator):
    """Base of operators that judge text.

    roles: of the texts that are judged.
    """

    reads: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    roles: tuple[str, ...] = ("body", "code", "caption", "alt_text", "transcript")

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        rows = []
        for i, example in enumerate(examples):
            parts = [text.text for text in example.text if text.role in self.roles]
            if parts:
                rows.append((i, "\n".join(parts)))
        frame = pl.DataFrame(rows, schema={"row": pl.UInt32, "text": pl.String}, orient="row")
        measured = self.measure(frame)
        scores = [name for name in measured.columns if name not in frame.columns]
        reasons: list[str | None] = [None] * len(examples)
        judged = measured.with_columns(_first_reason(self.rules()).alias("reason"))
        for verdict in judged.iter_rows(named=True):
            reasons[verdict["row"]] = verdict["reason"]
            values = {name: float(verdict[name]) for name in scores if verdict[name] is not None}
            examples[verdict["row"]].meta.scores.update(values)
        return reasons

    def measure(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` (row, text) with a column for every score, kept in the example's meta."""
        raise NotImplementedError

    def rules(self) -> Mapping[str, pl.Expr]:
        """By reason, whether a row is turned down; the first that holds counts."""
        raise NotImplementedError


class TextLength(TextOperator):
    """Bounds on characters and on words; None is no bound."""

    op: Literal["text_length"]
    min_chars: int = Field(1, ge=0)
    max_chars: int | None = Field(None, ge=1)
    min_words: int = Field(0, ge=0)
    max_words: int | None = Field(None, ge=1)

    def measure(self, frame: pl.DataFrame) -> pl.DataFrame:
        text = pl.col("text").str.strip_chars()
        return frame.with_columns(text_chars=text.str.len_chars(), text_words=text.str.count_matches(_WORD))

    def rules(self) -> Mapping[str, pl.Expr]:
        chars, words = pl.col("text_chars"), pl.col("text_words")
        rules = {"text_too_short": (chars < self.min_chars) | (words < self.min_words)}
        too_long = [
            measure > bound
            for measure, bound in ((chars, self.max_chars), (words, self.max_words))
            if bound is not None
        ]
        return rules | ({"text_too_long": pl.any_horizontal(too_long)} if too_long else {})


class TextQuality(TextOperator):
    """Rules that turn down text which is not prose.

    From Gopher (Rae et al. 2021, "Scaling Language Models", appendix A, table A1): mean word length, hash signs and
    ellipses per word, share of words with a letter, shares of lines that begin with a bullet and that end with an
    ellipsis, and the share of lines that repeat an earlier line. Their bounds on length are `text_length`'s. Lines
    are those that are not blank.
    """

    op: Literal["text_quality"]
    roles: tuple[str, ...] = ("body",)
    min_mean_word_length: float = Field(3.0, ge=0)
    max_mean_word_length: float = Field(10.0, gt=0)
    max_symbols_per_word: float = Field(0.1, ge=0)
    min_letter_words: float = Field(0.8, ge=0, le=1)
    max_bullet_lines: float = Field(0.9, ge=0, le=1)
    max_ellipsis_lines: float = Field(0.3, ge=0, le=1)
    max_repeated_lines: float = Field(0.3, ge=0, le=1)

    def measure(self, frame: pl.DataFrame) -> pl.DataFrame:
        text, words, lines = pl.col("text"), pl.col("words"), pl.col("lines")
        element = pl.element()
        stripped = text.str.split("\n").list.eval(element.str.strip_chars())
        return (
            frame.with_columns(
                words=text.str.extract_all(_WORD),
                lines=stripped.list.eval(element.filter(element.str.len_bytes() > 0)),
            )
            .with_columns(
                mean_word_length=words.list.eval(element.str.len_chars()).list.mean(),
                hashes_per_word=text.str.count_matches("#", literal=True) / words.list.len(),
                ellipses_per_word=text.str.count_matches(_ELLIPSIS) / words.list.len(),
                letter_words=words.list.eval(element.str.contains(_LETTER)).list.mean(),
                bullet_lines=lines.list.eval(element.str.contains(_BULLET)).list.mean(),
                ellipsis_lines=lines.list.eval(element.str.contains(f"({_ELLIPSIS})$")).list.mean(),
                repeated_lines=1 - lines.list.n_unique() / lines.list.len(),
            )
            .drop("words", "lines")
            .fill_nan(None)
        )

    def rules(self) -> Mapping[str, pl.Expr]:
        symbols = pl.max_horizontal("hashes_per_word", "ellipses_per_word")
        length = pl.col("mean_word_length")
        return {
            "no_words": length.is_null(),
            "word_length": ~length.is_between(self.min_mean_word_length, self.max_mean_word_length),
            "many_symbols": symbols > self.max_symbols_per_word,
            "few_letters": pl.col("letter_words") < self.min_letter_words,
            "bullet_lines": pl.col("bullet_lines") > self.max_bullet_lines,
            "ellipsis_lines": pl.col("ellipsis_lines") > self.max_ellipsis_lines,
            "repeated_lines": pl.col("repeated_lines") > self.max_repeated_lines,
        }


class TextRepetition(TextOperator):
    """Turns down text that says the same again and again.

    From Gopher (Rae et al. 2021, appendix A, table A1), over runs of n words, in shares of the characters of all
    words: those of the most frequent run, all its occurrences (`top`, by n), and those within any run that occurs more
    than once, each word counted once (`duplicate`, by n).
    """

    op: Literal["text_repetition"]
    roles: tuple[str, ...] = ("body",)
    top: dict[int, float] = Field(default_factory=lambda: {2: 0.20, 3: 0.18, 4: 0.16})
    duplicate: dict[int, float] = Field(default_factory=lambda: {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10})

    @field_validator("top", "duplicate")
    @classmethod
    def _runs(cls, bounds: dict[int, float]) -> dict[int, float]:
        if any(n < 1 or not 0 <= share <= 1 for n, share in bounds.items()):
            raise ValueError("needs a share between 0 and 1 for every length of run, which is at least 1")
        return dict(sorted(bounds.items()))

    def measure(self, frame: pl.DataFrame) -> pl.DataFrame:
        words = (
            frame.select("row", word=pl.col("text").str.extract_all(_WORD))
            .explode("word")
            .drop_nulls()
            .with_columns(chars=pl.col("word").str.len_chars(), word=pl.col("word").rank("dense"))
        )
        measured = frame
        for n in sorted({*self.top, *self.duplicate}):
            measured = measured.join(_repetition(words, n), on="row", how="left", maintain_order="left")
        wanted = [f"top_{n}gram" for n in self.top] + [f"duplicate_{n}gram" for n in self.duplicate]
        return measured.select("row", "text", *(pl.col(name).fill_null(0.0) for name in wanted))

    def rules(self) -> Mapping[str, pl.Expr]:
        top = {f"top_{n}gram": share for n, share in self.top.items()}
        duplicate = {f"duplicate_{n}gram": share for n, share in self.duplicate.items()}
        return {name: pl.col(name) > share for name, share in (top | duplicate).items()}


class TextBlocklist(TextOperator):
    """Turns down text that holds one of some words or phrases, whole and in any case."""

    writes: ClassVar[tuple[str, ...]] = ()

    op: Literal["text_blocklist"]
    words: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _not_blank(self) -> TextBlocklist:
        if not all(word.strip() for word in self.words):
            raise ValueError("a blank word would match everything")
        return self

    def measure(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame

    def rules(self) -> Mapping[str, pl.Expr]:
        words = "|".join(r"\s+".join(map(re.escape, word.split())) for word in self.words)
        return {"blocked_word": pl.col("text").str.contains(rf"(?i)(?:^|\W)(?:{words})(?:\W|$)")}


def _first_reason(rules: Mapping[str, pl.Expr]) -> pl.Expr:
    return pl.coalesce(
        *(pl.when(holds).then(pl.lit(reason)) for reason, holds in rules.items()), pl.lit(None, pl.String)
    )


def _repetition(words: pl.DataFrame, n: int) -> pl.DataFrame:
    """Shares of characters in repeated runs of `n` words.

    Args:
        words: row (of the text), word (a number that stands for it), chars; in reading order.

    Returns:
        row, top_<n>gram, duplicate_<n>gram: a row for every text that has a word.
    """
    parts = [f"part{k}" for k in range(n)]
    runs = words.with_columns(
        *(pl.col("word").shift(-k).over("row").alias(part) for k, part in enumerate(parts)),
        run_chars=pl.sum_horizontal(pl.col("chars").shift(-k).over("row") for k in range(n)),
    ).with_columns(whole=pl.col(parts[-1]).is_not_null())
    runs = runs.with_columns(times=pl.when("whole").then(pl.len().over("row", *parts)).otherwise(0))
    repeated = pl.col("times") > 1
    covered = pl.any_horizontal(repeated.shift(k, fill_value=False).over("row") for k in range(n))
    top_chars = pl.when(repeated).then(pl.col("times") * pl.col("run_chars")).otherwise(0)
    # Of equally frequent runs the longest counts.
    top = top_chars.filter(pl.col("times") == pl.col("times").max()).max()
    return (
        runs.with_columns(covered=covered)
        .group_by("row", maintain_order=True)
        .agg(
            (top / pl.col("chars").sum()).alias(f"top_{n}gram"),
            (pl.col("chars").filter("covered").sum() / pl.col("chars").sum()).alias(f"duplicate_{n}gram"),
        )
    )
