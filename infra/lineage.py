"""Every command is an MLflow run whose inputs and outputs are MLflow datasets named by manifest digest.

The tracking store is ``MLFLOW_TRACKING_URI`` when set, otherwise a SQLite file under the root; no server is needed.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Run, RunTag
from mlflow.exceptions import MlflowException

import omnimill
from omnimill.errors import ConfigError, Stopped
from omnimill.infra import storage

# MLflow tells about every table it creates in a new store.
logging.getLogger("mlflow.store").setLevel(logging.WARNING)

EXPERIMENT = "omnimill"
CONTEXT_TAG = "mlflow.data.context"
MANIFEST_TAG = "omnimill.manifest"
# MLflow stores at most 36 characters of a dataset's digest; the whole digest is in the tag.
DIGEST_CHARACTERS = 32


def tracking_uri(root: str) -> str:
    """Where runs under `root` are recorded."""
    configured = os.environ.get("MLFLOW_TRACKING_URI")
    if configured:
        return configured
    if not storage.is_local(root):
        raise ConfigError(f"root {root!r} is not local: set MLFLOW_TRACKING_URI to an MLflow server or database")
    folder = Path(storage.filesystem(root)[1])
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def client(root: str) -> MlflowClient:
    """An MLflow client for the tracking store of `root`."""
    return MlflowClient(tracking_uri=tracking_uri(root))


@dataclass(frozen=True)
class Reference:
    """A dataset, file or folder that a run read or wrote. digest: of its manifest or content, 64 hex digits."""

    name: str
    digest: str
    url: str


class CommandRun:
    """One MLflow run of one command; all writes go through here."""

    def __init__(self, mlflow: MlflowClient, run: Run) -> None:
        self.client = mlflow
        self.id: str = run.info.run_id

    def input(self, dataset: str, digest: str, url: str) -> None:
        """Record that the command read version `digest` of a dataset (or a file or folder of that content)."""
        self._dataset(dataset, digest, url, "input")

    def output(self, dataset: str, digest: str, url: str) -> None:
        """Record that the command wrote version `digest` of a dataset (or a file or folder of that content)."""
        self._dataset(dataset, digest, url, "output")

    def _dataset(self, name: str, digest: str, url: str, context: str) -> None:
        source = json.dumps({"uri": url})
        entity = Dataset(name=name, digest=digest[:DIGEST_CHARACTERS], source_type="omnimill", source=source)
        tags = [InputTag(CONTEXT_TAG, context), InputTag(MANIFEST_TAG, digest)]
        self.client.log_inputs(self.id, datasets=[DatasetInput(entity, tags)])

    def metrics(
        self, values: Mapping[str, float], step: int = 0, model: str | None = None, data: Reference | None = None
    ) -> None:
        """Log metrics of the run.

        Args:
            model: id of a logged model that they are metrics of too.
            data: dataset that they were measured on.
        """
        now = int(time.time() * 1000)
        on = {} if data is None else {"dataset_name": data.name, "dataset_digest": data.digest[:DIGEST_CHARACTERS]}
        batch = [Metric(name, float(value), now, step, model_id=model, **on) for name, value in values.items()]
        for start in range(0, len(batch), 1000):
            self.client.log_batch(self.id, metrics=batch[start : start + 1000])

    def tags(self, values: Mapping[str, str]) -> None:
        self.client.log_batch(self.id, tags=[RunTag(name, str(value)) for name, value in values.items()])

    def json(self, value: Any, file: str) -> None:
        """Store a JSON document as an artifact."""
        self.client.log_dict(self.id, value, file)

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        self.client.log_artifact(self.id, str(path), folder)


@contextmanager
def command_run(
    root: str, command: str, config: Mapping[str, Any], name: str | None = None, resume: str | None = None
) -> Iterator[CommandRun]:
    """An MLflow run around a command: FINISHED when the block ends, FAILED when it raises, KILLED when it is stopped.

    Args:
        root: where datasets and the default tracking store live.
        command: ingest, tokenize, train, …; becomes the tag ``omnimill.command``.
        config: the resolved configuration, stored whole as the artifact ``config.json``.
        name: shown in the MLflow UI; the command's name when None.
        resume: id of the run to go on with; a new run, if the tracking store does not know it.
    """
    mlflow = client(root)
    tags = {
        "omnimill.command": command,
        "omnimill.version": omnimill.__version__,
        "omnimill.root": root,
        "omnimill.argv": " ".join(sys.argv),
    }
    run = _running_again(mlflow, resume) if resume else None
    if run is None:
        found = mlflow.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found else _create_experiment(mlflow, root)
        run = mlflow.create_run(experiment, tags=tags, run_name=name or command)
    handle = CommandRun(mlflow, run)
    handle.json(dict(config), "config.json")
    try:
        yield handle
    except BaseException as error:
        handle.tags({"omnimill.error": f"{type(error).__name__}: {error}"[:5000]})
        status = "KILLED" if isinstance(error, KeyboardInterrupt | Stopped) else "FAILED"
        mlflow.set_terminated(handle.id, status=status)
        raise
    mlflow.set_terminated(handle.id, status="FINISHED")


def _running_again(mlflow: MlflowClient, run_id: str) -> Run | None:
    """An earlier run, marked as running and without its error; None when there is no such run."""
    try:
        mlflow.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    run = mlflow.get_run(run_id)
    if "omnimill.error" in run.data.tags:
        mlflow.delete_tag(run_id, "omnimill.error")
    return run


def _create_experiment(mlflow: MlflowClient, root: str) -> str:
    location = None
    if storage.is_local(root) and not os.environ.get("MLFLOW_TRACKING_URI"):
        location = (Path(storage.filesystem(root)[1]) / "mlartifacts").as_uri()
    try:
        return str(mlflow.create_experiment(EXPERIMENT, artifact_location=location))
    except MlflowException:
        # Another command made it between the look-up and here.
        found = mlflow.get_experiment_by_name(EXPERIMENT)
        if found is None:
            raise
        return str(found.experiment_id)


def runs(root: str, command: str | None = None) -> list[Run]:
    """All runs of a command (of every command when None), oldest first."""
    mlflow = client(root)
    experiment = mlflow.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    query = f"tags.`omnimill.command` = '{command}'" if command else ""
    result: list[Run] = []
    token: str | None = None
    while True:
        page = mlflow.search_runs(
            [experiment.experiment_id],
            query,
            max_results=1000,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        result.extend(page)
        token = page.token
        if not token:
            return result


def references(run: Run, context: Literal["input", "output"]) -> list[Reference]:
    """What a run read or wrote, in the order it was recorded."""
    found = []
    for item in run.inputs.dataset_inputs if run.inputs else []:
        tags = {tag.key: tag.value for tag in item.tags}
        if tags.get(CONTEXT_TAG) == context:
            digest = tags.get(MANIFEST_TAG, item.dataset.digest)
            found.append(Reference(item.dataset.name, digest, json.loads(item.dataset.source)["uri"]))
    return found
