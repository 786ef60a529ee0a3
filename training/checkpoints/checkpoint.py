"""Checkpoints: one folder per step, published whole, that says everything about how it came to be.

Layout under the root::

    runs/<run>/checkpoints/step-00000050/model/shard-*.safetensors      the weights
                                         optimizer/shard-*.safetensors  the optimizer's tensors
                                         optimizer/groups.json          its other values, by parameter group
                                         checkpoint.json                `CheckpointRecord`, written last

"step 50" has done updates 0 … 49. Every worker writes a shard of its own, in the format of PyTorch's distributed
checkpoints over safetensors: a file says which parts of which tensors it holds, so any number of workers reads them, as
does one process (:func:`load_weights`). `omnimill.training.checkpoints.writer` writes them.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import Field, ValidationError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from omnimill.config import Config, digest_json
from omnimill.errors import IntegrityError, OmnimillError
from omnimill.infra import storage
from omnimill.infra.runs_folder import runs_folder
from omnimill.training.runs.inputs import TrainInputs

CHECKPOINT_VERSION = 4
RECORD, MODEL, OPTIMIZER, GROUPS = "checkpoint.json", "model", "optimizer", "optimizer/groups.json"
# In a run's folder that does not lie under its root: the root.
ROOT = "root"
# What the name of a folder begins with that is being written.
PARTIAL = ".partial-"
_FOLDER = re.compile(r"step-(\d{8,})")


class StoredFile(Config):
    """A file of the checkpoint: blake3 digest, bytes."""

    digest: str
    bytes: int


class MergedParent(Config):
    """A checkpoint that was merged: where it lay, the run and step that it is of, and its digest."""

    url: str
    run: str
    step: int
    digest: str


class MergeOrigin(Config):
    """How weights came to be that no training wrote. method: its name and settings, see `omnimill.training.merging`.
    seed: of those weights that no parent had."""

    method: dict[str, Any]
    seed: int
    parents: tuple[MergedParent, ...]


class CheckpointRecord(TrainInputs):
    """What ``checkpoint.json`` holds: enough to generate, to resume with any number of workers, and to replay.

    step: updates done. plan: the loader's state of all virtual streams, as it stands before step `step`.
    ledger: digest of the last entry of the run's ledger that it stands on.
    examples: consumed so far, by task.
    evaluation: what the evaluation of this step measured, nested names joined by dots; null: not finite; empty where
        there was none.
    files: by path in the folder. mlflow_run: the MLflow run that wrote it.
    merged: of what `omnimill merge` made; it is of step 0, and has no plan and no ledger. Its mixture and versions are
    those of all parents.
    """

    version: int = CHECKPOINT_VERSION
    run: str
    step: int
    plan: dict[str, Any]
    ledger: str
    examples: dict[str, int]
    evaluation: dict[str, float | None] = Field(default_factory=dict)
    files: dict[str, StoredFile] = Field(default_factory=dict)
    mlflow_run: str | None = None
    merged: MergeOrigin | None = None

    @property
    def digest(self) -> str:
        """Content digest: equal for two runs that learnt the same from the same, on equally many workers."""
        learnt = self.model_dump(mode="json", include={"version", "step", "plan", "examples", "files"})
        return digest_json({**self.decisive(), **learnt})


def run_folder(root: str, run: str) -> Path:
    """Where a run keeps its checkpoints and history, see `omnimill.infra.runs_folder`.

    Raises:
        ConfigError: that is no path on a file system.
    """
    return runs_folder(root) / run


def keep_root(run: Path, root: str) -> None:
    """Write down in a run's folder where its data lie, if that does not show by where it lies itself."""
    if not storage.is_local(root) or run.parent != Path(storage.filesystem(root)[1]) / "runs":
        run.mkdir(parents=True, exist_ok=True)
        storage.publish_bytes(str(run / ROOT), root.encode())


def root_of(checkpoint: str | Path) -> str:
    """Where the data of a checkpoint lie: the root of ``<root>/runs/<run>/checkpoints/<step>``, or as its run says."""
    folder = Path(checkpoint).resolve()
    folder = folder.parent if folder.is_file() else folder
    kept = folder.parents[1] / ROOT
    return kept.read_text(encoding="utf-8") if kept.exists() else str(folder.parents[3])


def checkpoints_folder(run: Path) -> Path:
    return run / "checkpoints"


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def list_checkpoints(run: Path) -> list[Path]:
    """Folders of a run's published checkpoints, oldest first."""
    found = [path for path in checkpoints_folder(run).glob("step-*") if _FOLDER.fullmatch(path.name)]
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


def find_named(root: str, named: str) -> Path:
    """The folder of a checkpoint that is named by a path, or as ``<run>`` or ``<run>/<step's folder>`` of the root."""
    try:
        return find(named).absolute()
    except OmnimillError:
        run, _, step = named.partition("/")
        folder = run_folder(root, run)
        found = checkpoints_folder(folder) / step if step else folder
        if not run or not found.exists():
            raise
        return find(found).absolute()


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


def measured(evaluation: Mapping[str, Any], within: str = "") -> dict[str, float | None]:
    """The numbers of a history line's ``evaluation`` by their names, nested ones joined by dots."""
    found: dict[str, float | None] = {}
    for name, value in evaluation.items():
        if isinstance(value, Mapping):
            found |= measured(value, f"{within}{name}.")
        elif value is None or isinstance(value, int | float):
            found[f"{within}{name}"] = value
    return found


def load_weights(folder: str | Path) -> dict[str, Tensor]:
    """The model's whole state dict on the CPU, for one process; checked against the digests."""
    folder = Path(folder)
    _check_files(folder, sorted(name for name in read_record(folder).files if name.startswith(f"{MODEL}/")))
    held = HuggingFaceStorageReader(str(folder / MODEL)).read_metadata().state_dict_metadata
    weights = {
        name: torch.empty(tensor.size, dtype=tensor.properties.dtype)
        for name, tensor in held.items()
        if isinstance(tensor, TensorStorageMetadata)
    }
    _fill(folder / MODEL, weights, None)
    return weights


def load_state(folder: str | Path, state: MutableMapping[str, Any], group: dist.ProcessGroup | None = None) -> None:
    """Fill a learner's state with that of a checkpoint, in place; checked against the digests.

    Args:
        state: ``model`` and ``optimizer`` as `Learner.state` gives them, with any number of workers, sharded or not.
        group: of all workers that do this, each for its own part of `state`; None: there is only this process.

    Raises:
        IntegrityError: a file is damaged or missing; on all workers.
    """
    folder = Path(folder)
    rank, world = (dist.get_rank(group), dist.get_world_size(group)) if group else (0, 1)
    try:
        # Each file is checked by one worker.
        _check_files(folder, sorted(read_record(folder).files)[rank::world])
        fault = None
    except IntegrityError as error:
        fault = str(error)
    faults = [fault]
    if group:
        faults = [None] * world
        dist.all_gather_object(faults, fault, group=group)
    if found := [one for one in faults if one]:
        raise IntegrityError(found[0])
    _fill(folder / MODEL, state["model"], group)
    _fill(folder / OPTIMIZER, {"state": state["optimizer"]["state"]}, group)
    state["optimizer"]["param_groups"] = json.loads((folder / GROUPS).read_bytes())


@contextmanager
def on_workers() -> Iterator[None]:
    """What PyTorch's distributed checkpoints raise as an error that says which worker it was."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            yield
        except CheckpointException as error:
            rank, (cause, _) = min(error.failures.items(), key=lambda failure: failure[0])
            raise OmnimillError(f"worker {rank}: {type(cause).__name__}: {cause}") from cause


def _fill(folder: Path, tensors: Mapping[str, Any], group: dist.ProcessGroup | None) -> None:
    with on_workers():
        load(
            dict(tensors),
            storage_reader=HuggingFaceStorageReader(str(folder)),
            process_group=group,
            no_dist=group is None,
        )


def _check_files(folder: Path, names: list[str]) -> None:
    files = read_record(folder).files
    for name in names:
        path, expected = folder / name, files[name]
        if not path.exists() or storage.digest_file(str(path)) != expected.digest:
            raise IntegrityError(
                f"{path} is damaged or missing: it is not the file that {RECORD} names (digest "
                f"{expected.digest[:16]}…); delete {folder} to go on from the checkpoint before it"
            )
