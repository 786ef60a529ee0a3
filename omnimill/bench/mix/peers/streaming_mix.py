"""MosaicML Streaming: streams by proportion, batches stratified where every stream has a record in each."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from mix_protocol import Batch, Record, serve
from streaming import MDSWriter, Stream, StreamingDataset
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader


def write(folder: Path, part: int, records: Iterable[Record]) -> None:
    with MDSWriter(out=str(folder / str(part)), columns={"part": "int32", "tokens": "int32"}) as out:
        for record in records:
            out.write(record)


def batches(folder: Path, rates: list[float], batch: int) -> Iterable[Batch]:
    clean_stale_shared_memory()
    streams = [Stream(local=str(folder / str(part)), proportion=rate) for part, rate in enumerate(rates)]
    # Stratified batches take the whole part of every proportion, so they cannot be had with smaller ones.
    method = "stratified" if min(rates) * batch >= 1 else "random"
    dataset = StreamingDataset(streams=streams, shuffle=True, batch_size=batch, shuffle_seed=1, batching_method=method)
    loader = DataLoader(dataset, batch_size=batch, num_workers=0, collate_fn=_columns)
    while True:
        yield from loader


def _columns(rows: list[dict[str, Any]]) -> Batch:
    return [int(row["part"]) for row in rows], [int(row["tokens"]) for row in rows]


def version() -> str:
    return version_of("mosaicml-streaming")


if __name__ == "__main__":
    serve(write, batches, version)
