"""A tracking server that goes away in the middle of a command stops nothing, and is told everything once it is back."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from servers import free_port
from werkzeug.serving import BaseWSGIServer, make_server

from omnimill.errors import OmnimillError
from omnimill.infra import lineage, outbox
from omnimill.infra.lineage import Reference
from omnimill.infra.logged_models import DELETED_TAG, LoggedModels
from omnimill.infra.registered_models import registered_url

SETTINGS = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


class Server:
    """MLflow's own server on a thread, over a database file; can go away and come back."""

    def __init__(self, database: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._store = f"sqlite:///{database}"
        self._artifacts = database.parent.as_uri()
        self._server: BaseWSGIServer | None = None

    def come(self) -> None:
        from mlflow.server import app
        from mlflow.server.handlers import initialize_backend_stores

        initialize_backend_stores(self._store, self._store, self._artifacts)
        # A server that starts tells its own process, which is the client's here, to go to its database.
        os.environ |= dict.fromkeys(SETTINGS, self.url)
        self._server = make_server("127.0.0.1", self.port, app, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def go(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def server(tmp_path: Path, empty_tracking_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    database = tmp_path / "server" / "mlflow.db"
    database.write_bytes(empty_tracking_store.read_bytes())
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    monkeypatch.setenv("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "true")
    found = Server(database)
    for name in SETTINGS:
        monkeypatch.setenv(name, found.url)
    found.come()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr(outbox, "PATIENCE", 0.0)
    yield found
    found.go()


def tell(told: lineage.CommandRun, models: LoggedModels, first: int) -> None:
    """What a training tells of ten steps and a checkpoint."""
    for step in range(first, first + 10):
        told.metrics({"loss": 1 / (step + 1)}, step)
    weights = Reference(f"run/step-{first}", f"{first:064}", f"/runs/run/checkpoints/step-{first}")
    models.log(weights, first, {"mixture": "m"}, [Reference("tokens", "t" * 64, "")], {"evaluation/loss": 0.5})
    told.output(weights.name, weights.digest, weights.url)
    models.present([weights.name])


def check(told: lineage.CommandRun, client: MlflowClient) -> None:
    """All of both halves is there, once."""
    run = client.get_run(told.id)
    assert run.info.status == "FINISHED"
    assert [(one.step, one.value) for one in client.get_metric_history(told.id, "loss")] == [
        (step, pytest.approx(1 / (step + 1))) for step in range(20)
    ]
    assert [one.name for one in lineage.references(run, "input")] == ["tokens"]
    assert [one.name for one in lineage.references(run, "output")] == ["run/step-0", "run/step-10"]
    # A process has one server, which keeps the first database that it was given.
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{told.id}'")
    assert [(model.name, str(model.status), DELETED_TAG in model.tags) for model in reversed(models)] == [
        ("run-step-0", "READY", True),
        ("run-step-10", "READY", False),
    ]
    assert registered_url(client, "models:/made@champion") == "/runs/run/checkpoints/step-10"
    assert {one.path for one in client.list_artifacts(told.id)} >= {"config.json", "late.json"}


def half_way(server: Server, root: str, back: bool = False) -> lineage.CommandRun:
    """A command whose server goes away after its first half, and comes back soon or not."""
    with lineage.command_run(root, "train", {"a": 1}) as told:
        models = LoggedModels(told)
        told.input("tokens", "t" * 64, f"{root}/tokens")
        tell(told, models, 0)
        server.go()
        tell(told, models, 10)
        timer = threading.Timer(0.5, server.come)
        if back:
            timer.start()
        told.json({"b": 2}, "late.json")
        told.put(
            "register", name="made", aliases=["champion"], digest=f"{10:064}", url="/runs/run/checkpoints/step-10",
            title="run/step-10",
        )  # fmt: skip
    if back:
        timer.join()
    return told


def test_what_could_not_be_told_is_told_by_the_next_command(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "root")
    told = half_way(server, root)
    said = capsys.readouterr().err
    assert "cannot be told" in said
    assert "omnimill lineage flush" in said
    with pytest.raises(OmnimillError, match="cannot be used"):
        lineage.flush(root)
    server.come()
    with lineage.command_run(root, "report", {}):
        check(told, told.client)
    assert lineage.flush(root) == 0
    assert not list((Path(root) / outbox.FOLDER).iterdir())


def test_a_part_that_begins_without_the_store_is_a_child_all_the_same(server: Server, tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    with lineage.command_run(root, "ingest", {}) as whole:
        server.go()
        with lineage.command_run(root, "ingest source", {}, "photos") as part:
            part.metrics({"units": 3})
            tell(part, LoggedModels(part), 0)
    server.come()
    lineage.flush(root)
    found = lineage.find_run(root, part.id)
    assert found is not None
    assert (found.info.run_name, found.info.status, found.data.metrics["units"]) == ("photos", "FINISHED", 3)
    assert found.data.tags["mlflow.parentRunId"] == whole.id
    with lineage.command_run(root, "ingest source", {}, resume=part.id) as again:
        assert again.id == found.info.run_id


def test_a_server_that_comes_back_is_told_in_time(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outbox, "PATIENCE", 60.0)
    told = half_way(server, str(tmp_path / "root"), back=True)
    check(told, told.client)
    assert "has now been told all" in capsys.readouterr().err.replace("\n", " ")


def test_a_command_does_not_begin_without_its_store(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.go()
    begins = lineage.command_run(str(tmp_path / "root"), "report", {})
    with pytest.raises(OmnimillError, match=r"cannot be used.*\n.*unset MLFLOW_TRACKING_URI"):
        begins.__enter__()
    assert capsys.readouterr().out == ""
