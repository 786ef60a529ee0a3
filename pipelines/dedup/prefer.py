"""Which of several twins is kept: a pure function of the rows themselves, whatever shards they lie in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from omnimill.config import Config

_RANKS = 1 << 12


class TagOrder(Config):
    """Values of a tag, those to be kept first; other values and rows without the tag come last."""

    name: str
    values: tuple[str, ...] = Field(min_length=1, max_length=_RANKS - 1)


class Prefer(Config):
    """Of twins that one is kept which comes first by source, then tag, then score, then id.

    sources: those to be kept first; others come after them, as equals.
    score: a score's name, or ``pixels``, the size of the largest picture; higher is kept, a row without comes last.
    """

    sources: tuple[str, ...] = Field((), max_length=_RANKS - 1)
    tag: TagOrder | None = None
    score: str | None = None


def preference(
    prefer: Prefer, source: str, rows: int, tags: pa.Array | None, scores: pa.Array | None
) -> NDArray[np.uint64]:
    """A number per row, smaller is kept first; ties are left to ids. uint64 [rows].

    Scores are compared as float32: 12 bits of source, 12 of tag and 32 of score make one number.

    Args:
        source: of all the rows.
        tags: each row's value of `prefer.tag`, when there is one; null where a row has none.
        scores: each row's `prefer.score`, likewise.
    """
    place = np.full(rows, _rank(source, prefer.sources), np.uint64) << np.uint64(44)
    if prefer.tag is not None:
        found = pc.index_in(tags, pa.array(prefer.tag.values, pa.string()))
        place |= pc.fill_null(found, _RANKS - 1).to_numpy(zero_copy_only=False).astype(np.uint64) << np.uint64(32)
    if prefer.score is not None:
        place |= _descending(pc.fill_null(scores, np.nan).to_numpy(zero_copy_only=False)).astype(np.uint64)
    return place


def _rank(source: str, order: Sequence[str]) -> int:
    return order.index(source) if source in order else _RANKS - 1


def _descending(values: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Numbers that grow as values fall, by the order of IEEE 754 bit patterns; not-a-number comes last."""
    bits = (values.astype(np.float32) + np.float32(0)).view(np.uint32)  # adding 0 makes -0 and 0 the same
    ascending = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return np.where(np.isnan(values), np.uint32(0xFFFFFFFF), ~ascending).astype(np.uint32)
