"""Between Arrow columns of fixed-size values and NumPy arrays, without loops over rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def fixed_binary(values: NDArray[np.generic], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """The rows of a matrix as a column of fixed-size binary values; null where not `valid`."""
    mask = None if valid is None else pa.array(valid).buffers()[1]
    width = values.shape[1] * values.dtype.itemsize
    return pa.Array.from_buffers(pa.binary(width), len(values), [mask, pa.py_buffer(np.ascontiguousarray(values))])


def fixed_bytes(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """A column of fixed-size binary values without nulls as a matrix, uint8 [rows, width]."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    width = column.type.byte_width
    raw = np.frombuffer(array.buffers()[1], np.uint8)
    return raw[array.offset * width : (array.offset + len(array)) * width].reshape(-1, width)


def contains(known: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which values are among sorted known ones, bool [values]."""
    if not len(known):
        return np.zeros(len(values), np.bool_)
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
    return found


def take_table(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Some rows of a table of numbers."""
    return pa.table({name: table.column(name).to_numpy()[rows] for name in table.column_names}, table.schema)
