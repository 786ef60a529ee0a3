"""Checkpoints are whole or absent, know their content, and are read by any number of workers."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from omnimill.errors import ConfigError, IntegrityError, OmnimillError
from omnimill.training.checkpoints import checkpoint, retention
from omnimill.training.checkpoints import writer as checkpoint_writer
from omnimill.training.checkpoints.checkpoint import CheckpointRecord, load_state
from omnimill.training.checkpoints.settings import BestSettings, CheckpointSettings
from omnimill.training.checkpoints.writer import CheckpointWriter
from omnimill.training.runs.inputs import TrainInputs


def record(inputs: TrainInputs, step: int, **facts: Any) -> CheckpointRecord:
    return CheckpointRecord(
        **dict(inputs), run="r", step=step, plan={"streams": {}}, ledger="0", examples={"read": 3}, **facts
    )


def state(value: float) -> dict[str, Any]:
    moments = {"table": {"momentum": torch.full((3, 4), -value)}, "scale": {"momentum": torch.zeros(5)}}
    return {
        "model": {"table": torch.full((3, 4), value), "scale": torch.ones(5)},
        "optimizer": {"state": moments, "param_groups": [{"params": ["table", "scale"], "updates": int(value)}]},
    }


def save(run: Path, inputs: TrainInputs, step: int, **facts: Any) -> Path:
    with CheckpointWriter(run, CheckpointSettings(keep=99)) as writer:
        writer.save(record(inputs, step, **facts), state(step))
    return checkpoint.checkpoints_folder(run) / checkpoint.folder_name(step)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path, inputs: TrainInputs) -> None:
    folder = save(tmp_path, inputs, 50, mlflow_run="abc")
    assert folder == tmp_path / "checkpoints" / "step-00000050"
    read = checkpoint.read_record(folder)
    assert (read.step, read.mlflow_run, read.examples) == (50, "abc", {"read": 3})
    assert read == checkpoint.read_record(folder / "checkpoint.json")
    assert TrainInputs.model_validate(read.model_dump(include=set(TrainInputs.model_fields))) == inputs
    assert set(read.files) == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {
        "checkpoint.json"
    }
    assert torch.equal(checkpoint.load_weights(folder)["table"], state(50)["model"]["table"])
    held = state(0)
    load_state(folder, held)
    assert torch.equal(held["optimizer"]["state"]["table"]["momentum"], torch.full((3, 4), -50.0))
    assert held["optimizer"]["param_groups"] == state(50)["optimizer"]["param_groups"]


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, inputs: TrainInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is the state at the time of the call, and it is not there before it is whole."""
    written = threading.Event()
    publish = checkpoint_writer._publish
    monkeypatch.setattr(checkpoint_writer, "_publish", lambda *given: written.wait(20) and publish(*given))
    learning = state(1)
    with CheckpointWriter(tmp_path, CheckpointSettings()) as writer:
        writer.save(record(inputs, 1), learning)
        learning["model"]["table"].fill_(2.0)
        assert checkpoint.newest(tmp_path) is None
        written.set()
    folder = checkpoint.newest(tmp_path)
    assert folder is not None
    assert torch.equal(checkpoint.load_weights(folder)["table"], torch.ones(3, 4))


def test_what_is_kept(tmp_path: Path, inputs: TrainInputs) -> None:
    settings = CheckpointSettings(keep=2, keep_every=100, keep_best=BestSettings(metric="loss_by_task.read"))
    values = {100: 7.0, 150: 3.0, 200: None, 250: 3.0, 300: 8.0, 350: 9.0, 100_000_050: None}
    (tmp_path / "checkpoints" / ".partial-killed").mkdir(parents=True)
    with CheckpointWriter(tmp_path, settings) as writer:
        for step, value in values.items():
            evaluation = checkpoint.measured({"loss_by_task": {"read": value}})
            writer.save(record(inputs, step, evaluation=evaluation), state(step))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step-{step:08d}" for step in (100, 150, 200, 300, 350, 100_000_050)]
    assert checkpoint.newest(tmp_path) == tmp_path / "checkpoints" / "step-100000050"


@given(
    st.dictionaries(st.integers(1, 40), st.none() | st.integers(0, 5), min_size=1),
    st.integers(1, 3),
    st.none() | st.integers(1, 9),
    st.none() | st.builds(BestSettings, better=st.sampled_from(["lower", "higher"]), count=st.integers(1, 3)),
)
def test_retention_never_lets_go_of_what_it_names(
    values: dict[int, int | None], keep: int, every: int | None, best: BestSettings | None
) -> None:
    """One checkpoint at a time, as a run does it, comes to the same as all at once."""
    settings = CheckpointSettings(keep=keep, keep_every=every, keep_best=best)
    measured: dict[int, dict[str, float | None]] = {
        step: {} if value is None else {"loss": float(value)} for step, value in sorted(values.items())
    }
    held: dict[int, Mapping[str, float | None]] = {}
    for step, evaluation in measured.items():
        held[step] = evaluation
        held = {one: held[one] for one in retention.kept(held, settings)}
    assert set(held) == retention.kept(measured, settings)
    assert max(measured) in held


@pytest.mark.parametrize("broken", ["fsync", "rename", "save"])
def test_a_write_that_breaks_off_leaves_no_checkpoint(
    tmp_path: Path, inputs: TrainInputs, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    first = save(tmp_path, inputs, 1)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr({"fsync": os, "rename": Path, "save": checkpoint_writer}[broken], broken, fail)
        with pytest.raises(OmnimillError, match=r"no checkpoint could be written under .*: .*disk full"):
            save(tmp_path, inputs, 2)
    assert checkpoint.newest(tmp_path) == first
    last = save(tmp_path, inputs, 3)
    assert sorted((tmp_path / "checkpoints").iterdir()) == [first, last]


def test_damage_is_noticed(tmp_path: Path, inputs: TrainInputs) -> None:
    folder = save(tmp_path, inputs, 1)
    (file,) = (folder / "model").iterdir()
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"model/shard-.* is damaged"):
        checkpoint.load_weights(folder)
    with pytest.raises(IntegrityError, match=r"model/shard-.* is damaged"):
        load_state(folder, state(0))
    body = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps({**body, "version": 99}))
    with pytest.raises(IntegrityError, match="version 99; this omnimill reads 4"):
        checkpoint.read_record(folder)
    with pytest.raises(OmnimillError, match="no checkpoint"):
        checkpoint.read_record(tmp_path / "elsewhere")


def test_the_digest_says_what_was_learnt_and_no_more(tmp_path: Path, inputs: TrainInputs) -> None:
    def digest(run: str, inputs: TrainInputs, **facts: Any) -> str:
        return checkpoint.read_record(save(tmp_path / run, inputs, 1, **facts)).digest

    renamed = inputs.model_copy(update={"config": inputs.config.model_copy(update={"name": "x", "steps": 999})})
    seen = {"mlflow_run": "b", "evaluation": {"loss": 1.0}}
    assert digest("a", inputs, mlflow_run="a") == digest("b", renamed, **seen)
    reseeded = inputs.model_copy(update={"config": inputs.config.model_copy(update={"seed": 5})})
    assert digest("a", inputs) != digest("c", reseeded)


def test_runs_are_kept_on_a_file_system() -> None:
    with pytest.raises(ConfigError, match="local or shared folder; found 's3://bucket/x/runs'"):
        checkpoint.run_folder("s3://bucket/x", "r")


def test_a_run_elsewhere_says_where_its_data_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIMILL_RUNS", str(tmp_path / "shared"))
    run = checkpoint.run_folder("s3://bucket/x", "r")
    assert run == tmp_path / "shared" / "r"
    checkpoint.keep_root(run, "s3://bucket/x")
    assert checkpoint.root_of(run / "checkpoints" / "step-00000001") == "s3://bucket/x"
    monkeypatch.delenv("OMNIMILL_RUNS")
    run = checkpoint.run_folder(str(tmp_path), "r")
    checkpoint.keep_root(run, str(tmp_path))
    assert not run.exists()
    assert checkpoint.root_of(run / "checkpoints" / "step-00000001") == str(tmp_path)


class Learning:
    """A model whose tensors cannot be shared out evenly, and its optimizer, alone, replicated or sharded."""

    def __init__(self, *, sharded: bool) -> None:
        self.model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 1))
        if sharded:
            fully_shard(self.model[0])
            fully_shard(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters())

    def state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}

    def fill(self, seed: int) -> None:
        """The same values however they are shared out."""
        torch.manual_seed(seed)
        for _, value in sorted(whole(self.state(), gather=False).items()):
            values = torch.randn(value.shape)
            if isinstance(value, DTensor):
                values = DTensor.from_local(values, value.device_mesh).redistribute(placements=value.placements)
            with torch.no_grad():
                value.copy_(values)

    def load(self, folder: Path, group: dist.ProcessGroup | None) -> dict[str, torch.Tensor]:
        """The whole tensors after loading."""
        held = self.state()
        load_state(folder, held, group)
        set_state_dict(self.model, self.optimizer, model_state_dict=held["model"], optim_state_dict=held["optimizer"])
        return whole(self.state())


def whole(state: dict[str, Any], *, gather: bool = True) -> dict[str, torch.Tensor]:
    found = dict(state["model"])
    for name, moments in state["optimizer"]["state"].items():
        found |= {f"{name}/{key}": value for key, value in moments.items()}
    if not gather:
        return found
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in found.items()}


@contextmanager
def group_of(rank: int, world: int, folder: Path) -> Iterator[None]:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    yield
    dist.destroy_process_group()


def _write_sharded(rank: int, world: int, folder: Path, inputs: TrainInputs, sharded: bool) -> None:
    with group_of(rank, world, folder):
        learning = Learning(sharded=sharded)
        with CheckpointWriter(folder / "run", CheckpointSettings()) as writer:
            for step in (1, 2):
                learning.fill(step)
                writer.save(record(inputs, step) if rank == 0 else None, learning.state())
                # Training changes its tensors and talks to its neighbours while shards are written.
                learning.fill(99)
                dist.all_reduce(torch.ones(3))


def _read_sharded(rank: int, world: int, folder: Path, runs: list[Path]) -> None:
    with group_of(rank, world, folder):
        for sharded in (False, True):
            for run in runs:
                found = checkpoint.newest(run)
                assert found is not None
                loaded = Learning(sharded=sharded).load(found, dist.new_group(backend="gloo"))
                if rank == 0:
                    torch.save(loaded, folder / f"{run.parent.name}-{sharded}.pt")


def together(world: int, function: Callable[..., None], *arguments: Any) -> None:
    """Run a function in so many processes that have their rank as first argument and `world` as second."""
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=function, args=(rank, world, *arguments)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * world


def test_any_number_of_workers_reads_what_others_wrote(tmp_path: Path, inputs: TrainInputs) -> None:
    """Replicated by two and sharded by three, in the background; read replicated and sharded by two, and alone."""
    written = {"replicated": (2, False), "sharded": (3, True)}
    for name, (world, sharded) in written.items():
        (tmp_path / name).mkdir()
        together(world, _write_sharded, tmp_path / name, inputs, sharded)
    runs = [tmp_path / name / "run" for name in written]
    together(2, _read_sharded, tmp_path, runs)

    expected = Learning(sharded=False)
    expected.fill(2)
    tensors = whole(expected.state())
    for run in runs:
        folder = checkpoint.newest(run)
        assert folder is not None
        world = written[run.parent.name][0]
        assert len([file for file in checkpoint.read_record(folder).files if file.startswith("model/")]) == world
        alone = Learning(sharded=False).load(folder, None)
        weights = checkpoint.load_weights(folder)
        for name, value in tensors.items():
            assert torch.equal(alone[name], value), name
            assert name not in weights or torch.equal(weights[name], value), name
        assert set(weights) == set(expected.model.state_dict())
        for sharded in (False, True):
            found = torch.load(tmp_path / f"{run.parent.name}-{sharded}.pt")
            assert all(torch.equal(found[name], value) for name, value in tensors.items())
