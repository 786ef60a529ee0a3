"""Planning without Ray: what counts as done, and what is wrong before anything runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimill.errors import OmnimillError
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.plan import plan
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.watchdog import watchdog

Write = Callable[[dict[str, str]], str]


def test_plan_counts_units_and_bytes_done_and_to_do(write: Write, script: Any, make_dag: Any, tmp_path: Path) -> None:
    folder = write({"one": "a good x\n", "two": "b good yy\n"})
    source, dataset = script(path=folder), Dataset(str(tmp_path), "made")
    dag = make_dag(source)
    (before,) = plan(dag, dataset)
    assert (len(before.units), len(before.todo), before.input_bytes, before.todo_bytes) == (2, 2, 19, 19)
    process_unit(source, (), before.todo[0], dataset)
    (after,) = plan(dag, dataset)
    assert after.todo == before.todo[1:]
    assert (len(after.taken), after.input_bytes, after.todo_bytes) == (1, 19, 10)
    Path(folder, "one.txt").write_text("a good y\n")
    assert len(plan(dag, dataset)[0].todo) == 2


def test_units_must_differ(write: Write, script: Any, make_dag: Any, tmp_path: Path) -> None:
    class Twice(script):  # type: ignore[misc]
        def units(self) -> Any:
            yield from super().units()
            yield from super().units()

    with pytest.raises(OmnimillError, match="more than once"):
        plan(make_dag(Twice(path=write({"one": "a good x\n"}))), Dataset(str(tmp_path), "made"))


def test_watchdog_names_what_waits(capfd: pytest.CaptureFixture[str]) -> None:
    with watchdog("ingest photos", lambda: ["a.tar", "b.tar"], seconds=0.05) as moved:
        moved()
        time.sleep(0.2)
    assert "ingest photos: nothing finished for" in capfd.readouterr().err
    with watchdog("ingest photos", lambda: ["a.tar"], seconds=0.2) as moved:
        for _ in range(6):
            time.sleep(0.05)
            moved()
    assert capfd.readouterr().err == ""
