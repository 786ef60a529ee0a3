"""Filters of text, computed as polars expressions over a whole batch of examples.

Each judges the texts of the roles it names, put together line by line; an example without such text passes. What a rule
compares is kept as a score, so that other bounds can be applied later by a selection, without reading again; a bound of
None only measures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from omnimill.pipelines.base import Operator
from omnimill.pipelines.operators.text_words import WORD, above, below, first_reason, with_unspaced
from omnimill.schema import Example

_SCHEMA = {"row": pl.UInt32, "language": pl.String, "text": pl.String}


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
                rows.append((i, example.meta.language, "\n".join(parts)))
        frame = with_unspaced(pl.DataFrame(rows, schema=_SCHEMA, orient="row"))
        return note(examples, self.measure(frame), frame.columns, self.rules())

    def measure(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` (row, language, text, unspaced) with a column for every score, kept in the example's meta."""
        raise NotImplementedError

    def rules(self) -> Mapping[str, pl.Expr]:
        """By reason, whether a row is turned down; the first that holds counts."""
        raise NotImplementedError


def note(
    examples: Sequence[Example], measured: pl.DataFrame, given: Sequence[str], rules: Mapping[str, pl.Expr]
) -> list[str | None]:
    """Write the scores (columns that are not `given`) into the examples that `row` names, and answer by the rules."""
    scores = [name for name in measured.columns if name not in given]
    judged = measured.select(
        "row", *(pl.col(name).cast(pl.Float64) for name in scores), reason=first_reason(dict(rules))
    )
    reasons: list[str | None] = [None] * len(examples)
    for row, *values, reason in judged.iter_rows():
        reasons[row] = reason
        found = {name: value for name, value in zip(scores, values, strict=True) if value is not None}
        examples[row].meta.scores.update(found)
    return reasons


class TextLength(TextOperator):
    """Bounds on characters and on words; None is no bound. Scripts without spaces have no bounds on words."""

    version: ClassVar[int] = 2

    op: Literal["text_length"]
    min_chars: int | None = Field(1, ge=0)
    max_chars: int | None = Field(None, ge=1)
    min_words: int | None = Field(0, ge=0)
    max_words: int | None = Field(None, ge=1)

    def measure(self, frame: pl.DataFrame) -> pl.DataFrame:
        text = pl.col("text").str.strip_chars()
        words = pl.when(~pl.col("unspaced")).then(text.str.count_matches(WORD))
        return frame.with_columns(text_chars=text.str.len_chars(), text_words=words)

    def rules(self) -> Mapping[str, pl.Expr]:
        return {
            "text_too_short": below("text_chars", self.min_chars)
            | below("text_words", self.min_words).fill_null(False),
            "text_too_long": above("text_chars", self.max_chars) | above("text_words", self.max_words).fill_null(False),
        }


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
