"""Messages about runs, and what each does at a tracking store. All of them may come twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from omnimill.config import digest_json
from omnimill.infra import logged_models, registered_models
from omnimill.infra.outbox import Message
from omnimill.infra.tracking import EXPERIMENT, About, Reference, client_of, dataset_input, without_secrets

# What the id of a run begins with that began while the store was away, and the tag by which it is known then.
UNSEEN, _BEGAN_AS = "unseen-", "omnimill.began_as"
# Limits of MLflow's, per call.
_METRICS_AT_ONCE, _TAGS_AT_ONCE, _DATASETS_AT_ONCE = 1000, 100, 100
# What MLflow answers when a call will not do, however often it is made.
_REFUSALS = frozenset(
    {
        "BAD_REQUEST",
        "ENDPOINT_NOT_FOUND",
        "FEATURE_DISABLED",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "MALFORMED_REQUEST",
        "NOT_IMPLEMENTED",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
    }
)


class TrackingServer:
    """A tracking store, as an outbox sends messages to it: ``{"do": operation, "run": id, **arguments}``."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.name = f"the tracking server {without_secrets(uri)}"
        self.key = digest_json(without_secrets(uri))

    @cached_property
    def client(self) -> MlflowClient:
        return client_of(self.uri)

    def send(self, message: Message) -> None:
        arguments = dict(message)
        do, run = arguments.pop("do"), arguments.pop("run")
        if do == "begin":
            _begin(self.client, run, **arguments)
        else:
            _OPERATIONS[do](self.client, known_as(self.client, run), **arguments)

    def refuses(self, error: Exception) -> bool:
        if isinstance(error, MlflowException):
            return error.error_code in _REFUSALS
        return isinstance(error, FileNotFoundError | TypeError | KeyError | AttributeError)

    def answers(self) -> bool:
        try:
            self.client.search_experiments(max_results=1)
        except Exception:  # noqa: BLE001 - stores raise anything
            return False
        return True

    def merged(self, first: Message, second: Message) -> Message | None:
        """Metrics of one run are told many at a time."""
        if not all(one["do"] == "metrics" for one in (first, second)) or first["run"] != second["run"]:
            return None
        values = [*first["values"], *second["values"]]
        return {**first, "values": values} if len(values) <= _METRICS_AT_ONCE else None


def known_as(client: MlflowClient, run: str) -> str:
    """The id that a store knows a run by: its own, of a run that began while the store was away.

    Raises:
        MlflowException: it knows none such.
    """
    found = _begun(client, run) if run.startswith(UNSEEN) else run
    if found is None:
        raise MlflowException(f"no run began as {run}", RESOURCE_DOES_NOT_EXIST)
    return found


def _begun(client: MlflowClient, run: str) -> str | None:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return None
    found = client.search_runs([experiment.experiment_id], f"tags.`{_BEGAN_AS}` = '{run}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _begin(client: MlflowClient, run: str, name: str, tags: dict[str, str], at: int) -> None:
    """Make a run that began while the store was away, under another that it knew. at: milliseconds since 1970."""
    if _begun(client, run) is None:
        above = known_as(client, tags[MLFLOW_PARENT_RUN_ID])
        experiment = client.get_run(above).info.experiment_id
        told = {**tags, MLFLOW_PARENT_RUN_ID: above, _BEGAN_AS: run}
        client.create_run(experiment, start_time=at, tags=told, run_name=name)


def datasets(run: str, context: str, references: Mapping[Reference, About]) -> dict[str, Any]:
    """The message that a run read (context ``input``) or wrote (``output``) these."""
    listed = [{"reference": vars(one), "about": vars(known)} for one, known in references.items()]
    return {"do": "datasets", "run": run, "context": context, "listed": listed}


def _datasets(client: MlflowClient, run: str, context: str, listed: list[dict[str, Any]]) -> None:
    entities = (dataset_input(Reference(**one["reference"]), context, About(**one["about"])) for one in listed)
    while some := list(islice(entities, _DATASETS_AT_ONCE)):
        client.log_inputs(run, datasets=some)


def _metrics(client: MlflowClient, run: str, values: list[dict[str, Any]]) -> None:
    for some in _pieces(values, _METRICS_AT_ONCE):
        client.log_batch(run, metrics=[Metric(**one) for one in some])


def _tags(client: MlflowClient, run: str, values: dict[str, str]) -> None:
    for some in _pieces(list(values.items()), _TAGS_AT_ONCE):
        client.log_batch(run, tags=[RunTag(name, value) for name, value in some])


def _pieces(values: list[Any], at_once: int) -> Iterator[list[Any]]:
    return (values[start : start + at_once] for start in range(0, len(values), at_once))


def _text(client: MlflowClient, run: str, text: str, file: str) -> None:
    client.log_text(run, text, file)


def _artifact(client: MlflowClient, run: str, path: str, folder: str | None) -> None:
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} has gone")
    client.log_artifact(run, path, folder)


def _end(client: MlflowClient, run: str, status: str, at: int) -> None:
    client.set_terminated(run, status=status, end_time=at)


_OPERATIONS: dict[str, Callable[..., None]] = {
    "datasets": _datasets,
    "metrics": _metrics,
    "tags": _tags,
    "text": _text,
    "artifact": _artifact,
    "end": _end,
    "model": logged_models.send_model,
    "model_tags": logged_models.send_tags,
    "register": registered_models.send_registration,
}
