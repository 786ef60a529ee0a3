"""Planning without Ray: what counts as done, and what is wrong before anything runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnimill.errors import OmnimillError
from omnimill.infra import storage
from omnimill.infra.dataset import Dataset, InputRef, Unit
from omnimill.infra.watchdog import watchdog
from omnimill.pipelines.plan import plan
from omnimill.pipelines.process import process_unit

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


def test_files_that_reading_turned_up_are_watched_too(write: Write, script: Any, make_dag: Any, tmp_path: Path) -> None:
    texture = tmp_path / "texture"
    texture.write_text("old")

    class Textured(script):  # type: ignore[misc]
        def inputs(self, unit: Unit) -> list[InputRef]:
            extra = InputRef(uri=str(texture), digest=storage.digest_file(str(texture)), bytes=3)
            return [*super().inputs(unit), extra]

    dag, dataset = make_dag(Textured(path=write({"one": "a good x\n"}))), Dataset(str(tmp_path), "made")
    (before,) = plan(dag, dataset)
    process_unit(before.pipeline.source, (), before.todo[0], dataset)
    assert not plan(dag, dataset)[0].todo
    texture.write_text("new")
    os.utime(texture, (1, 1))
    assert len(plan(dag, dataset)[0].todo) == 1


def test_verifying_takes_nothing_over_by_its_marks(
    write: Write, script: Any, make_dag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store whose marks do not show a change: the content does, when it is asked for."""
    monkeypatch.setattr(storage, "_local_mark", lambda path: {"bytes": Path(path).stat().st_size, "mark": "same"})
    folder = write({"one": "a good x\n", "two": "b good y\n"})
    dag, dataset = make_dag(script(path=folder)), Dataset(str(tmp_path), "made")
    for unit in plan(dag, dataset)[0].todo:
        process_unit(dag.sources[0].source, (), unit, dataset)
    Path(folder, "two.txt").write_text("b good z\n")
    assert plan(dag, dataset)[0].todo == ()
    found = [process_unit(dag.sources[0].source, (), unit, dataset) for unit in plan(dag, dataset, verify=True)[0].todo]
    assert len(dataset.commits()) == 3
    assert [text for commit in found for ref in commit.shards for text in texts(dataset, ref)] == ["x", "z"]


def texts(dataset: Dataset, ref: Any) -> list[str]:
    return [row["text"][0]["text"] for row in dataset.read(ref).to_pylist()]
