"""The same commands record the same in every kind of tracking store; artifacts on disk, behind a server and on S3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from faults.s3 import s3_server
from servers import mlflow_server, postgres

from omnimill.infra import lineage
from omnimill.infra.dataset import Commit, Counts, Dataset
from omnimill.infra.lineage import Reference, about, licence_tags
from omnimill.infra.logged_models import DIGEST_TAG, LoggedModels, find_model
from omnimill.infra.registered_models import MODEL_TAG, registered_url

STORES = ("file", "server", "database", "team")


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Root of a fresh store: SQLite under the root, a server over SQLite, PostgreSQL and S3 without and with one."""
    folder = tmp_path_factory.mktemp("store")
    with ExitStack() as stack:
        setting = stack.enter_context(pytest.MonkeyPatch.context())
        setting.delenv("MLFLOW_TRACKING_URI", raising=False)
        root = str(folder)
        if request.param == "server":
            uri = stack.enter_context(mlflow_server(f"sqlite:///{folder}/server.db", str(folder / "artifacts")))
            setting.setenv("MLFLOW_TRACKING_URI", uri)
        elif request.param in ("database", "team"):
            stack.enter_context(s3_server())
            root, uri = "s3://bucket/root", stack.enter_context(postgres())
            if request.param == "team":
                uri = stack.enter_context(mlflow_server(uri, "s3://bucket/artifacts"))
            setting.setenv("MLFLOW_TRACKING_URI", uri)
        yield root


def story(root: str) -> dict[str, Any]:
    """An ingestion of one source, and a training with a checkpoint; gives what the store then says of them."""
    dataset = Dataset(root, "pictures")
    commit = Commit(unit="u", source="photos", recipe="r", inputs=(), counts=Counts(records_in=1, kept=1))
    with lineage.command_run(root, "ingest", {"sources": ["photos"]}, "ingest pictures") as outer:
        with lineage.command_run(root, "ingest source", {}, "photos") as inner:
            inner.input("photos", "f" * 64, "s3://elsewhere/photos")
        digest, manifest = dataset.publish_manifest("examples", [commit])
        outer.output("pictures", digest, dataset.url, about(manifest, {"photos": "CC0"}))
        outer.tags(licence_tags({"photos": "CC0"}))
        outer.table(["reason", "count"], [["too_small", 2]], "drop_reasons.json")
    weights = Reference("run/step-5", "c" * 64, "s3://bucket/runs/run/step-5")
    with lineage.command_run(root, "train", {}, "run") as train:
        train.input("pictures", digest, dataset.url)
        train.tags(licence_tags(lineage.licences(train, digest)))
        for step in range(3):
            train.metrics({"loss": 1.0 / (step + 1)}, step)
        LoggedModels(train).log(weights, 5, {"mixture": "m"}, [Reference("pictures", digest, "")], {"evaluation": 0.5})
        train.output(weights.name, weights.digest, weights.url)
        for _ in range(2):  # a message may come twice
            train.put("register", name="made", aliases=["best"], digest=weights.digest, url=weights.url, title="t")
    with pytest.raises(ZeroDivisionError), lineage.command_run(root, "evaluate", {}) as failed:
        failed.metrics({"score": 1.0}, model=find_model(failed, weights.digest, weights.name))
        _ = 1 / 0
    return told(root, train.client)


def told(root: str, client: Any) -> dict[str, Any]:
    found = lineage.runs(root)
    names = {run.info.run_id: run.info.run_name for run in found}
    train = next(run for run in found if run.info.run_name == "run")
    (model,) = client.search_logged_models([train.info.experiment_id])
    version = client.get_model_version("made", "1")
    ingest = found[0].info.run_id
    files = {name: Path(client.download_artifacts(ingest, name)) for name in ("config.json", "drop_reasons.json")}
    return {
        "runs": [
            {
                "name": run.info.run_name,
                "status": run.info.status,
                "parent": names.get(run.data.tags.get("mlflow.parentRunId", "")),
                "licence": run.data.tags.get("omnimill.licence.photos"),
                "code": run.data.tags["omnimill.code"],
                "metrics": run.data.metrics,
                "read": [vars(one) for one in lineage.references(run, "input")],
                "wrote": [one.digest for one in lineage.references(run, "output")],
            }
            for run in found
        ],
        "history": [(one.step, one.value) for one in client.get_metric_history(train.info.run_id, "loss")],
        "model": [model.name, str(model.status), model.params, model.tags[DIGEST_TAG]],
        "model metrics": sorted((one.key, one.value, one.dataset_name) for one in model.metrics),
        "versions": len(client.search_model_versions("name = 'made'")),
        "version": [version.aliases, version.source, version.tags[MODEL_TAG] == model.model_id],
        "champion": registered_url(client, "models:/made@best"),
        "artifacts": {name: json.loads(path.read_text()) for name, path in files.items()},
        "environment": "packages"
        in json.loads(Path(client.download_artifacts(ingest, "environment.json")).read_text()),
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a SQLite file says; the others are held to it."""
    with pytest.MonkeyPatch.context() as setting:
        setting.delenv("MLFLOW_TRACKING_URI", raising=False)
        return story(str(tmp_path_factory.mktemp("plain")))


@pytest.mark.fault
def test_every_store_says_the_same(store: str, plain: dict[str, Any]) -> None:
    found = story(store)
    urls = [one.pop("url") for told in (found, plain) for run in told["runs"] for one in run["read"] if "url" in one]
    assert any(url == f"{store}/pictures" for url in urls)
    assert found == plain


def test_a_file_says_what_was_recorded(plain: dict[str, Any]) -> None:
    assert [(run["name"], run["status"], run["parent"]) for run in plain["runs"]] == [
        ("ingest pictures", "FINISHED", None),
        ("photos", "FINISHED", "ingest pictures"),
        ("run", "FINISHED", None),
        ("evaluate", "FAILED", None),
    ]
    assert plain["runs"][2]["licence"] == "CC0", "handed on from the ingestion"
    assert plain["history"] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert plain["model"] == ["run-step-5", "READY", {"mixture": "m"}, "c" * 64]
    assert plain["model metrics"] == [
        ("evaluation", 0.5, None),
        ("score", 1.0, None),
        ("updates/pictures", 5, "pictures"),
    ]
    assert plain["versions"] == 1
    assert plain["version"] == [["best"], "s3://bucket/runs/run/step-5", True]
    assert plain["artifacts"]["drop_reasons.json"] == {"columns": ["reason", "count"], "data": [["too_small", 2]]}
