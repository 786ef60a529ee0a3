"""Ray Data: `Dataset.mix` by weight, over blocks of a few thousand rows."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version as version_of
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from mix_protocol import Batch, Record, serve

_ROWS = 4096


def write(folder: Path, part: int, records: Iterable[Record]) -> None:
    target = folder / str(part)
    target.mkdir(parents=True)
    left, number = iter(records), 0
    while rows := list(islice(left, _ROWS)):
        pq.write_table(pa.Table.from_pylist(rows), target / f"{number}.parquet")
        number += 1


def batches(folder: Path, rates: list[float], batch: int) -> Iterable[Batch]:
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # From memory: with a reading operator for each of 81 parts, two cores are too few for it to begin.
    files = [sorted((folder / str(part)).glob("*.parquet")) for part in range(len(rates))]
    parts = [ray.data.from_arrow([pq.read_table(file) for file in some]) for some in files]
    mixed = parts[0].mix(*parts[1:], weights=rates)
    for found in mixed.iter_batches(batch_size=batch, batch_format="numpy"):
        yield found["part"], found["tokens"]


def version() -> str:
    return version_of("ray")


if __name__ == "__main__":
    serve(write, batches, version)
