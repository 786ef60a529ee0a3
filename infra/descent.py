"""Which rows were made from which others."""

from __future__ import annotations

from collections.abc import Iterator, Set

import pyarrow as pa
import pyarrow.compute as pc

_MEDIA = ("images", "audio")


def made_of(parent: pa.Table, rows: Set[int], table: pa.Table) -> list[int]:
    """Rows of a shard of examples that were made from some rows of a shard of the dataset that it was made from.

    A row belongs to the example whose id or key it has for its key, or else to those whose media it shows.
    """
    names = {name for column in ("id", "key") for name in parent.column(column).to_pylist()}
    wanted = {parent.column(column)[row].as_py() for column in ("id", "key") for row in rows}
    digests = {digest for row, digest in _media_digests(parent) if digest and row in rows}
    shown = {row for row, digest in _media_digests(table) if digest in digests}
    keys = table.column("key").to_pylist()
    return [row for row, key in enumerate(keys) if (key in wanted if key in names else row in shown)]


def _media_digests(table: pa.Table) -> Iterator[tuple[int, str]]:
    """(row, digest) of every picture and clip; reads no medium."""
    for name in _MEDIA:
        column = table.column(name)
        digests = pc.struct_field(pc.list_flatten(column), "digest")
        yield from zip(pc.list_parent_indices(column).to_pylist(), digests.to_pylist(), strict=True)
