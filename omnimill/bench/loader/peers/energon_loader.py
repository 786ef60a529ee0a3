"""Megatron-Energon: prepared tars, shuffled by a buffer, two datasets by weight."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from megatron.energon import (
    Cooker,
    DefaultTaskEncoder,
    WorkerConfig,
    basic_sample_keys,
    get_loader,
    get_train_dataset,
    stateless,
)
from protocol import BATCH, serve
from webdataset_loader import write as write_tars

_BLEND = """__module__: megatron.energon
__class__: MetadatasetV2
splits:
  train:
    blend:
      - {weight: 0.7, path: ./0}
      - {weight: 0.3, path: ./1}
"""


def write(folder: Path, part: int, records: Iterable[bytes]) -> None:
    write_tars(folder, part, records)
    program = str(Path(sys.executable).parent / "energon")
    command = [program, "prepare", "--non-interactive", "--split-ratio", "1,0,0", "--force-overwrite"]
    subprocess.run([*command, str(folder / str(part))], check=True, capture_output=True)
    (folder / str(part) / ".nv-meta" / "dataset.yaml").write_text(
        "__module__: megatron.energon\n__class__: CrudeWebdataset\n"
    )
    (folder / "blend.yaml").write_text(_BLEND)


def batches(folder: Path, workers: int) -> Iterable[list[Any]]:
    class Plain(DefaultTaskEncoder):  # type: ignore[misc]
        cookers = [Cooker(stateless(_cooked))]  # noqa: RUF012 - the package's way

        def batch(self, samples: list[Any]) -> list[bytes]:
            return [sample["payload"] for sample in samples]

        def encode_batch(self, batch: Any) -> Any:
            return batch

    config = WorkerConfig(rank=0, world_size=1, num_workers=workers)
    dataset = get_train_dataset(
        str(folder / "blend.yaml"),
        worker_config=config,
        batch_size=BATCH,
        shuffle_buffer_size=1000,
        max_samples_per_sequence=100,
        task_encoder=Plain(),
    )
    return get_loader(dataset)


def _cooked(sample: dict[str, Any]) -> dict[str, Any]:
    return {**basic_sample_keys(sample), "payload": sample["bin"]}


def version() -> str:
    return version_of("megatron-energon")


if __name__ == "__main__":
    serve(write, batches, version)
