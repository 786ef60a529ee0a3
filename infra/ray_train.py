"""A function on the workers of Ray Train, the same way for every command that trains.

Ray starts the workers, connects them, and starts them again when one is lost. Where to go on from is the function's
business: Ray's own list of reported checkpoints is tied to one Ray version and is not written atomically, so it is not
used.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError

from omnimill.errors import ConfigError, OmnimillError


@dataclass(frozen=True)
class WorkerGroup:
    """Processes that train together: how many, and the cores and GPUs of each.

    fewest: so many go on where there is no room for more, and the group grows again when there is; None: all or none.
    look_every: seconds between looks for room for more.
    """

    count: int
    threads: int
    num_gpus: float = 0.0
    fewest: int | None = None
    look_every: float = 60.0

    def cores(self, wanted: int | None = None) -> int:
        """Cores for a local Ray: those wanted; else all, and as many as the workers need on a smaller machine."""
        return wanted if wanted is not None else max(os.cpu_count() or 1, self.count * self.threads)


def run_workers(
    function: Callable[[Mapping[str, Any]], None],
    settings: Mapping[str, Any],
    group: WorkerGroup,
    scratch: Path,
    label: str,
    max_failures: int,
) -> None:
    """Run a function on every worker of a group, inside a ``torch.distributed`` process group; needs a Ray session.

    Args:
        function: of a module that little is imported by, each worker imports it anew.
        settings: its argument.
        group: the workers.
        scratch: folder for Ray's own files, on a disk that all machines share; deleted here.
        label: what is trained, for messages.
        max_failures: times that lost workers are started again; those on machines that were taken away do not count.

    Raises:
        ConfigError: the local Ray has too few cores.
        OmnimillError: a worker failed; says which and why. One that a worker raised comes out as it is.
    """
    _check_cores(group)
    shutil.rmtree(scratch, ignore_errors=True)
    trainer = ray.train.torch.TorchTrainer(
        function,
        train_loop_config=dict(settings),
        # Typed by what Ray Train was before it had elastic groups.
        scaling_config=ScalingConfig(  # type: ignore[call-arg]
            num_workers=group.count if group.fewest is None else (group.fewest, group.count),  # type: ignore[arg-type]
            elastic_resize_monitor_interval_s=group.look_every,
            use_gpu=group.num_gpus > 0,
            resources_per_worker={"CPU": group.threads, **({"GPU": group.num_gpus} if group.num_gpus else {})},
        ),
        run_config=RunConfig(
            name="session", storage_path=str(scratch), failure_config=FailureConfig(max_failures=max_failures)
        ),
    )
    with _interruptible():
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _explained(error, label) from error
    shutil.rmtree(scratch, ignore_errors=True)


def _check_cores(group: WorkerGroup) -> None:
    """Ray waits without end for what a cluster of fixed size does not have."""
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    count = group.count if group.fewest is None else group.fewest
    needed, found = count * group.threads, int(resources.get("CPU", 0))
    if found < needed and not os.environ.get("RAY_ADDRESS"):
        raise ConfigError(f"{count} workers of {group.threads} threads need {needed} cores; Ray has {found} (--cpus)")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ray Train answers Ctrl-C with the end of the program and keeps the signal: make it what it is elsewhere."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def _explained(error: TrainingFailedError, label: str) -> OmnimillError:
    """The first worker's failure, as the user should read it."""
    failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    for rank, failure in sorted(failures.items()):
        cause = failure.__cause__ or failure
        if isinstance(cause, OmnimillError):
            return cause
        return OmnimillError(f"{label}: worker {rank} failed: {type(cause).__name__}: {cause}")
    return OmnimillError(f"{label}: training failed: {error}")
