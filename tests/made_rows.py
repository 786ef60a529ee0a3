"""Rows of examples made in tests, datasets of them, and what selections leave out of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from omnimill.infra.dataset import Commit, Counts, Dataset
from omnimill.infra.selections import left_out, load_selection
from omnimill.rng import generator
from omnimill.schema import Example, Image, Meta, Provenance, Text, example_id, to_table

Pixels = NDArray[np.uint8]


def make_row(
    source: str,
    key: str,
    *texts: str,
    images: Sequence[Image] = (),
    record: str | None = None,
    uri: str = "u",
    **meta: Any,
) -> Example:
    """An example; `record` stands for the bytes that it was read from."""
    digest = blake3((record or key).encode()).hexdigest()
    return Example(
        id=example_id(source, key, digest),
        source=source,
        unit=source,
        key=key,
        provenance=Provenance(uri=uri, digest=digest),
        text=[Text(role="body", text=text) for text in texts],
        images=list(images),
        meta=Meta(**meta),
    )


def publish(root: str, rows: Sequence[Example], shard_rows: int = 3, name: str = "made") -> Dataset:
    """A dataset of these rows, a unit per source, in shards of so many rows."""
    dataset = Dataset(root, name)
    commits = []
    for source in sorted({row.source for row in rows}):
        own = [row for row in rows if row.source == source]
        parts = [own[i : i + shard_rows] for i in range(0, len(own), shard_rows)]
        shards = tuple(dataset.publish_shard(to_table(part)) for part in parts)
        counts = Counts(records_in=len(own), kept=len(own), examples_written=len(own))
        commits.append(Commit(unit=source, source=source, recipe="r", inputs=(), shards=shards, counts=counts))
    dataset.publish_manifest("examples", commits)
    return dataset


def verdicts(dataset: Dataset, selection: str) -> dict[str, dict[str, Any]]:
    """What a selection leaves out, by example id."""
    tables = [left_out(dataset, part.file) for part in load_selection(dataset, selection)[1].shards]
    return {row["id"]: row for table in tables for row in table.to_pylist()}


def photo(*keys: object) -> Pixels:
    """A picture with detail at every scale, uint8 [240, 320, 3]."""
    random = generator("photo", *map(str, keys))
    total = np.zeros((240, 320, 3))
    for scale in (3, 6, 12, 24, 48, 96):
        patch = random.normal(size=(scale, scale * 4 // 3, 3)).astype(np.float32)
        total += cv2.resize(patch, (320, 240), interpolation=cv2.INTER_CUBIC) * 60 / scale**0.5
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def stored(rgb: Pixels, quality: int = 92) -> Image:
    """Pixels [height, width, 3] as a JPEG."""
    data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    digest = blake3(data).hexdigest()
    return Image(data=data, format="jpeg", width=rgb.shape[1], height=rgb.shape[0], digest=digest)
