"""Lance: random access to rows; it has no shuffle or mixture of its own, so NumPy draws the rows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import torch
from protocol import BATCH, serve
from torch.utils.data import DataLoader


def write(folder: Path, part: int, records: Iterable[bytes]) -> None:
    schema = pa.schema([("payload", pa.large_binary())])

    def tables() -> Iterator[pa.RecordBatch]:
        rows: list[bytes] = []
        for record in records:
            rows.append(record)
            if len(rows) == 1024:
                yield pa.record_batch([pa.array(rows, pa.large_binary())], schema=schema)
                rows = []
        if rows:
            yield pa.record_batch([pa.array(rows, pa.large_binary())], schema=schema)

    reader = pa.RecordBatchReader.from_batches(schema, tables())
    lance.write_dataset(reader, str(folder / str(part)))


class Drawn:
    """Batches of rows drawn by NumPy, as a dataset whose items are batches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[Any] | None = None

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, number: int) -> list[bytes]:
        if self.parts is None:
            self.parts = [lance.dataset(str(self.folder / str(part))) for part in (0, 1)]
            self.counts = [part.count_rows() for part in self.parts]
        rng = np.random.default_rng([1, number])
        first = int((rng.random(BATCH) < 0.7).sum())
        found: list[bytes] = []
        for part, count, many in zip(self.parts, self.counts, (first, BATCH - first), strict=True):
            rows = part.take(rng.choice(count, many, replace=False).tolist(), columns=["payload"])
            found += rows.column("payload").to_pylist()
        return found


def batches(folder: Path, workers: int) -> Iterable[list[Any]]:
    context = "spawn" if workers else None
    return DataLoader(Drawn(folder), batch_size=None, num_workers=workers, multiprocessing_context=context)


def version() -> str:
    return version_of("pylance")


def resume(folder: Path) -> dict[str, Any]:
    """The order of a shuffled epoch is a permutation in memory; going on means to make it again."""
    del folder
    started = time.perf_counter()
    order = torch.randperm(1_000_000_000, generator=torch.Generator().manual_seed(1))
    int(order[1000])
    return {"seconds": time.perf_counter() - started, "other_ranks": "left to the user"}


if __name__ == "__main__":
    serve(write, batches, version, resume)
