"""docs/dedup.md says what the code does: its examples run, its tables name every step with its settings and reasons."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import yaml
from made_rows import make_row

from omnimill.config import load_config
from omnimill.pipelines.dedup.base import NODE, KeyedStep, Step
from omnimill.pipelines.dedup.config import STEP_TYPES, Dedup
from omnimill.schema import to_table

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "dedup.md").read_text()
STEPS = {get_args(kind.model_fields["step"].annotation)[0]: kind for kind in STEP_TYPES}


def table_rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading, by what stands first in them in backquotes."""
    text = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {re.findall(r"`([^`]+)`", row[0])[0]: row for row in rows}


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_the_configuration_is_one(tmp_path: Path) -> None:
    (tmp_path / "clean.yaml").write_text(block("yaml"))
    config = load_config(tmp_path / "clean.yaml", Dedup)
    assert [step.step for step in config.steps] == [
        "threshold",
        "exact",
        "text_near",
        "image_near",
        "decontaminate",
        "cap",
    ]


def test_the_table_names_every_step_with_its_reasons_and_defaults() -> None:
    rows = table_rows("Steps")
    assert set(rows) == set(STEPS)
    for name, (_, _, settings, reasons) in rows.items():
        kind = STEPS[name]
        assert set(re.findall(r"`([^`]+)`", reasons)) == set(kind.reasons), name
        for setting in re.findall(r"`([^`]+)`", settings):
            key, _, default = setting.partition(": ")
            field = kind.model_fields[key]
            assert field.is_required() == (not default), setting
            assert not default or yaml.safe_load(default) == field.default, setting


def test_the_table_of_memory_is_what_steps_count_with() -> None:
    steps: dict[str, dict[str, Any]] = {
        "exact": {"of": "text"},
        "text_near": {},
        "image_near": {},
        "cap": {"by": "domain", "most": 1},
    }
    rows = table_rows("Memory")
    assert set(rows) == set(steps)
    for name, (_, size, keys) in rows.items():
        step = STEPS[name].model_validate({"step": name, **steps[name]})
        assert isinstance(step, KeyedStep)
        assert step.row_bytes == int(re.findall(r"\d+", size)[-1]), name
        assert step.keys == int(re.findall(r"\d+", keys)[-1]), name


def test_the_step_of_ones_own_works() -> None:
    page: dict[str, Any] = {"__name__": "page"}
    exec(compile(block("python"), "docs/dedup.md", "exec", dont_inherit=True), page)
    page["Longest"].model_rebuild(_types_namespace=page)
    step: Step = page["Longest"](most=5)
    table = to_table([make_row("s", "1", "short"), make_row("s", "2", "longer", "yet"), make_row("s", "3")])
    node = [np.arange(3).astype(field.type.to_pandas_dtype()) for field in NODE]
    features = step.featurizer()(table.select(list(step.reads())))
    rows = pa.table([*node, *features.columns], names=[*NODE.names, *features.column_names])
    found = page["Longest"](most=5).judge(rows).to_pylist()
    assert [(row["row"], row["reason"], row["score"]) for row in found] == [(1, "text_longest", 9.0)]


@pytest.mark.parametrize("name", ["realdata"])
def test_configurations_name_sources_of_their_dags(name: str) -> None:
    dags = PROJECT / "pipelines" / "dags"
    config = load_config(dags / f"{name}_dedup.yaml", Dedup)
    known = {source["name"] for source in yaml.safe_load((dags / f"{name}.yaml").read_text())["sources"]}
    assert config.dataset == name
    named = {source for step in config.steps for source in step.sources or ()} | set(config.prefer.sources)
    assert named <= known
