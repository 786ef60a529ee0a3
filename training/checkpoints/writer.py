"""Writes checkpoints while training goes on.

Training waits only while its tensors are copied to the memory of the machine. A thread of every worker then writes the
worker's own shard; when all are written and have their digests, worker 0 puts the record beside them and renames the
folder, so that a killed run leaves a whole checkpoint or none, and deletes those that are no longer kept.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
import uuid
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch.distributed as dist
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import save

from omnimill.config import canonical_json
from omnimill.errors import OmnimillError
from omnimill.infra import storage
from omnimill.training.checkpoints.checkpoint import (
    GROUPS,
    MODEL,
    OPTIMIZER,
    PARTIAL,
    RECORD,
    CheckpointRecord,
    StoredFile,
    checkpoints_folder,
    folder_name,
    on_workers,
)
from omnimill.training.checkpoints.retention import prune
from omnimill.training.checkpoints.settings import CheckpointSettings

# How long workers wait for the slowest of them to write its shard.
WRITING = timedelta(hours=2)
# How long a run that fails waits for the checkpoint that it was writing.
FAILING_SECONDS = 30.0


class CheckpointWriter:
    """Publishes a run's checkpoints in the background, one at a time. Every worker of the run has one.

    Use it as a context manager: at the end of the block the last checkpoint is published.

    Args:
        run: the run's folder, on a disk that all workers share.
        settings: which checkpoints are kept.
        on_gpu: whether the tensors lie there; their copies then have pages that the GPU writes itself.
    """

    def __init__(self, run: Path, settings: CheckpointSettings, *, on_gpu: bool = False) -> None:
        self._run, self._settings = run, settings
        # Of its own: what is sent in the background must not get between what training sends.
        self.group = dist.new_group(backend="gloo", timeout=WRITING) if dist.is_initialized() else None
        self._rank = dist.get_rank(self.group) if self.group else 0
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=on_gpu,
                use_shared_memory=False,
                use_async_staging=False,
                use_non_blocking_copy=on_gpu,
            )
        )
        self._pending: Future[None] | None = None

    def save(self, record: CheckpointRecord | None, state: dict[str, Any]) -> None:
        """Begin to write a checkpoint; every worker calls this at the same step, and may change `state` afterwards.

        Args:
            record: worker 0's; `files` is filled in here.
            state: as `Learner.state` gives it, with the tensors of this worker.

        Raises:
            OmnimillError: the checkpoint before could not be written.
        """
        self.wait()
        partial = self._prepared()
        tensors = {MODEL: state["model"], OPTIMIZER: {"state": state["optimizer"]["state"]}}
        groups = canonical_json(state["optimizer"]["param_groups"])
        staged = self._stager.stage(tensors)
        pending: Future[None] = Future()

        def write() -> None:
            try:
                self._write(partial, record, staged, groups)
                pending.set_result(None)
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                pending.set_exception(error)

        # A daemon: a failing run must be able to end although another worker does not answer.
        threading.Thread(target=write, name="checkpoint", daemon=True).start()
        self._pending = pending

    def wait(self, seconds: float | None = None) -> None:
        """Wait until what was begun is published."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result(seconds)
        except TimeoutError:
            raise
        except Exception as error:
            raise OmnimillError(f"no checkpoint could be written under {self._run}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait(FAILING_SECONDS if kind else None)
        except (OmnimillError, TimeoutError):
            if kind is None:
                raise
        self._stager.close()

    def _prepared(self) -> Path:
        """A new folder to write into, the same on all workers."""
        names = [f"{PARTIAL}{uuid.uuid4().hex}"]
        if self._rank == 0:
            (checkpoints_folder(self._run) / names[0]).mkdir(parents=True)
        if self.group:
            dist.broadcast_object_list(names, group=self.group, group_src=0)
        return checkpoints_folder(self._run) / names[0]

    def _write(self, partial: Path, record: CheckpointRecord | None, staged: Any, groups: bytes) -> None:
        files = {}
        for part in (MODEL, OPTIMIZER):
            files.update(self._shard(partial, part, staged[part]))
        found: list[dict[str, StoredFile]] = [files]
        if self.group:
            found = [{} for _ in range(dist.get_world_size(self.group))]
            dist.gather_object(files, found if self._rank == 0 else None, group=self.group, group_dst=0)
        if record is None:
            return
        (partial / GROUPS).write_bytes(groups)
        every = {GROUPS: _stored(partial / GROUPS)}
        for one in found:
            every |= one
        _publish(self._run, partial, record.model_copy(update={"files": dict(sorted(every.items()))}))
        prune(self._run, self._settings)

    def _shard(self, partial: Path, part: str, tensors: dict[str, Any]) -> dict[str, StoredFile]:
        """Write this worker's shard of a part; its files by their paths in the folder."""
        with on_workers():
            save(
                tensors,
                storage_writer=HuggingFaceStorageWriter(str(partial / part), save_distributed=True),
                process_group=self.group,
                no_dist=self.group is None,
            )
        mine = sorted((partial / part).glob(f"shard-{self._rank + 1:05d}-*"))
        for path in mine:
            _sort_header(path)
        return {f"{part}/{path.name}": _stored(path) for path in mine}


def _sort_header(path: Path) -> None:
    """Put the header of a safetensors file in order, so that equal tensors give equal bytes.

    The library writes entries about the whole file in another order each time. A header is JSON after its length of 8
    bytes, filled up with spaces; sorting it changes no length.
    """
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        ordered = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= length, f"{path}: the header grew from {length} to {len(ordered)} bytes"
        file.seek(8)
        file.write(ordered.ljust(length))


def _publish(run: Path, partial: Path, record: CheckpointRecord) -> None:
    (partial / RECORD).write_bytes(canonical_json(record.model_dump(mode="json")))
    for name in (*record.files, RECORD, MODEL, OPTIMIZER, "."):
        _to_disk(partial / name)
    target = checkpoints_folder(run) / folder_name(record.step)
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    _to_disk(target.parent)


def _stored(path: Path) -> StoredFile:
    return StoredFile(digest=storage.digest_file(str(path)), bytes=path.stat().st_size)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
