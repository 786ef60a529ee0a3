"""The repetition rules of Gopher (Rae et al. 2021, "Scaling Language Models", table A1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, field_validator

from omnimill.pipelines.operators.text import TextOperator
from omnimill.pipelines.operators.text_words import above, lines_of, words_of

# Odd constants that spread hashes of runs and of rows over 64 bits (the first two of splitmix64).
_BASE = np.uint64(0x9E3779B97F4A7C15)
_ROW = np.uint64(0xBF58476D1CE4E5B9)


class TextRepetition(TextOperator):
    """Turns down text that says the same again and again.

    Shares of lines and of paragraphs (between blank lines) that repeat an earlier one, by number and by characters.
    Over runs of n words, in shares of the characters of all words: those of the most frequent run, all its occurrences
    (`top`, by n), and those within any run that occurs more than once, each word counted once (`duplicate`, by n);
    these hold for scripts with spaces only.
    """

    version: ClassVar[int] = 2

    op: Literal["text_repetition"]
    roles: tuple[str, ...] = ("body",)
    max_repeated_lines: float | None = Field(0.3, ge=0, le=1)
    max_repeated_line_chars: float | None = Field(0.2, ge=0, le=1)
    max_repeated_paragraphs: float | None = Field(0.3, ge=0, le=1)
    max_repeated_paragraph_chars: float | None = Field(0.2, ge=0, le=1)
    top: dict[int, float | None] = Field({2: 0.20, 3: 0.18, 4: 0.16})
    duplicate: dict[int, float | None] = Field({5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10})

    @field_validator("top", "duplicate")
    @classmethod
    def _runs(cls, bounds: dict[int, float | None]) -> dict[int, float | None]:
        if any(n < 1 or (share is not None and not 0 <= share <= 1) for n, share in bounds.items()):
            raise ValueError("needs a share between 0 and 1 for every length of run, which is at least 1")
        return dict(sorted(bounds.items()))

    def measure(self, frame: pl.DataFrame) -> pl.DataFrame:
        paragraphs = frame.select(
            "row", line=pl.col("text").str.strip_chars().str.replace_all(r"\n\s*\n", "\u2029").str.split("\u2029")
        ).explode("line")
        spaced = frame.filter(~pl.col("unspaced"))
        for shares in (
            _repeated(lines_of(frame), "line"),
            _repeated(paragraphs, "paragraph"),
            repetition(spaced, list(self.top), list(self.duplicate)),
        ):
            frame = frame.join(shares, on="row", how="left", maintain_order="left")
        return frame

    def rules(self) -> Mapping[str, pl.Expr]:
        top = {f"top_{n}gram": share for n, share in self.top.items()}
        duplicate = {f"duplicate_{n}gram": share for n, share in self.duplicate.items()}
        return {
            "repeated_lines": above("repeated_lines", self.max_repeated_lines),
            "repeated_line_chars": above("repeated_line_chars", self.max_repeated_line_chars),
            "repeated_paragraphs": above("repeated_paragraphs", self.max_repeated_paragraphs),
            "repeated_paragraph_chars": above("repeated_paragraph_chars", self.max_repeated_paragraph_chars),
        } | {name: above(name, share) for name, share in (top | duplicate).items()}


def _repeated(parts: pl.DataFrame, name: str) -> pl.DataFrame:
    """Shares of parts (row, line) that repeat an earlier one of their row, by number and by characters."""
    part = pl.col("line")
    hashed = parts.select("row", chars=part.str.len_chars(), hash=part.hash())
    repeated = hashed.with_columns(again=~pl.struct("row", "hash").is_first_distinct())
    return repeated.group_by("row", maintain_order=True).agg(
        pl.col("again").mean().alias(f"repeated_{name}s"),
        (pl.col("chars").filter("again").sum() / pl.col("chars").sum()).fill_nan(0.0).alias(f"repeated_{name}_chars"),
    )


def repetition(frame: pl.DataFrame, top: Sequence[int], duplicate: Sequence[int]) -> pl.DataFrame:
    """Shares of the characters of all words that stand in repeated runs of n words.

    A run of n + 1 words can only repeat where its first n words do, so that each n looks only at what is left of the
    one before: in prose, a few runs in a hundred from n = 3 on. Runs are told apart by 64 bits of hash.

    Args:
        frame: row (ascending), text.
        top, duplicate: lengths of runs.

    Returns:
        row, top_<n>gram, duplicate_<n>gram: a row for every row of `frame`.
    """
    words = words_of(frame).select("row", hash=pl.col("word").hash(), chars=pl.col("word").str.len_chars())
    row_ids = frame["row"].to_numpy()
    row = np.searchsorted(row_ids, words["row"].to_numpy())
    hashes = words["hash"].to_numpy()
    # chars_before[i]: characters of all words before word i.
    chars_before = np.concatenate([[0], np.cumsum(words["chars"].to_numpy(), dtype=np.int64)])
    total = np.maximum(np.bincount(row, np.diff(chars_before), len(row_ids)), 1)

    shares: dict[str, NDArray[Any]] = {"row": row_ids}
    starts = np.arange(len(row))
    runs = row.astype(np.uint64) * _ROW
    length = 0
    for n in sorted({*top, *duplicate}):
        starts, runs = _longer(starts, runs, row, hashes, length, n)
        length = n
        repeated = pl.Series(runs).is_duplicated().to_numpy()
        starts, runs = starts[repeated], runs[repeated]
        if n in top:
            shares[f"top_{n}gram"] = _top(starts, runs, row, chars_before, n, len(row_ids)) / total
        if n in duplicate:
            shares[f"duplicate_{n}gram"] = _covered(starts, row, chars_before, n, len(row_ids)) / total
    names = ["row", *(f"top_{n}gram" for n in top), *(f"duplicate_{n}gram" for n in duplicate)]
    return pl.DataFrame({name: shares[name] for name in names}, schema_overrides={"row": frame.schema["row"]})


def _longer(
    starts: NDArray[np.int64],
    runs: NDArray[np.uint64],
    row: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    length: int,
    n: int,
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Hashes of runs of `length` words made those of `n` words, without the runs that leave their text."""
    within = starts + n - 1 < len(row)
    within[within] = row[starts[within] + n - 1] == row[starts[within]]
    starts, runs = starts[within], runs[within]
    for place in range(length, n):
        runs = runs * _BASE + hashes[starts + place]
    return starts, runs


def _top(
    starts: NDArray[np.int64],
    runs: NDArray[np.uint64],
    row: NDArray[np.int64],
    chars_before: NDArray[np.int64],
    n: int,
    rows: int,
) -> NDArray[np.int64]:
    """Characters of the most frequent run of each row, all its occurrences; of equally frequent runs the longest."""
    _, first, times = np.unique(runs, return_index=True, return_counts=True)
    at = starts[first]
    chars = chars_before[at + n] - chars_before[at]
    best = np.zeros(rows, np.int64)
    np.maximum.at(best, row[at], (times << 32) + chars)
    return (best >> 32) * (best & 0xFFFFFFFF)


def _covered(
    starts: NDArray[np.int64], row: NDArray[np.int64], chars_before: NDArray[np.int64], n: int, rows: int
) -> NDArray[np.float64]:
    """Characters of each row's words that stand in one of the runs that begin at `starts` (ascending)."""
    ends = np.minimum(starts + n, np.append(starts[1:], len(row)))
    return np.bincount(row[starts], chars_before[ends] - chars_before[starts], rows).astype(np.float64)
