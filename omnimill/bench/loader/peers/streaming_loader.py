"""MosaicML Streaming: MDS shards, shuffled, two streams by proportion."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from protocol import BATCH, serve
from streaming import MDSWriter, Stream, StreamingDataset
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader


def write(folder: Path, part: int, records: Iterable[bytes]) -> None:
    with MDSWriter(out=str(folder / str(part)), columns={"payload": "bytes"}, size_limit=1 << 26) as out:
        for record in records:
            out.write({"payload": record})


def batches(folder: Path, workers: int) -> Iterable[list[Any]]:
    clean_stale_shared_memory()
    streams = [Stream(local=str(folder / str(part)), proportion=share) for part, share in ((0, 0.7), (1, 0.3))]
    dataset = StreamingDataset(streams=streams, shuffle=True, batch_size=BATCH, shuffle_seed=1)
    return DataLoader(dataset, batch_size=BATCH, num_workers=workers, collate_fn=_payloads)


def _payloads(rows: list[dict[str, Any]]) -> list[bytes]:
    return [row["payload"] for row in rows]


def version() -> str:
    return version_of("mosaicml-streaming")


if __name__ == "__main__":
    serve(write, batches, version)
