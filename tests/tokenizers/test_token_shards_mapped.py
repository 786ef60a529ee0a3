"""Token shards are read where they lie: a range of rows is mapped from its file, nothing of it is copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from omnimill.infra import arrow_files
from omnimill.infra.dataset import Commit, Dataset, FileRef
from omnimill.mixtures.config import Task
from omnimill.mixtures.rows import TaskRows
from omnimill.mixtures.versions import TokenData
from omnimill.rng import generator
from omnimill.tokens import TOKEN_SCHEMA

ROWS = 300
PICTURE_BYTES = 100_000


@pytest.fixture
def shard(tmp_path: Path) -> tuple[Dataset, FileRef]:
    """30 MB of rows with one picture each."""
    noise = generator("mapped").bytes(PICTURE_BYTES)
    row = {name: [] for name in TOKEN_SCHEMA.names}
    rows = [
        {
            **row,
            "id": str(i),
            "source": "s",
            "key": str(i),
            "text_roles": ["caption"],
            "text_images": [0],
            "text_audio": [None],
            "text_items": [None],
            "text_lengths": [3],
            "text_ids": [[i, 1, 2]],
            "image_patches": [9],
            "history_patches": [4],
            "image_codes_lengths": [1024],
            "image_data": [noise],
            "image_codes": [np.full(1024, i, np.uint16)],
        }
        for i in range(ROWS)
    ]
    dataset = Dataset(str(tmp_path), "tokens")
    return dataset, dataset.publish_shard(pa.Table.from_pylist(rows, TOKEN_SCHEMA))


def mapped(path: Path, address: int) -> bool:
    """Whether an address of this process lies in a mapping of a file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split(maxsplit=5)
        start, _, stop = span.partition("-")
        if name == str(path) and int(start, 16) <= address < int(stop, 16):
            return True
    return False


def test_a_range_of_rows_is_mapped(shard: tuple[Dataset, FileRef]) -> None:
    dataset, ref = shard
    path = Path(dataset.shard_url(ref))
    assert ref.bytes > ROWS * PICTURE_BYTES
    before = pa.total_allocated_bytes()
    part = arrow_files.read_table(str(path)).slice(100, 150)
    (pictures,) = part.column("image_data").chunks  # rows 100 to 250 lie in the first record batch
    offsets, data = pictures.flatten().buffers()[1:]
    assert data.size > 200 * PICTURE_BYTES
    assert mapped(path, offsets.address)
    assert mapped(path, data.address)
    # The metadata of record batches is all that was allocated: not one picture.
    assert pa.total_allocated_bytes() - before < PICTURE_BYTES


def test_codes_that_training_fetches_are_a_view_of_the_file(shard: tuple[Dataset, FileRef]) -> None:
    dataset, ref = shard
    commit = Commit(unit="s-0", source="s", recipe="r", inputs=(), shards=(ref,))
    _, manifest = dataset.publish_manifest("tokens", [commit])
    task = Task(name="t", rate=1, sources=["s"], inputs=["image"], target="text:caption")
    rows = TaskRows.open(TokenData(dataset.root, (manifest,)), task)
    before = pa.total_allocated_bytes()
    row = rows.fetch(290)
    path = Path(dataset.shard_url(ref))
    (codes,) = row.image_codes
    assert codes.tolist() == [290] * 1024
    for view in (codes, row.text_ids[0]):
        assert mapped(path, view.__array_interface__["data"][0])
    assert pa.total_allocated_bytes() - before < PICTURE_BYTES
