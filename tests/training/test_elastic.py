"""A run whose workers are killed, told to stop, or change in number; without Ray, as plain processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from omnimill import rng
from omnimill.training.checkpoints import checkpoint
from omnimill.training.checkpoints.settings import CheckpointSettings
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.history import TIMING, read_history
from omnimill.training.runs.inputs import TrainInputs
from omnimill.training.runs.loop import Worker, train_worker
from omnimill.training.runs.notices import STOP, Notice, Notices, stopped_by_signal

STEPS = 7


def _work(rank: int, world: int, store: str, inputs: TrainInputs, root: str) -> None:
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    train_worker(inputs, root, Worker(rank, world))


class Run:
    """A run of some steps that can be launched with any number of workers, again and again."""

    def __init__(self, name: str, inputs: TrainInputs, root: Path, folder: Path, **changed: Any) -> None:
        values = {"name": name, "steps": STEPS, "checkpoints": CheckpointSettings(every=2, keep=99), **changed}
        self._inputs = inputs.model_copy(update={"config": inputs.config.model_copy(update=values)})
        self._root, self._store, self._launches = root, folder / name, 0
        self.folder = checkpoint.run_folder(str(root), name)

    def start(self, world: int, **changed: Any) -> list[BaseProcess]:
        self._launches += 1
        inputs = self._inputs.model_copy(update={"config": self._inputs.config.model_copy(update=changed)})
        store = f"{self._store}-{self._launches}"
        processes: list[BaseProcess] = [
            multiprocessing.get_context("forkserver").Process(
                target=_work, args=(rank, world, store, inputs, str(self._root))
            )
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        return processes

    def train(self, world: int, **changed: Any) -> None:
        processes = self.start(world, **changed)
        assert [_ended(process) for process in processes] == [0] * world

    def reach(self, processes: list[BaseProcess], step: int) -> None:
        """Wait for the line of a step in the history."""
        while len(read_history(self.folder)) <= step:
            assert all(process.is_alive() for process in processes)
            time.sleep(0.005)

    @property
    def curve(self) -> list[dict[str, Any]]:
        return [{key: value for key, value in line.items() if key != TIMING} for line in read_history(self.folder)]

    @property
    def digest(self) -> str:
        folder = checkpoint.newest(self.folder)
        assert folder is not None
        return checkpoint.read_record(folder).digest


def _ended(process: BaseProcess) -> int | None:
    process.join(60)
    return process.exitcode


@pytest.fixture(scope="module")
def calm(inputs: TrainInputs, train_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run("calm-two", inputs, train_root, tmp_path_factory.mktemp("calm"))
    run.train(2)
    return run


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.fault)])
def test_a_killed_worker_costs_nothing(
    calm: Run, inputs: TrainInputs, train_root: Path, tmp_path: Path, victim: int
) -> None:
    """SIGKILL to one of two at some step; the other ends by itself, and two new ones make the undisturbed run of it."""
    run = Run(f"killed-{victim}", inputs, train_root, tmp_path)
    processes = run.start(2)
    run.reach(processes, rng.digest64("killed", victim) % (STEPS - 1))
    assert processes[victim].pid is not None
    os.kill(processes[victim].pid, signal.SIGKILL)
    assert _ended(processes[victim]) == -signal.SIGKILL
    assert _ended(processes[1 - victim]) not in (0, None)
    run.train(2)
    assert run.curve == calm.curve
    assert run.digest == calm.digest


def test_one_worker_goes_on_for_two_and_two_for_one(
    calm: Run, inputs: TrainInputs, train_root: Path, tmp_path: Path
) -> None:
    """The same sequences at every step, three workers for four streams included; losses up to the order of sums."""
    run = Run("changing", inputs, train_root, tmp_path)
    for world, steps in ((2, 2), (1, 4), (3, 5), (2, STEPS)):
        run.train(world, steps=steps)
    assert run.curve[:2] == calm.curve[:2], "as long as there were two, to the last bit"
    for ours, theirs in zip(run.curve, calm.curve, strict=True):
        for key in ("plan", "examples", "tokens", "padding_share"):
            assert ours[key] == theirs[key]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    ends = [checkpoint.list_checkpoints(one.folder)[-1] for one in (run, calm)]
    assert checkpoint.read_record(ends[0]).plan == checkpoint.read_record(ends[1]).plan


def test_a_run_that_is_told_to_stop_ends_with_a_checkpoint(
    inputs: TrainInputs, train_root: Path, tmp_path: Path, train_config: TrainConfig
) -> None:
    """At a step that has none otherwise; going on is as if it had never stopped."""
    runs = [Run(name, inputs, train_root, tmp_path, checkpoints=CheckpointSettings()) for name in ("asked", "unasked")]
    processes = runs[0].start(1, steps=10_000)
    runs[0].reach(processes, 0)
    (runs[0].folder / STOP).touch()
    assert [_ended(process) for process in processes] == [0]
    (folder,) = checkpoint.list_checkpoints(runs[0].folder)
    done = checkpoint.read_record(folder).step
    assert 1 <= done == len(runs[0].curve) < 10_000
    (runs[0].folder / STOP).unlink()
    for run in runs:
        run.train(1, steps=done + 1)
    assert runs[0].curve == runs[1].curve


def test_a_second_sigterm_does_what_it_did_before(tmp_path: Path) -> None:
    heard: list[int] = []
    run, before = tmp_path / "run", signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with stopped_by_signal(run):
            os.kill(os.getpid(), signal.SIGTERM)
            assert Notices(run).look() == Notice.STOP
            assert heard == []
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == [signal.SIGTERM]
        assert Notices(run).look() == Notice.ASK, "the next launch is not stopped by what this one was told"
    finally:
        signal.signal(signal.SIGTERM, before)
