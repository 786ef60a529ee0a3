"""What every global step may know of a row without a feature of its own: small columns, copied out of shards once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from omnimill.config import digest_json
from omnimill.errors import IntegrityError
from omnimill.schema import EXAMPLE_SCHEMA, SCHEMA_VERSION

FACTS_VERSION = 1
READS = ("id", "images", "meta")
DIGEST = pa.binary(16)
# A score that every row with pictures has: the size of the largest one.
PIXELS = "pixels"

FACTS = pa.schema([pa.field("id", DIGEST, nullable=False), EXAMPLE_SCHEMA.field("meta"), (PIXELS, pa.float64())])


def facts_recipe() -> str:
    """As `Step.feature_recipe`, for facts."""
    return digest_json([SCHEMA_VERSION, "facts", FACTS_VERSION])


def facts(table: pa.Table) -> pa.Table:
    """`FACTS` of a shard's rows.

    Raises:
        IntegrityError: an id is not hexadecimal or too short.
    """
    columns = [from_hex(table.column("id"), "id"), table.column("meta"), _pixels(table.column("images"))]
    return pa.table(columns, schema=FACTS)


def halves(column: pa.ChunkedArray) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Values of 16 bytes as two numbers each that sort like the bytes: the high half and the low half."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    raw = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * 16 : (array.offset + len(array)) * 16]
    words = raw.view(">u8").astype(np.uint64).reshape(-1, 2)
    return words[:, 0], words[:, 1]


def hexadecimal(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> list[str]:
    """The inverse of `halves`, as the 32 hexadecimal digits of an example's id."""
    return [f"{a:016x}{b:016x}" for a, b in zip(high.tolist(), low.tolist(), strict=True)]


def own_score(facts_of_rows: pa.Table, name: str) -> pa.Array:
    """A score that examples carry themselves (``meta.scores``) or `PIXELS`, float64; null where a row has none."""
    if name == PIXELS:
        return facts_of_rows.column(PIXELS).combine_chunks()
    return _entry(facts_of_rows.column("meta"), "scores", name, pa.float64())


def tag(meta: pa.ChunkedArray, name: str) -> pa.Array:
    """A tag that examples carry (``meta.tags``), as strings; null where a row has none."""
    return _entry(meta, "tags", name, pa.string())


def from_hex(column: pa.ChunkedArray, what: str) -> pa.Array:
    """The first 16 bytes of hexadecimal digests.

    Raises:
        IntegrityError: a value is not hexadecimal or too short; `what` names the column.
    """
    try:
        values = b"".join(bytes.fromhex(text[:32]) for text in column.to_pylist())
    except ValueError:
        raise IntegrityError(f"column {what} holds a value that is not hexadecimal") from None
    if len(values) != 16 * len(column):
        raise IntegrityError(f"column {what} holds a value of fewer than 32 hexadecimal digits")
    return pa.Array.from_buffers(DIGEST, len(column), [None, pa.py_buffer(values)])


def _pixels(column: pa.ChunkedArray) -> pa.ChunkedArray:
    parts = []
    for lists in column.chunks:
        pictures, counts = lists.flatten(), pc.list_value_length(lists).to_numpy()
        areas = pc.multiply(*(pictures.field(side).cast(pa.float64()) for side in ("width", "height"))).to_numpy()
        largest = np.zeros(len(lists))
        np.maximum.at(largest, np.repeat(np.arange(len(lists)), counts), areas)
        parts.append(pa.array(largest, mask=counts == 0))
    return pa.chunked_array(parts, pa.float64())


def _entry(meta: pa.ChunkedArray, field: str, name: str, kind: pa.DataType) -> pa.Array:
    values = pc.map_lookup(pc.struct_field(meta, field), pa.scalar(name), "first")
    return pc.cast(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values, kind)
