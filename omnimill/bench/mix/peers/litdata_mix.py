"""litdata: datasets combined by weight."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version as version_of
from pathlib import Path

from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset
from litdata.streaming.writer import BinaryWriter
from mix_protocol import Batch, Record, serve


def write(folder: Path, part: int, records: Iterable[Record]) -> None:
    target = folder / str(part)
    target.mkdir(parents=True, exist_ok=True)
    writer = BinaryWriter(str(target), chunk_bytes=1 << 24)
    for number, record in enumerate(records):
        writer.add_item(number, (record["part"], record["tokens"]))
    writer.done()
    writer.merge()


def batches(folder: Path, rates: list[float], batch: int) -> Iterable[Batch]:
    parts = [StreamingDataset(str(folder / str(part)), shuffle=True, seed=1) for part in range(len(rates))]
    # Each part is begun again when it ends, so that rates hold for any length.
    mixed = CombinedStreamingDataset(parts, weights=rates, seed=1, iterate_over_all=False)
    loader = StreamingDataLoader(mixed, batch_size=batch, num_workers=0, collate_fn=_columns)
    while True:
        yield from loader


def _columns(rows: list[tuple[int, int]]) -> Batch:
    return [int(part) for part, _ in rows], [int(tokens) for _, tokens in rows]


def version() -> str:
    return version_of("litdata")


if __name__ == "__main__":
    serve(write, batches, version)
