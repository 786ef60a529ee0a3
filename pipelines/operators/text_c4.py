"""The rules of C4 (Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from omnimill.pipelines.operators.text_lines import LineOperator, removed
from omnimill.pipelines.operators.text_words import SENTENCE_END, below

_ENDS = r"""["'.!?\p{Sentence_Terminal}”\u{2019}»」』]$"""
_CITATION = r"\[\d*\]|\[edit\]|\[citation needed\]"
_POLICY = r"(?i)terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies"


class TextC4(LineOperator):
    """Keeps the sentences of a web page.

    Lines go that do not end in terminal punctuation or a closing quotation mark (an ellipsis is none), that have too
    few words or a word that is too long, or that speak of JavaScript or of policies on cookies, use and privacy. Marks
    of citations are cut out. A page goes when a line that is otherwise kept holds "lorem ipsum" or a curly bracket, and
    when too few sentences are left. The number of words of a line is not judged in scripts without spaces. C4's list of
    bad words is for `text_blocklist`, its deduplication for a selection.

    The order of the rules is that of the published code: a bracket in a line that goes anyway does no harm.
    """

    op: Literal["text_c4"]
    terminal_punctuation: bool = True
    min_words_per_line: int | None = Field(5, ge=0)
    max_word_chars: int | None = Field(1000, ge=1)
    min_sentences: int | None = Field(3, ge=0)
    javascript: bool = True
    policy: bool = True
    citations: bool = True
    lorem_ipsum: bool = True
    curly_bracket: bool = True

    version: ClassVar[int] = 1

    def judge_lines(self, lines: pl.DataFrame) -> pl.DataFrame:
        line = pl.col("line")
        keep = ~pl.col("blank") & ~_has_long_word(lines, self.max_word_chars)
        lines = lines.with_columns(
            line=pl.col("stripped").str.replace_all(_CITATION, "") if self.citations else "stripped"
        )
        if self.terminal_punctuation:
            keep &= line.str.contains(_ENDS) & ~line.str.ends_with("...")
        if self.min_words_per_line is not None:
            keep &= (pl.col("words") >= self.min_words_per_line) | pl.col("unspaced")
        lines = lines.with_columns(keep=keep)
        lines = lines.with_columns(lorem=pl.col("keep") & line.str.contains("(?i)lorem ipsum"))
        if self.javascript:
            lines = lines.with_columns(keep=pl.col("keep") & ~line.str.contains("(?i)javascript"))
        lines = lines.with_columns(curly=pl.col("keep") & line.str.contains("{", literal=True))
        if self.policy:
            lines = lines.with_columns(keep=pl.col("keep") & ~line.str.contains(_POLICY))
        # The end of a kept line ends a sentence, whatever stands there.
        inside = line.str.count_matches(rf"{SENTENCE_END}\s")
        anywhere = line.str.count_matches(SENTENCE_END) - line.str.contains(f"{SENTENCE_END}$")
        sentences = pl.when("unspaced").then(anywhere).otherwise(inside) + 1
        return lines.with_columns(sentences=pl.when("keep").then(sentences).otherwise(0))

    def scores(self) -> Mapping[str, pl.Expr]:
        return {
            "c4_removed_words": removed("size"),
            "c4_sentences": pl.col("sentences").sum(),
            "c4_lorem_ipsum": pl.col("lorem").any(),
            "c4_curly_bracket": pl.col("curly").any(),
        }

    def rules(self) -> Mapping[str, pl.Expr]:
        return {
            "lorem_ipsum": pl.col("c4_lorem_ipsum") & self.lorem_ipsum,
            "curly_bracket": pl.col("c4_curly_bracket") & self.curly_bracket,
            "few_sentences": below("c4_sentences", self.min_sentences),
            **super().rules(),
        }


def _has_long_word(lines: pl.DataFrame, max_chars: int | None) -> pl.Series:
    """Whether a line has a word of more than so many characters; only lines that are as long are split."""
    found = pl.Series([False]).new_from_index(0, len(lines))
    if max_chars is not None:
        asked = lines.select(pl.col("line").str.len_bytes() > max_chars).to_series().arg_true()
        long = [max(map(len, line.split()), default=0) > max_chars for line in lines["line"].gather(asked)]
        found = found.scatter(asked, pl.Series(long, dtype=pl.Boolean))
    return found
