"""Every DAG of the pre-training corpus runs on a small copy of its source's real layout, and its accounts are right."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from layouts import Layout

from omnimill.config import load_config
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.plan import plan
from omnimill.pipelines.process import process_unit

PROJECT = Path(__file__).parents[2]
DAGS = {path.stem: path for path in sorted((PROJECT / "pipelines" / "dags" / "pretrain").glob("*.yaml"))}


def layouts() -> dict[str, Layout]:
    """The layouts of all modules beside ``tests/layouts/__init__.py``."""
    modules = (path.stem for path in sorted((PROJECT / "tests" / "layouts").glob("[a-z]*.py")))
    found = [import_module(f"layouts.{name}").LAYOUTS for name in modules]
    assert len({name for part in found for name in part}) == sum(map(len, found)), "a DAG has two layouts"
    return {name: layout for part in found for name, layout in part.items()}


LAYOUTS = layouts()


def test_every_dag_has_a_layout() -> None:
    assert set(DAGS) == set(LAYOUTS)


@pytest.mark.parametrize("name", DAGS)
def test_a_dag_runs_on_its_layout(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = LAYOUTS[name](tmp_path / "data")
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    for variable, value in expected.environment.items():
        monkeypatch.setenv(variable, value)
    dag = load_config(DAGS[name], Dag)
    assert dag.dataset == name
    dataset = Dataset(str(tmp_path / "root"), name)
    commits = [
        process_unit(item.pipeline.source, item.pipeline.operators, unit, dataset)
        for item in plan(dag, dataset)
        for unit in item.todo
    ]
    counts = dataset.publish_manifest("examples", commits)[1].counts
    assert counts.records_in == expected.records
    assert counts.quarantined == expected.quarantined
    assert counts.records_dropped == expected.dropped
    assert counts.examples_dropped == expected.examples_dropped
    assert counts.examples_written == expected.examples
