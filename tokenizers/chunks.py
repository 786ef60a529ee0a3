"""Example shards in chunks that are prepared at once, each with the rows of an earlier token shard that it can use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from omnimill.schema import Example, from_row

# A chunk ends with the example that reaches either.
_CHUNK_ROWS = 16
_CHUNK_MEDIA = 8


@dataclass(frozen=True)
class Chunk:
    """rows: of the example shard, in order. media: pictures, clips, annotations and targets of these.

    earlier: as many rows of an earlier token shard, those of the same examples; None when it has not all of them.
    """

    rows: list[int]
    media: int
    earlier: pa.Table | None


def chunks(table: pa.Table, rows: Sequence[int], ids: Sequence[str], earlier: pa.Table | None) -> Iterator[Chunk]:
    """Cut rows of an example shard into chunks.

    Args:
        table: the shard.
        rows: that are wanted, in order.
        ids: of their examples, no two of them alike if there is an earlier shard.
        earlier: a token shard made of some of them.
    """
    places = {} if earlier is None else {one: place for place, one in enumerate(earlier.column("id").to_pylist())}
    media = _media(table)
    chunk: list[int] = []
    first: int | None = None  # place of the chunk's first example in the earlier shard
    for row, one in zip(rows, ids, strict=True):
        place = places.get(one)
        follows = place == (None if first is None else first + len(chunk))
        if chunk and (not follows or len(chunk) >= _CHUNK_ROWS or sum(media[r] for r in chunk) >= _CHUNK_MEDIA):
            yield _chunk(chunk, media, earlier, first)
            chunk = []
        if not chunk:
            first = place
        chunk.append(row)
    if chunk:
        yield _chunk(chunk, media, earlier, first)


def examples(table: pa.Table, rows: Sequence[int]) -> list[Example]:
    """Some rows of an example shard; copies what these hold and no more."""
    whole = rows[-1] - rows[0] + 1 == len(rows)
    part = table.slice(rows[0], len(rows)) if whole else table.take(rows)
    return [from_row(row) for row in part.to_pylist()]


def _chunk(rows: list[int], media: Sequence[int], earlier: pa.Table | None, first: int | None) -> Chunk:
    part = None if earlier is None or first is None else earlier.slice(first, len(rows))
    return Chunk(rows, sum(media[row] for row in rows), part)


def _media(table: pa.Table) -> list[int]:
    """Pictures, clips, annotations and targets of every example; reads none of them."""
    parts = ("images", "audio", "annotations", "targets")
    counts = [pc.list_value_length(table.column(name)).to_pylist() for name in parts]
    return [sum(of_one) for of_one in zip(*counts, strict=True)]
