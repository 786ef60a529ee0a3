"""The pictures of shards, row by row, for work on their hashes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from omnimill.pipelines.dedup.image_hash import hash_picture
from omnimill.schema import Image


def picture_hashes(column: pa.ChunkedArray) -> Iterator[list[NDArray[np.uint8] | None]]:
    """For every row of an example table's ``images`` the hashes of its pictures, see `hash_picture`."""
    for lists in column.chunks:
        for row in lists:
            yield [hash_picture(_image(item)) for item in row.values] if len(row) else []


def _image(item: pa.StructScalar) -> Image:
    values = {name: item[name].as_py() for name in ("format", "width", "height", "digest")}
    return Image(data=item["data"].as_buffer().to_pybytes(), **values)
