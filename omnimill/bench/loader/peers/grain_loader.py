"""grain over ArrayRecord files: a computed shuffle, two datasets by weight."""

from __future__ import annotations

import time
from collections.abc import Iterable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import grain
from array_record.python.array_record_module import ArrayRecordWriter
from protocol import BATCH, serve


def write(folder: Path, part: int, records: Iterable[bytes]) -> None:
    target = folder / str(part)
    target.mkdir(parents=True, exist_ok=True)
    writer = ArrayRecordWriter(str(target / "records.array_record"), "group_size:1,uncompressed")
    for record in records:
        writer.write(record)
    writer.close()


def batches(folder: Path, workers: int) -> Iterable[list[Any]]:
    parts = []
    for part in (0, 1):
        source = grain.sources.ArrayRecordDataSource([str(folder / str(part) / "records.array_record")])
        parts.append(grain.MapDataset.source(source).seed(1).shuffle().repeat())
    mixed = grain.MapDataset.mix(parts, weights=[0.7, 0.3])
    dataset = mixed.to_iter_dataset().batch(BATCH, batch_fn=list)
    if workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return dataset


def version() -> str:
    return f"{version_of('grain')}, array_record {version_of('array_record')}"


def resume(folder: Path) -> dict[str, Any]:
    """Its order is computed too; where a rank stands is a number of its own slice."""
    del folder
    order = grain.MapDataset.range(1_000_000_000).seed(1).shuffle()
    first = iter(order.to_iter_dataset())
    for _ in range(1000):
        next(first)
    state = first.get_state()
    started = time.perf_counter()
    second = iter(grain.MapDataset.range(1_000_000_000).seed(1).shuffle().to_iter_dataset())
    second.set_state(state)
    next(second)
    seconds = time.perf_counter() - started
    try:
        other = iter(order[0::4].to_iter_dataset())
        other.set_state(state)
        repeated = len({next(first) for _ in range(1000)} & {next(other) for _ in range(250)})
        found = f"set_state moves a rank of 4 to sample 1,000 of its own slice, not of the whole ({repeated} shared)"
    except Exception as error:  # noqa: BLE001 - what it says is the answer
        found = str(error)[:200]
    return {"seconds": seconds, "other_ranks": found}


if __name__ == "__main__":
    serve(write, batches, version, resume)
