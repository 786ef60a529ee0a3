"""Two workers on Ray Train: the same sequences and losses as one, told to MLflow once, and lost workers come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omnimill.cli.main import main
from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra import lineage, logged_models
from omnimill.infra.registered_models import MODEL_TAG, registered_url
from omnimill.mixtures.loading import load_mixture
from omnimill.training.checkpoints import checkpoint
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.history import TIMING, read_history
from omnimill.training.runs.inputs import resolve
from omnimill.training.runs.loop import Worker, train_worker
from omnimill.training.runs.run import train

pytestmark = pytest.mark.ray


def test_one_and_two_workers_train_on_the_same_sequences(ray_run: Any, train_root: Path) -> None:
    alone = ray_run.config.model_copy(update={"name": "alone", "workers": 1})
    train_worker(resolve(alone, str(train_root)), str(train_root), Worker())
    one, two = read_history(train_root / "runs" / "alone"), read_history(ray_run.folder)
    assert [line["plan"] for line in one] == [line["plan"] for line in two]
    assert len({line["plan"] for line in one}) == 12
    for ours, theirs in zip(one, two, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        for key in ("examples", "tokens", "padding_share"):
            assert ours[key] == theirs[key]
        assert ("evaluation" in ours, "evaluation" in theirs) == (ours["step"] in (7, 11),) * 2
        if "evaluation" in ours:
            assert ours["evaluation"]["loss_by_task"] == pytest.approx(theirs["evaluation"]["loss_by_task"], rel=1e-4)
            assert ours["evaluation"]["targets"] == theirs["evaluation"]["targets"]
    plans = [
        checkpoint.read_record(train_root / "runs" / name / "checkpoints" / "step-00000012").plan
        for name in ("alone", "calm")
    ]
    assert plans[0] == plans[1]


def test_what_was_there_is_set_aside(ray_run: Any, train_root: Path) -> None:
    assert ray_run.result.started_at == 0
    (folder,) = checkpoint.list_checkpoints(ray_run.replaced)
    record = checkpoint.read_record(folder)
    assert record.step == 2
    run = lineage.client(str(train_root)).get_run(record.mlflow_run)
    (known,) = lineage.references(run, "output")
    assert (known.name, known.digest, known.url) == ("calm.1/step-00000002", record.digest, str(folder))
    assert len(read_history(ray_run.replaced)) == 2
    assert not (ray_run.folder / "ray").exists()


def test_mlflow_knows_the_run(ray_run: Any, train_root: Path) -> None:
    client = lineage.client(str(train_root))
    run = client.get_run(ray_run.result.mlflow_run)
    assert (run.info.run_name, run.info.status) == ("calm", "FINISHED")
    lines = read_history(ray_run.folder)

    def history(metric: str) -> dict[int, float]:
        points = client.get_metric_history(run.info.run_id, metric)
        assert len({point.step for point in points}) == len(points)
        return {point.step: point.value for point in points}

    assert history("loss") == {line["step"]: line["loss"] for line in lines}
    assert history("loss/image") == {
        line["step"]: line["loss_by_modality"]["image"] for line in lines if "image" in line["loss_by_modality"]
    }
    assert history("loss/task/read") == {
        line["step"]: line["loss_by_task"]["read"] for line in lines if "read" in line["loss_by_task"]
    }
    assert history("tokens_per_second") == {line["step"]: line[TIMING]["tokens_per_second"] for line in lines}
    for metric in ("padding_share/encoder", "padding_share/decoder", "grad_norm", "data_wait_share"):
        assert len(history(metric)) == len(lines)
    mixture = load_mixture(ray_run.config.mixture)
    for task, rate in zip(mixture.tasks, mixture.rates, strict=True):
        assert run.data.metrics[f"planned_rate/{task.name}"] == rate
    record = checkpoint.read_record(ray_run.result.checkpoint)
    seen = sum(record.examples.values())
    for task, count in record.examples.items():
        assert history(f"realised_rate/{task}")[11] == pytest.approx(count / seen)
    (read,) = lineage.references(run, "input")
    assert (read.name, read.digest) == ("tokens", record.versions.datasets[0].manifest)
    wrote = {reference.name: reference for reference in lineage.references(run, "output")}
    assert set(wrote) == {f"calm/step-{step:08d}" for step in (4, 8, 12)}
    assert wrote["calm/step-00000012"].digest == record.digest == ray_run.result.checkpoint_digest
    assert wrote["calm/step-00000012"].url == ray_run.result.checkpoint


def test_the_last_checkpoint_is_registered_and_another_can_take_its_alias(
    ray_run: Any, train_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = lineage.client(str(train_root))
    assert registered_url(client, "models:/calm@newest") == ray_run.result.checkpoint
    earlier = ray_run.folder / "checkpoints" / "step-00000008"
    chosen = ["--name", "calm", "--alias", "newest", "--root", str(train_root), "--json"]
    for _ in range(2):
        assert main(["checkpoint", "register", str(earlier), *chosen]) == 0
        assert json.loads(capsys.readouterr().out)["version"] == "2"
    assert registered_url(client, "models:/calm@newest") == registered_url(client, "models:/calm/2") == str(earlier)
    version = client.get_model_version("calm", "2")
    model = client.get_logged_model(version.tags[MODEL_TAG])
    assert (model.name, version.run_id) == ("calm-step-00000008", ray_run.result.mlflow_run)
    assert main(["checkpoint", "register", str(earlier), "--name", "calm", "--alias", "latest"]) == 2
    with pytest.raises(ConfigError, match="nobody"):
        registered_url(client, "models:/calm@nobody")


def test_checkpoints_are_models_with_their_data_and_evaluations(ray_run: Any, train_root: Path) -> None:
    client = lineage.client(str(train_root))
    run = client.get_run(ray_run.result.mlflow_run)
    (tokens,) = lineage.references(run, "input")
    asked = {"dataset_name": tokens.name, "dataset_digest": tokens.digest[: lineage.DIGEST_CHARACTERS]}
    of_this_run = f"source_run_id = '{run.info.run_id}' AND metrics.`updates/tokens` > 0"
    found = client.search_logged_models([run.info.experiment_id], of_this_run, datasets=[asked])
    models = {model.name: model for model in found}
    assert set(models) == {f"calm-step-{step:08d}" for step in (4, 8, 12)}
    assert {output.model_id for output in run.outputs.model_outputs} == {model.model_id for model in found}
    last = client.get_logged_model(models["calm-step-00000012"].model_id)
    assert last.tags[logged_models.DIGEST_TAG] == ray_run.result.checkpoint_digest
    assert last.tags[logged_models.URL_TAG] == ray_run.result.checkpoint
    assert last.params["backbone"] == "tiny"
    evaluations = {
        line["step"] + 1: line["evaluation"] for line in read_history(ray_run.folder) if "evaluation" in line
    }
    assert set(evaluations) == {8, 12}
    for step, one in evaluations.items():
        model = client.get_logged_model(models[f"calm-step-{step:08d}"].model_id)
        metrics = {metric.key: metric.value for metric in model.metrics}
        assert metrics["evaluation/loss"] == one["loss"]
        assert metrics["evaluation/loss/task/draw"] == one["loss_by_task"]["draw"]
        assert metrics["evaluation/loss/audio"] == one["loss_by_modality"]["audio"]
    points = client.get_metric_history(run.info.run_id, "evaluation/loss")
    assert {point.step: point.value for point in points} == {step: one["loss"] for step, one in evaluations.items()}


def test_too_few_cores_are_refused(train_config: TrainConfig, train_root: Path, ray_local: None) -> None:
    config = train_config.model_copy(update={"name": "cores", "workers": 4})
    with pytest.raises(ConfigError, match="4 workers of 1 threads need 4 cores; Ray has 2"):
        train(config, str(train_root))


@pytest.mark.fault
def test_a_worker_that_fails_is_named_with_its_reason(
    train_config: TrainConfig, train_root: Path, ray_local: None
) -> None:
    config = train_config.model_copy(update={"name": "broken", "steps": 2, "max_failures": 0})
    run = checkpoint.run_folder(str(train_root), "broken")
    (run / "history.jsonl").mkdir(parents=True)
    with pytest.raises(OmnimillError, match=r"run broken: worker 0 failed: IsADirectoryError: .*history\.jsonl"):
        train(config, str(train_root))
    assert lineage.runs(str(train_root), "train")[-1].info.status == "FAILED"
