"""Every command is an MLflow run whose inputs and outputs are MLflow datasets named by manifest digest.

What a run is told goes through an outbox, so that a tracking server that goes away stops no command
(`omnimill.infra.outbox`); where OpenLineage is configured, its events tell of the same (`omnimill.infra.openlineage`).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from uuid import uuid4

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_LOGGED_ARTIFACTS,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from omnimill.errors import OmnimillError, Stopped
from omnimill.infra.code_version import code_version, environment, user
from omnimill.infra.observing import logged_run
from omnimill.infra.openlineage import Job, open_job
from omnimill.infra.outbox import Outbox, left_behind
from omnimill.infra.telling import UNSEEN, TrackingServer, datasets, known_as
from omnimill.infra.tracking import (
    CONTEXT_TAG,
    DIGEST_CHARACTERS,
    EXPERIMENT,
    MANIFEST_TAG,
    About,
    Reference,
    about,
    artifacts_of,
    client,
    is_server,
    tracking_uri,
)
from omnimill.progress import console

__all__ = [
    "About",
    "CommandRun",
    "Reference",
    "about",
    "artifact_json",
    "client",
    "command_run",
    "flush",
    "licence_tags",
    "licences",
    "parent_of",
    "past_run",
    "references",
    "runs",
    "tracking_uri",
]

COMMAND_TAG, ERROR_TAG, JOB_TAG = "omnimill.command", "omnimill.error", "omnimill.ray_job"
LICENCE_TAG = "omnimill.licence."
_NOTHING = About()
_ENCLOSING: ContextVar[CommandRun | None] = ContextVar("enclosing", default=None)


class CommandRun:
    """One MLflow run of one command; all writes go through here, from any thread.

    Args:
        root: whose tracking store has the run.
        server: that store.
        run: the run's id.
    """

    def __init__(self, root: str, server: TrackingServer, run: str) -> None:
        self.id = run
        self.root = root
        self.read: dict[Reference, About] = {}
        self.written: dict[Reference, About] = {}
        self.job: Job | None = None  # as OpenLineage sees it
        self._server = server
        self._outbox = Outbox(root, run, server)
        self._tables: list[str] = []

    @property
    def client(self) -> MlflowClient:
        """For what is asked of the store; it raises when the store does not answer."""
        return self._server.client

    @property
    def unseen(self) -> bool:
        """Whether it began while the store was away, so that there is nothing to ask about it."""
        return self.id.startswith(UNSEEN)

    @property
    def store(self) -> str:
        """Names the tracking store, for comparing."""
        return self._server.key

    def put(self, do: str, **arguments: Any) -> None:
        """Tell the store something, see `omnimill.infra.telling`."""
        self._outbox.put({"do": do, "run": self.id, **arguments})

    def input(self, dataset: str, digest: str, url: str, known: About = _NOTHING) -> None:
        """Record that the command read version `digest` of a dataset (or a file or folder of that content)."""
        self.inputs({Reference(dataset, digest, url): known})

    def output(self, dataset: str, digest: str, url: str, known: About = _NOTHING) -> None:
        """Record that the command wrote version `digest` of a dataset (or a file or folder of that content)."""
        self.written[Reference(dataset, digest, url)] = known
        self._outbox.put(datasets(self.id, "output", {Reference(dataset, digest, url): known}))

    def inputs(self, read: Mapping[Reference, About]) -> None:
        """As :meth:`input`, of many datasets at once."""
        self.read |= read
        self._outbox.put(datasets(self.id, "input", read))

    def metrics(
        self, values: Mapping[str, float], step: int = 0, model: str | None = None, data: Reference | None = None
    ) -> None:
        """Log metrics of the run.

        Args:
            model: id of a logged model that they are metrics of too.
            data: dataset that they were measured on.
        """
        on: dict[str, Any] = {"timestamp": int(time.time() * 1000), "step": step}
        if model is not None:
            on["model_id"] = model
        if data is not None:
            on |= {"dataset_name": data.name, "dataset_digest": data.digest[:DIGEST_CHARACTERS]}
        self.put("metrics", values=[{"key": name, "value": float(value), **on} for name, value in values.items()])

    def tags(self, values: Mapping[str, str]) -> None:
        self.put("tags", values={name: str(value) for name, value in values.items()})

    def json(self, value: Any, file: str) -> None:
        """Store a JSON document as an artifact."""
        self.put("text", text=json.dumps(value, indent=2, ensure_ascii=False), file=file)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], file: str) -> None:
        """Store a table as an artifact that MLflow shows as one. file: its name, in ``.json``."""
        self.json({"columns": list(columns), "data": [list(row) for row in rows]}, file)
        self._tables.append(file)
        listed = [{"path": name, "type": "table"} for name in self._tables]
        self.tags({MLFLOW_LOGGED_ARTIFACTS: json.dumps(listed)})

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Store a file as an artifact; it has to stay where it is until the store has it."""
        self.put("artifact", path=str(Path(path).absolute()), folder=folder)

    def close(self) -> None:
        """Wait a little for what the store has not been told yet; the rest is left to later commands."""
        self._outbox.close()


@contextmanager
def command_run(
    root: str,
    command: str,
    config: Mapping[str, Any],
    name: str | None = None,
    resume: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[CommandRun]:
    """An MLflow run around a command: FINISHED when the block ends, FAILED when it raises, KILLED when it is stopped.

    Within the block of another run under the same store it is that run's child.

    Args:
        root: where datasets and the default tracking store live.
        command: ingest, tokenize, train, …; becomes the tag ``omnimill.command``.
        config: the resolved configuration, stored whole as the artifact ``config.json``.
        name: shown in the MLflow UI; the command's name when None.
        resume: id of the run to go on with; a new run, if the tracking store does not know it.
        tags: further ones.

    Raises:
        OmnimillError: the tracking store cannot be used. Once the block has begun, it may go away.
    """
    server = TrackingServer(tracking_uri(root))
    above = _ENCLOSING.get()
    parent = above if above is not None and above.store == server.key else None
    told = _tags(root, command) | dict(tags or {}) | ({MLFLOW_PARENT_RUN_ID: parent.id} if parent else {})
    try:
        with _reachable(server):
            _tell_what_waits(root, server)
            run = _running_again(server.client, resume) if resume else None
            resumed = run is not None
            if run is None:
                experiment = _experiment(server.client, root)
                run = server.client.create_run(experiment, tags=told, run_name=name or command).info.run_id
        handle = CommandRun(root, server, run)
        if resumed:
            handle.tags(told)
    except OmnimillError:
        if parent is None:
            raise
        # A part of a command that goes on without its store.
        handle = CommandRun(root, server, f"{UNSEEN}{uuid4().hex}")
        handle.put("begin", name=name or command, tags=told, at=int(time.time() * 1000))
    handle.json(dict(config), "config.json")
    if parent is None:
        handle.json(environment(), "environment.json")
    job = handle.job = open_job(handle, command, name, above.job if above else None)
    token = _ENCLOSING.set(handle)
    try:
        with logged_run(handle.id, command):
            yield handle
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | Stopped)
        handle.tags({ERROR_TAG: f"{type(error).__name__}: {error}"[:5000]})
        handle.put("end", status="KILLED" if stopped else "FAILED", at=int(time.time() * 1000))
        job.failed(error, stopped=stopped)
        raise
    else:
        handle.put("end", status="FINISHED", at=int(time.time() * 1000))
        job.completed()
    finally:
        _ENCLOSING.reset(token)
        handle.close()


@contextmanager
def past_run(root: str, run: str) -> Iterator[CommandRun]:
    """A run that has ended, to record something more about it."""
    handle = CommandRun(root, TrackingServer(tracking_uri(root)), run)
    try:
        yield handle
    finally:
        handle.close()


def flush(root: str) -> int:
    """Tell the tracking store what earlier commands could not, and give the number of messages.

    Raises:
        OmnimillError: it still cannot be used; nothing is lost.
    """
    server = TrackingServer(tracking_uri(root))
    with _reachable(server):
        return left_behind(root, server)


def _tell_what_waits(root: str, server: TrackingServer) -> None:
    if told := left_behind(root, server):
        console.print(f"{server.name} has now been told {told} messages of earlier commands", style="dim")


@contextmanager
def _reachable(server: TrackingServer) -> Iterator[None]:
    """An error for people when a tracking store cannot be used."""
    try:
        yield
    except OmnimillError:
        raise
    except Exception as error:
        said = next(iter(str(error).splitlines()), "")
        raise OmnimillError(
            f"{server.name} cannot be used: {type(error).__name__}: {said}\nA command needs it when it begins: start "
            "it, or unset MLFLOW_TRACKING_URI to record into a file under a local root; `omnimill doctor` looks for "
            "the cause."
        ) from error


def _tags(root: str, command: str) -> dict[str, str]:
    job = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")  # Ray's, of a process that its Jobs API has started
    submitted = json.loads(job).get("metadata", {}).get("job_submission_id") if job else None
    return {
        COMMAND_TAG: command,
        "omnimill.root": root,
        "omnimill.argv": " ".join(sys.argv),
        MLFLOW_SOURCE_NAME: f"omnimill {command}",
        MLFLOW_SOURCE_TYPE: "JOB" if submitted else "LOCAL",
        MLFLOW_USER: user(),
        **({JOB_TAG: submitted} if submitted else {}),
        **code_version().tags(),
    }


def _running_again(mlflow: MlflowClient, run_id: str) -> str | None:
    """The id of an earlier run, marked as running and without its error; None when there is no such run."""
    try:
        run_id = known_as(mlflow, run_id)
        mlflow.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    if ERROR_TAG in mlflow.get_run(run_id).data.tags:
        mlflow.delete_tag(run_id, ERROR_TAG)
    return run_id


def _experiment(mlflow: MlflowClient, root: str) -> str:
    """Id of the experiment of all runs, made if need be."""
    if found := mlflow.get_experiment_by_name(EXPERIMENT):
        return str(found.experiment_id)
    location = None
    if not is_server(mlflow.tracking_uri):
        location = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT") or artifacts_of(root)
    try:
        return str(mlflow.create_experiment(EXPERIMENT, artifact_location=location))
    except MlflowException:
        # Another command made it between the look-up and here.
        found = mlflow.get_experiment_by_name(EXPERIMENT)
        if found is None:
            raise
        return str(found.experiment_id)


def runs(root: str, command: str | None = None, *, reading: str | None = None, writing: str | None = None) -> list[Run]:
    """All runs of a command (of every command when None), oldest first.

    Args:
        reading, writing: only those that read, or wrote, what has this digest.
    """
    wanted = [f"tags.`{COMMAND_TAG}` = '{command}'"] if command else []
    for digest, context in ((reading, "input"), (writing, "output")):
        if digest is not None:
            wanted.append(_touching(digest, context))
    return _search(client(root), " AND ".join(wanted))


def find_run(root: str, run_id: str | None) -> Run | None:
    """The run with an id; None when the tracking store does not know it."""
    if run_id is None:
        return None
    try:
        mlflow = client(root)
        return mlflow.get_run(known_as(mlflow, run_id))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _touching(digest: str, context: str) -> str:
    """MLflow's search for runs that read (context ``input``) or wrote (``output``) what has a digest."""
    return f"dataset.digest = '{digest[:DIGEST_CHARACTERS]}' AND dataset.context = '{context}'"


def _search(mlflow: MlflowClient, query: str) -> list[Run]:
    experiment = mlflow.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
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


def licences(told: CommandRun, digest: str) -> dict[str, str | None]:
    """Licence by source of a dataset version, as the run that wrote it says; None: not stated. Empty: no run says."""
    try:
        found_runs = _search(told.client, _touching(digest, "output"))
    except Exception:  # noqa: BLE001 - a store that does not answer says nothing
        return {}
    for run in reversed(found_runs):
        found = {
            tag.removeprefix(LICENCE_TAG): None if value == "unknown" else value
            for tag, value in run.data.tags.items()
            if tag.startswith(LICENCE_TAG)
        }
        if found:
            return found
    return {}


def parent_of(root: str, children: Sequence[str]) -> str | None:
    """The run that the first of these runs, which the store knows, is a child of; None when there is none."""
    mlflow = client(root)
    for child in children:
        try:
            tags = mlflow.get_run(child).data.tags
        except MlflowException:
            continue
        if MLFLOW_PARENT_RUN_ID in tags:
            return str(tags[MLFLOW_PARENT_RUN_ID])
    return None


def licence_tags(known: Mapping[str, str | None]) -> dict[str, str]:
    """Licences by source as tags of a run."""
    return {f"{LICENCE_TAG}{source}": licence or "unknown" for source, licence in known.items()}


def artifact_json(mlflow: MlflowClient, run: Run, name: str) -> dict[str, Any]:
    """A JSON document that a run stored as an artifact; empty when it has none of that name.

    Raises:
        ValueError: it is no JSON.
    """
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)  # type: ignore[no-untyped-call]
    with TemporaryDirectory() as folder, suppress(MlflowException, OSError):
        return dict(json.loads(Path(mlflow.download_artifacts(run.info.run_id, name, folder)).read_bytes()))
    return {}


def references(run: Run, context: Literal["input", "output"]) -> list[Reference]:
    """What a run read or wrote, in the order it was recorded."""
    found = []
    for item in run.inputs.dataset_inputs if run.inputs else []:
        tags = {tag.key: tag.value for tag in item.tags}
        if tags.get(CONTEXT_TAG) == context:
            digest = tags.get(MANIFEST_TAG, item.dataset.digest)
            found.append(Reference(item.dataset.name, digest, json.loads(item.dataset.source)["uri"]))
    return found
