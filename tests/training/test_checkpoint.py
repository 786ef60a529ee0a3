"""Checkpoints are whole or absent, know their content, and the history is one curve whatever happened."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from omnimill.errors import ConfigError, IntegrityError, OmnimillError
from omnimill.training import checkpoint, history
from omnimill.training.checkpoint import CheckpointRecord
from omnimill.training.inputs import TrainInputs


def record(inputs: TrainInputs, step: int, **facts: Any) -> CheckpointRecord:
    return CheckpointRecord(
        **dict(inputs), run="r", step=step, plan={"streams": {}}, ledger="0", examples={"read": 3}, **facts
    )


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"table": torch.full((3, 4), value), "scale": torch.ones(5)}


def save(run: Path, inputs: TrainInputs, step: int, **facts: Any) -> Path:
    return checkpoint.save(run, record(inputs, step, **facts), weights(step), {"state": {}, "param_groups": []})


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path, inputs: TrainInputs) -> None:
    folder = save(tmp_path, inputs, 50, mlflow_run="abc")
    assert folder == tmp_path / "checkpoints" / "step-00000050"
    read = checkpoint.read_record(folder)
    assert (read.step, read.mlflow_run, read.examples) == (50, "abc", {"read": 3})
    assert read == checkpoint.read_record(folder / "checkpoint.json")
    assert TrainInputs.model_validate(read.model_dump(include=set(TrainInputs.model_fields))) == inputs
    assert torch.equal(checkpoint.load_weights(folder)["table"], weights(50)["table"])
    assert checkpoint.load_optimizer(folder) == {"state": {}, "param_groups": []}


def test_the_newest_are_kept(tmp_path: Path, inputs: TrainInputs) -> None:
    for step in (9, 10, 100_000_000, 11):
        save(tmp_path, inputs, step)
    assert checkpoint.newest(tmp_path) == tmp_path / "checkpoints" / "step-100000000"
    checkpoint.prune(tmp_path, keep=2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000011", "step-100000000"]


@pytest.mark.parametrize("broken", ["fsync", "rename", "torch.save"])
def test_a_write_that_breaks_off_leaves_no_checkpoint(
    tmp_path: Path, inputs: TrainInputs, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    first = save(tmp_path, inputs, 1)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        owner = {"fsync": os, "rename": Path, "torch.save": torch}[broken]
        patch.setattr(owner, broken.rpartition(".")[2], fail)
        with pytest.raises(OSError, match="disk full"):
            save(tmp_path, inputs, 2)
    assert checkpoint.newest(tmp_path) == first
    checkpoint.prune(tmp_path, keep=3)
    assert list((tmp_path / "checkpoints").iterdir()) == [first]


def test_damage_is_noticed(tmp_path: Path, inputs: TrainInputs) -> None:
    folder = save(tmp_path, inputs, 1)
    data = bytearray((folder / "weights.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "weights.pt").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"weights\.pt is damaged"):
        checkpoint.load_weights(folder)
    body = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps({**body, "version": 99}))
    with pytest.raises(IntegrityError, match="version 99; this omnimill reads 3"):
        checkpoint.read_record(folder)
    with pytest.raises(OmnimillError, match="no checkpoint"):
        checkpoint.read_record(tmp_path / "elsewhere")


def test_the_digest_says_what_was_learnt_and_no_more(tmp_path: Path, inputs: TrainInputs) -> None:
    def digest(run: str, inputs: TrainInputs, **facts: Any) -> str:
        return checkpoint.read_record(save(tmp_path / run, inputs, 1, **facts)).digest

    renamed = inputs.model_copy(update={"config": inputs.config.model_copy(update={"name": "x", "steps": 999})})
    assert digest("a", inputs, mlflow_run="a") == digest("b", renamed, mlflow_run="b")
    reseeded = inputs.model_copy(update={"config": inputs.config.model_copy(update={"seed": 5})})
    assert digest("a", inputs) != digest("c", reseeded)


def test_runs_are_kept_on_a_file_system() -> None:
    with pytest.raises(ConfigError, match="local or shared folder; found --root 's3://bucket/x'"):
        checkpoint.run_folder("s3://bucket/x", "r")


def line(step: int, loss: float = 1.0) -> dict[str, Any]:
    return {"step": step, "loss": loss}


def test_history_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    with history.HistoryWriter(tmp_path, 0) as writer:
        for step in range(5):
            writer.append(line(step))
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # what a killed writer leaves
    assert [one["step"] for one in history.read_history(tmp_path)] == [0, 1, 2, 3, 4]
    with history.HistoryWriter(tmp_path, 3) as writer:
        writer.append(line(3, 2.0))
    assert history.read_history(tmp_path) == [line(0), line(1), line(2), line(3, 2.0)]


def test_a_history_that_misses_steps_is_refused(tmp_path: Path) -> None:
    with history.HistoryWriter(tmp_path, 0) as writer:
        writer.append(line(0))
    with pytest.raises(OmnimillError, match="line 2 should be that of step 1"):
        history.HistoryWriter(tmp_path, 2)


def test_a_follower_sees_every_step_once(tmp_path: Path) -> None:
    reader = history.HistoryReader(tmp_path)
    assert reader.read() == []
    with history.HistoryWriter(tmp_path, 0) as writer:
        for step in range(4):
            writer.append(line(step))
        assert [one["step"] for one in reader.read()] == [0, 1, 2, 3]
    # A longer line for the same step: byte offsets of the old file mean nothing in the new one.
    with history.HistoryWriter(tmp_path, 2) as writer:
        writer.append({**line(2), "note": "written again"})
        assert reader.read() == []
        for step in (3, 4):
            writer.append(line(step))
        assert [one["step"] for one in reader.read()] == [4]
    reader.close()


def _hold(run: Path, held: Any) -> None:
    with history.run_lock(run):
        held.set()
        time.sleep(60)


def test_a_run_has_one_writer_until_its_process_is_gone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()
    other = context.Process(target=_hold, args=(tmp_path, held))
    other.start()
    assert held.wait(20)
    with pytest.raises(OmnimillError, match="is being trained by another process"), history.run_lock(tmp_path, 0.2):
        pass
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    with history.run_lock(tmp_path, 20):
        pass
    other.join()
