"""The report's card of a mixture: what a run drew, as its checkpoint counted, and examples as they are rendered."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities import Run, RunData, RunInfo, RunTag

from omnimill.mixtures.config import Mixture
from omnimill.training.checkpoints import checkpoint
from omnimill.training.lineage.report_mixtures import mixture_card
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.inputs import resolve
from omnimill.training.runs.loop import Worker, train_worker


def told(folder: Path, mixture: Mixture) -> Run:
    """An MLflow run that says where it wrote."""
    info = RunInfo("id", "0", "nobody", "FINISHED", 0, 1, "active", run_name="drawn")
    tags = {"omnimill.run_folder": str(folder), "omnimill.mixture": mixture.content_digest()}
    return Run(info, RunData(tags=[RunTag(name, value) for name, value in tags.items()]))


@pytest.fixture(scope="module")
def run(train_config: TrainConfig, train_root: Path, mixture: Mixture) -> Run:
    config = train_config.model_copy(update={"name": "drawn", "steps": 4})
    train_worker(resolve(config, str(train_root)), str(train_root), Worker())
    return told(checkpoint.run_folder(str(train_root), "drawn"), mixture)


def test_the_card_is_what_the_checkpoint_counted(run: Run, train_root: Path, mixture: Mixture) -> None:
    card = mixture_card(str(train_root), run)
    assert card is not None
    newest = checkpoint.newest(Path(run.data.tags["omnimill.run_folder"]))
    assert newest is not None
    record = checkpoint.read_record(newest)
    assert [one.name for one in card.tasks] == [task.name for task in mixture.tasks]
    assert [one.asked for one in card.tasks] == pytest.approx(mixture.rates)
    assert sum(one.drawn for one in card.tasks) == pytest.approx(1)
    assert sum(one.token_share for one in card.tasks) == pytest.approx(1)
    whole = sum(record.examples.values())
    for one in card.tasks:
        assert one.packed == pytest.approx(record.examples.get(one.name, 0) / whole)
        assert one.epochs == pytest.approx(record.examples.get(one.name, 0) / one.rows)
    assert sum(one.examples for one in card.sources) == pytest.approx(whole, abs=2)
    assert "all 4 steps" in card.basis
    assert "changed" not in card.basis
    assert card.missing == []
    for task in mixture.tasks:
        assert f"<h4>{task.name}</h4>" in card.rendered


def test_what_cannot_be_read_any_more_is_said(run: Run, train_root: Path, tmp_path: Path, mixture: Mixture) -> None:
    folder = tmp_path / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text('{"version": 0}')
    card = mixture_card(str(train_root), told(tmp_path, mixture))
    assert card is not None
    assert card.digest == mixture.content_digest()
    assert "checkpoint version 0" in card.missing[0]
    assert mixture_card(str(train_root), told(tmp_path / "gone", mixture)) is None
