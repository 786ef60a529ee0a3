"""Small pictures of the fixtures, and files of them."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as Pillow

Array = npt.NDArray[Any]
WIDTH, HEIGHT = 80, 60


def scene(number: int, width: int = WIDTH, height: int = HEIGHT) -> Array:
    """A picture with a bright square that moves to the right with its number: uint8 [height, width, 3]."""
    pixels = np.full((height, width, 3), 40, np.uint8)
    pixels[20:36, 4 + 4 * number : 20 + 4 * number] = (240, 200, 60)
    return pixels


def encoded(pixels: Array, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def put_picture(path: Path, number: int) -> None:
    form = {".jpg": "JPEG", ".png": "PNG", ".ppm": "PPM"}[path.suffix]
    put(path, encoded(scene(number), form))


def put_json(path: Path, said: Any) -> None:
    put(path, json.dumps(said).encode())


def put_lines(path: Path, rows: Sequence[Any]) -> None:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    put(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def put_table(path: Path, rows: Sequence[dict[str, Any]], row_group_size: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=row_group_size)
