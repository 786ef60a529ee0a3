"""litdata: optimised chunks, shuffled, two datasets by weight."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset
from litdata.streaming.writer import BinaryWriter
from protocol import BATCH, serve


def write(folder: Path, part: int, records: Iterable[bytes]) -> None:
    target = folder / str(part)
    target.mkdir(parents=True, exist_ok=True)
    writer = BinaryWriter(str(target), chunk_bytes=1 << 26)
    for number, record in enumerate(records):
        writer.add_item(number, record)
    writer.done()
    writer.merge()


def batches(folder: Path, workers: int) -> Iterable[list[Any]]:
    parts = [StreamingDataset(str(folder / str(part)), shuffle=True, seed=1) for part in (0, 1)]
    mixed = CombinedStreamingDataset(parts, weights=(0.7, 0.3), seed=1, iterate_over_all=False)
    return StreamingDataLoader(mixed, batch_size=BATCH, num_workers=workers, collate_fn=_bytes if workers else list)


def _bytes(rows: list[Any]) -> list[bytes]:
    """Views of the chunks do not go from one process to another."""
    return [bytes(row) for row in rows]


def version() -> str:
    return version_of("litdata")


if __name__ == "__main__":
    serve(write, batches, version)
