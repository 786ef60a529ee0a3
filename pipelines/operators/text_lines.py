"""Operators that judge text line by line: lines that fail are taken out, and what that leaves is judged as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import polars as pl

from omnimill.pipelines.operators.text import TextOperator, note
from omnimill.pipelines.operators.text_words import WORD, with_unspaced
from omnimill.schema import Example

_SCHEMA = {"row": pl.UInt32, "segment": pl.UInt32, "language": pl.String, "text": pl.String}


class LineOperator(TextOperator):
    """Base of operators over lines.

    The texts of an example stay apart (a document with pictures has many), the example is judged as one. Lines that
    fail are left out of the text; blank lines are kept, a text of which nothing is left is taken out of the example.

    rewrite: leave failed lines out of the text; otherwise they are only counted.
    """

    writes: ClassVar[tuple[str, ...]] = ("text", "meta")

    roles: tuple[str, ...] = ("body",)
    rewrite: bool = True

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        rows = [
            (i, k, example.meta.language, text.text)
            for i, example in enumerate(examples)
            for k, text in enumerate(example.text)
            if text.role in self.roles
        ]
        frame = with_unspaced(pl.DataFrame(rows, schema=_SCHEMA, orient="row"))
        split = frame.with_columns(line=pl.col("text").str.split("\n")).drop("text").explode("line")
        lines = split.with_columns(given="line", stripped=pl.col("line").str.strip_chars())
        blank = pl.col("stripped").str.len_bytes() == 0
        count = pl.col("stripped").str.count_matches(WORD)
        # Where words cannot be counted, shares of words become shares of characters.
        size = pl.when("unspaced").then(pl.col("stripped").str.len_chars()).otherwise(count)
        judged = self.judge_lines(lines.with_columns(blank=blank, words=count, size=size))
        scored = judged.group_by("row", maintain_order=True).agg(kept=pl.col("keep").any(), **self.scores())
        reasons = note(examples, scored, ("row", "kept"), self.rules())
        if self.rewrite:
            _rewrite(examples, judged, reasons)
        return reasons

    def judge_lines(self, lines: pl.DataFrame) -> pl.DataFrame:
        """`lines` with the column `keep`.

        Args:
            lines: row, segment, language, unspaced; line; given (the same); stripped (without white space around it);
                blank; words; size (words, or characters where words cannot be counted). `line` may come back changed.
        """
        raise NotImplementedError

    def rules(self) -> Mapping[str, pl.Expr]:
        return {"no_text_left": ~pl.col("kept") & self.rewrite}

    def scores(self) -> Mapping[str, pl.Expr]:
        """What is measured of each example, as aggregates over the judged lines."""
        raise NotImplementedError


def removed(weight: str) -> pl.Expr:
    """The share of a column's sum that lies in lines that are not kept; 0 where the sum is 0."""
    lost = pl.col(weight).filter(~pl.col("keep") & ~pl.col("blank")).sum()
    return (lost / pl.col(weight).sum()).fill_nan(0.0)


def _rewrite(examples: Sequence[Example], judged: pl.DataFrame, reasons: Sequence[str | None]) -> None:
    """Put the kept lines in the place of the texts of the examples that are not turned down."""
    texts = judged.group_by("row", "segment", maintain_order=True).agg(
        text=pl.col("line").filter(pl.col("keep") | pl.col("blank")).str.join("\n").str.strip_chars(),
        touched=(~pl.col("keep") & ~pl.col("blank")).any() | (pl.col("line") != pl.col("given")).any(),
    )
    empty: dict[int, list[int]] = {}
    for row, segment, text in texts.filter("touched").select("row", "segment", "text").iter_rows():
        if reasons[row] is None:
            examples[row].text[segment].text = text
            if not text:
                empty.setdefault(row, []).append(segment)
    for row, segments in empty.items():
        gone = set(segments)
        examples[row].text = [text for k, text in enumerate(examples[row].text) if k not in gone]
