"""Stages one after the other: each starts from the end of the one before, with its optimizer where that is wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra import lineage
from omnimill.infra.logged_models import DIGEST_TAG
from omnimill.training.checkpoints.checkpoint import GROUPS, newest, read_record
from omnimill.training.engine.optim import AdamWConfig
from omnimill.training.engine.schedules import learning_rate
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.history import TIMING, read_history
from omnimill.training.runs.inputs import resolve
from omnimill.training.runs.loop import Worker, train_worker
from omnimill.training.runs.stage_runs import train_stages
from omnimill.training.runs.stages import Stage


@pytest.fixture(scope="module")
def first(train_config: TrainConfig, train_root: Path) -> Path:
    """The folder of a run that has done two updates."""
    run_for(train_config.model_copy(update={"name": "first", "steps": 2, "streams": 1}), train_root)
    return train_root / "runs" / "first"


def run_for(config: TrainConfig, root: Path) -> list[dict[str, Any]]:
    train_worker(resolve(config, str(root)), str(root), Worker())
    lines = read_history(root / "runs" / config.name)
    return [{key: value for key, value in line.items() if key != TIMING} for line in lines]


def later(config: TrainConfig, first: Path, name: str, steps: int, **changes: Any) -> TrainConfig:
    settings = {"name": name, "steps": steps, "streams": 1, "init_from": str(first), "init_optimizer": True}
    return config.model_copy(update={**settings, **changes})


def test_the_optimizer_goes_on_as_if_it_were_one_run(train_config: TrainConfig, first: Path, train_root: Path) -> None:
    whole = run_for(later(train_config, first, "whole-second", 2), train_root)
    assert [line["learning_rate"] for line in whole] == [learning_rate(train_config.optimizer, k) for k in (2, 3)]
    folder = newest(train_root / "runs" / "whole-second")
    assert folder is not None
    assert read_record(folder).updates_before == 2
    assert [group["updates"] for group in json.loads((folder / GROUPS).read_bytes())] == [4]
    # Stopped and gone on with, also where what it started from is gone.
    run_for(later(train_config, first, "parts-second", 1), train_root)
    assert run_for(later(train_config, first / "gone", "parts-second", 2), train_root) == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": AdamWConfig(name="adamw")}, r"optimizer.name: was 'adafactor', is 'adamw'"),
        ({"train_encoders_from": 5}, r"train_encoders: was False, is True"),
        ({"init_from": None}, r"comes from a checkpoint; found init_from: None"),
    ],
)
def test_another_optimizer_cannot_go_on(
    train_config: TrainConfig, first: Path, train_root: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_for(later(train_config, first, "other", 1, **changes), train_root)


@pytest.fixture
def stages(train_config: TrainConfig) -> list[Stage]:
    small = train_config.model_copy(update={"streams": 1, "steps": 2})
    one = Stage("one", small.model_copy(update={"name": "big-one"}))
    return [one, Stage("two", small.model_copy(update={"name": "big-two", "init_optimizer": True}), after=one.config)]


def test_a_stage_waits_for_the_one_before(stages: list[Stage], train_root: Path) -> None:
    with pytest.raises(OmnimillError, match="'two' starts from the end of run 'big-one', which has done 0 of 2 steps"):
        train_stages(stages, str(train_root / "empty"), only="two")


@pytest.mark.ray
@pytest.mark.fault
def test_stages_follow_one_another_and_are_gone_on_with(stages: list[Stage], train_root: Path, ray_local: None) -> None:
    root = str(train_root)
    first, second = train_stages(stages, root)
    record = read_record(second.checkpoint)
    assert (record.config.init_from, record.updates_before) == (first.checkpoint, 2)
    parent, *children = lineage.runs(root, "train stages") + lineage.runs(root, "train")[-2:]
    assert parent.info.run_name == "big"
    assert [(run.info.run_name, run.data.tags["mlflow.parentRunId"]) for run in children] == [
        ("big-one", parent.info.run_id),
        ("big-two", parent.info.run_id),
    ]
    experiment = [parent.info.experiment_id]
    asked = f"tags.`{DIGEST_TAG}` = '{second.checkpoint_digest}'"
    (model,) = lineage.client(root).search_logged_models(experiment, asked)
    assert model.params["stage"] == "two"
    again = train_stages(stages, root)
    assert len(lineage.runs(root, "train stages")) == 1
    assert [(result.started_at, result.checkpoint_digest) for result in again] == [
        (2, first.checkpoint_digest),
        (2, second.checkpoint_digest),
    ]
    # Begun anew with all that came after it.
    train_stages(stages, root, only="one", restart=True)
    assert newest(train_root / "runs" / "big-two") is None
    assert newest(train_root / "runs" / "big-two.1") is not None
