"""The text of shards as flat buffers, for work on many rows at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class FlatTexts:
    """The text of some rows. data: UTF-8, uint8 [bytes], not to be written to.

    segments: where each segment starts in `data`, int64 [segments + 1].
    rows: which segment each row starts with, int64 [rows + 1]; a row without text has none.
    """

    data: NDArray[np.uint8]
    segments: NDArray[np.int64]
    rows: NDArray[np.int64]

    @property
    def row_bytes(self) -> NDArray[np.int64]:
        """Where each row starts in `data`, int64 [rows + 1]."""
        return self.segments[self.rows]


def flat_texts(column: pa.ChunkedArray) -> Iterator[FlatTexts]:
    """The column ``text`` of an example table, chunk by chunk, without a copy."""
    for lists in column.chunks:
        rows = lists.offsets.to_numpy().astype(np.int64)
        strings = lists.values.field("text")
        _, offsets, data = strings.buffers()
        # A chunk may be a slice of longer buffers: of lists, and of the segments below them.
        first, last = (int(rows[0]), int(rows[-1])) if len(rows) else (0, 0)
        starts = np.frombuffer(offsets, np.int32)[strings.offset + first : strings.offset + last + 1].astype(np.int64)
        if data is None or last == first:
            yield FlatTexts(np.empty(0, np.uint8), np.zeros(last - first + 1, np.int64), rows - first)
            continue
        content = np.frombuffer(data, np.uint8)[starts[0] : starts[-1]]
        yield FlatTexts(content, starts - starts[0], rows - first)
