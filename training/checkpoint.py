"""Checkpoints: one folder per step, published whole, that says everything about how it came to be.

Layout under the root::

    runs/<run>/checkpoints/step-00000050/weights.pt       the model's state dict
                                         optimizer.pt     the optimizer's state dict
                                         checkpoint.json  `CheckpointRecord`, written last

"step 50" has done updates 0 … 49. A folder is prepared under another name and renamed, so that a killed run leaves a
whole checkpoint or none. Nothing in it depends on the number of workers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from omnimill.config import Config, canonical_json, digest_json
from omnimill.errors import ConfigError, IntegrityError, OmnimillError
from omnimill.infra import storage
from omnimill.training.inputs import TrainInputs

CHECKPOINT_VERSION = 3
RECORD, WEIGHTS, OPTIMIZER = "checkpoint.json", "weights.pt", "optimizer.pt"
_FOLDER = re.compile(r"step-(\d{8,})")


class StoredFile(Config):
    """A file of the checkpoint: blake3 digest, bytes."""

    digest: str
    bytes: int


class CheckpointRecord(TrainInputs):
    """What ``checkpoint.json`` holds: enough to generate, to resume with any number of workers, and to replay.

    step: updates done. plan: the loader's state of all virtual streams, as it stands before step `step`.
    ledger: digest of the last entry of the run's ledger that it stands on.
    examples: consumed so far, by task.
    mlflow_run: the MLflow run that wrote it.
    """

    version: int = CHECKPOINT_VERSION
    run: str
    step: int
    plan: dict[str, Any]
    ledger: str
    examples: dict[str, int]
    files: dict[str, StoredFile] = Field(default_factory=dict)
    mlflow_run: str | None = None

    @property
    def digest(self) -> str:
        """Content digest of the checkpoint: equal for two runs that learnt the same from the same."""
        learnt = self.model_dump(mode="json", include={"version", "step", "plan", "examples", "files"})
        return digest_json({**self.decisive(), **learnt})


def run_folder(root: str, run: str) -> Path:
    """Where a run keeps its checkpoints and history; on this machine or a shared file system.

    Raises:
        ConfigError: the root is not a local path.
    """
    if not storage.is_local(root):
        raise ConfigError(f"training writes its runs to a local or shared folder; found --root {root!r}")
    return Path(storage.filesystem(root)[1]) / "runs" / run


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def list_checkpoints(run: Path) -> list[Path]:
    """Folders of a run's published checkpoints, oldest first."""
    found = [path for path in (run / "checkpoints").glob("step-*") if _FOLDER.fullmatch(path.name)]
    return sorted((path for path in found if (path / RECORD).exists()), key=lambda path: int(path.name[5:]))


def newest(run: Path) -> Path | None:
    """The folder of the newest published checkpoint; None when there is none."""
    found = list_checkpoints(run)
    return found[-1] if found else None


def find(path: str | Path) -> Path:
    """The checkpoint's folder that a path means: itself, or the newest of a run's folder.

    Raises:
        OmnimillError: it is neither, or the run has none.
    """
    folder = Path(path) if (Path(path) / RECORD).exists() else newest(Path(path))
    if folder is None:
        raise OmnimillError(f"{path}: neither a checkpoint's folder nor that of a run which has checkpoints")
    return folder


def save(run: Path, record: CheckpointRecord, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any]) -> Path:
    """Publish a checkpoint; `record.files` is filled in here.

    Returns:
        The checkpoint's folder.
    """
    folder = run / "checkpoints"
    partial = folder / f".partial-{uuid.uuid4().hex}"
    partial.mkdir(parents=True)
    files = {}
    for name, value in ((WEIGHTS, weights), (OPTIMIZER, optimizer)):
        torch.save(value, partial / name)
        files[name] = StoredFile(digest=storage.digest_file(str(partial / name)), bytes=(partial / name).stat().st_size)
    body = record.model_copy(update={"files": files}).model_dump(mode="json")
    (partial / RECORD).write_bytes(canonical_json(body))
    for name in (WEIGHTS, OPTIMIZER, RECORD, "."):
        _to_disk(partial / name)
    target = folder / folder_name(record.step)
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    _to_disk(folder)
    return target


def prune(run: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what a killed writer left half written or half deleted."""
    for path in list_checkpoints(run)[:-keep]:
        (path / RECORD).unlink()
    for path in [*(run / "checkpoints").glob(".partial-*"), *(run / "checkpoints").glob("step-*")]:
        if not (path / RECORD).exists() or path.name.startswith("."):
            shutil.rmtree(path)


def read_record(folder: str | Path) -> CheckpointRecord:
    """The record of a checkpoint, from its folder or from its ``checkpoint.json``.

    Raises:
        OmnimillError: there is no checkpoint.
        IntegrityError: it is of a version that this program cannot read.
    """
    path = Path(folder)
    path = path if path.name == RECORD else path / RECORD
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise OmnimillError(f"no checkpoint: {path} does not exist") from None
    except ValueError as error:
        raise IntegrityError(f"{path}: not JSON: {error}") from None
    if not isinstance(body, dict) or body.get("version") != CHECKPOINT_VERSION:
        found = body.get("version") if isinstance(body, dict) else None
        raise IntegrityError(f"{path}: checkpoint version {found!r}; this omnimill reads {CHECKPOINT_VERSION}")
    try:
        return CheckpointRecord.model_validate(body)
    except ValidationError as error:
        raise IntegrityError(f"{path}: not a checkpoint record: {error}") from None


def load_weights(folder: str | Path, device: str = "cpu") -> dict[str, Tensor]:
    """The model's state dict, checked against its digest."""
    return _load(Path(folder), WEIGHTS, device)


def load_optimizer(folder: str | Path, device: str = "cpu") -> dict[str, Any]:
    """The optimizer's state dict, checked against its digest."""
    return _load(Path(folder), OPTIMIZER, device)


def _load(folder: Path, name: str, device: str) -> dict[str, Any]:
    expected = read_record(folder).files[name]
    path = folder / name
    if not path.exists() or storage.digest_file(str(path)) != expected.digest:
        raise IntegrityError(
            f"{path} is damaged or missing: it is not the file that {RECORD} names (digest {expected.digest[:16]}…); "
            f"delete {folder} to go on from the checkpoint before it"
        )
    loaded: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return loaded


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
