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

from omnimill.config import digest_json
from omnimill.infra import logged_models, registered_models
from omnimill.infra.outbox import Message
from omnimill.infra.tracking import About, Reference, client_of, dataset_input, without_secrets

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
        _OPERATIONS[arguments.pop("do")](self.client, arguments.pop("run"), **arguments)

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
