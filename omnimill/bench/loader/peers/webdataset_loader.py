"""webdataset: tars, shuffled by a buffer, two datasets by chance."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import webdataset
from protocol import BATCH, serve
from torch.utils.data import DataLoader


def write(folder: Path, part: int, records: Iterable[bytes]) -> None:
    target = folder / str(part)
    target.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(target / "%06d.tar"), maxsize=1 << 26, verbose=0) as out:
        for number, record in enumerate(records):
            out.write({"__key__": f"{number:09d}", "bin": record})


def batches(folder: Path, workers: int) -> Iterable[list[Any]]:
    parts = []
    for part in (0, 1):
        tars = sorted(str(path) for path in (folder / str(part)).glob("*.tar"))
        parts.append(
            webdataset.WebDataset(tars, resampled=True, shardshuffle=False, seed=1).shuffle(1000, initial=1000)
        )
    mixed = webdataset.RandomMix(parts, probs=[0.7, 0.3])
    return DataLoader(mixed, batch_size=BATCH, num_workers=workers, collate_fn=_payloads)


def _payloads(rows: list[dict[str, Any]]) -> list[bytes]:
    return [row["bin"] for row in rows]


def version() -> str:
    return version_of("webdataset")


if __name__ == "__main__":
    serve(write, batches, version)
