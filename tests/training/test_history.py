"""The history of a run is one curve whatever happened, and has one writer."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from omnimill.errors import OmnimillError
from omnimill.training.runs import history


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
