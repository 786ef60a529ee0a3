"""OpenLineage events of commands: START, and COMPLETE, FAIL or ABORT with what was read and written.

Sent when OpenLineage's own client is configured: by ``OPENLINEAGE_URL``, other variables that begin with
``OPENLINEAGE_``, or an ``openlineage.yml`` where it looks for one. A receiver that does not answer or does not
understand stops no command.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import requests

from omnimill.config import digest_json
from omnimill.errors import ConfigError
from omnimill.infra import storage
from omnimill.infra.code_version import code_version, user
from omnimill.infra.outbox import Message, Outbox, left_behind
from omnimill.infra.tracking import About, Reference, without_secrets
from omnimill.progress import console

if TYPE_CHECKING:
    from omnimill.infra.lineage import CommandRun

NAMESPACE = "omnimill"
PRODUCER = "https://pypi.org/project/omnimill"
_CONFIGURATION = "openlineage.yml"
_ASKED_AGAIN = (408, 429)  # refusals that time may mend


def configured() -> bool:
    """Whether OpenLineage's client would send events somewhere."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    variables = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")
    if any(os.environ.get(name) for name in variables) or any(name.startswith("OPENLINEAGE__") for name in os.environ):
        return True
    return any((folder / _CONFIGURATION).is_file() for folder in (Path.cwd(), Path.home() / ".openlineage"))


@dataclass(frozen=True)
class Identity:
    """A job's run, as other events name it."""

    run: str
    job: str


class Job:
    """One launch of a command, as OpenLineage sees it; says nothing where OpenLineage is not configured.

    Args:
        told: the launch's MLflow run.
        name: of the job, the same for every launch.
        parent: the launch that this one is part of.
        outbox: None: say nothing.
    """

    def __init__(self, told: CommandRun, name: str, parent: Job | None, outbox: Outbox | None) -> None:
        self.identity = Identity(str(uuid4()), name)
        self._told, self._outbox = told, outbox
        self._parent = parent.identity if parent else None

    def started(self) -> None:
        self._emit("START")

    def completed(self) -> None:
        self._emit("COMPLETE")
        self._close()

    def failed(self, error: BaseException, *, stopped: bool) -> None:
        """stopped: it was told to stop."""
        self._emit("ABORT" if stopped else "FAIL", f"{type(error).__name__}: {error}"[:5000])
        self._close()

    def _emit(self, state: str, error: str | None = None) -> None:
        if self._outbox is None:
            return
        message = {
            "state": state,
            "at": datetime.now(UTC).isoformat(),
            "run": vars(self.identity),
            "parent": vars(self._parent) if self._parent else None,
            "mlflow_run": self._told.id,
            "read": _described(self._told.read),
            "written": _described(self._told.written),
            "error": error,
            "user": user(),
        }
        try:
            self._outbox.put(message)
        except Exception as refusal:  # noqa: BLE001 - whatever a receiver answers, the command's work is done
            console.print(f"OpenLineage: the receiver refused an event: {refusal}", style="yellow")

    def _close(self) -> None:
        if self._outbox is not None:
            self._outbox.close()


def open_job(told: CommandRun, command: str, name: str | None, parent: Job | None) -> Job:
    """Tell OpenLineage that a command has started, if it is configured.

    Raises:
        ConfigError: it is configured, but its client is not installed.
    """
    job_name = command if name is None else name if name.startswith(command) else f"{command} {name}"
    if not configured():
        return Job(told, job_name, parent, None)
    receiver = Receiver()
    with suppress(Exception):  # clients raise anything; what waits is told when the receiver answers
        left_behind(told.root, receiver)
    job = Job(told, job_name, parent, Outbox(told.root, told.id, receiver))
    job.started()
    return job


class Receiver:
    """What OpenLineage's client sends to, as an outbox sends messages to it.

    Raises:
        ConfigError: the client is not installed.
    """

    def __init__(self) -> None:
        where = os.environ.get("OPENLINEAGE_URL") or os.environ.get("OPENLINEAGE_CONFIG") or _CONFIGURATION
        self.name = f"the OpenLineage receiver ({without_secrets(where)})"
        self.key = digest_json(["openlineage", without_secrets(where)])
        try:
            import openlineage.client  # noqa: F401, PLC0415 - an extra
        except ImportError:
            raise ConfigError(
                "OpenLineage is configured, but its client is not installed: pip install 'omnimill[openlineage]', or "
                "set OPENLINEAGE_DISABLED=true"
            ) from None

    @cached_property
    def _client(self) -> Any:
        from openlineage.client import OpenLineageClient  # noqa: PLC0415

        return OpenLineageClient()

    def send(self, message: Message) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._client.emit(_event(message))

    def refuses(self, error: Exception) -> bool:
        if isinstance(error, requests.HTTPError) and error.response is not None:
            status = error.response.status_code
            return 400 <= status < 500 and status not in _ASKED_AGAIN
        return isinstance(error, TypeError | KeyError | AttributeError)

    def answers(self) -> bool:
        """There is nothing to ask a receiver."""
        return False

    def merged(self, first: Message, second: Message) -> None:  # noqa: ARG002 - every event stands for itself
        return None


def dataset_name(reference: Reference) -> tuple[str, str]:
    """Namespace and name of a dataset by OpenLineage's rules for files and object stores."""
    if not reference.url:
        return NAMESPACE, reference.name
    if storage.is_local(reference.url):
        return "file", str(Path(storage.filesystem(reference.url)[1]).absolute())
    parts = urlsplit(reference.url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", parts.path.strip("/") or "/"


def _described(datasets: Mapping[Reference, About]) -> list[dict[str, Any]]:
    return [{"reference": vars(one), "about": vars(known)} for one, known in datasets.items()]


def _event(message: Message) -> Any:
    """The event of a message, with its facets."""
    from openlineage.client import event_v2  # noqa: PLC0415
    from openlineage.client.facet_v2 import (  # noqa: PLC0415
        error_message_run,
        job_type_job,
        parent_run,
        processing_engine_run,
        set_producer,
        source_code_location_job,
        tags_run,
    )

    set_producer(PRODUCER)
    code = code_version()
    of_run: dict[str, Any] = {
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(name="omnimill", version=code.version),
        "tags": tags_run.TagsRunFacet(
            tags=[
                tags_run.TagsRunFacetFields(key="mlflow_run", value=message["mlflow_run"], source=NAMESPACE),
                tags_run.TagsRunFacetFields(key="code", value=code.name, source=NAMESPACE),
            ]
        ),
    }
    if parent := message["parent"]:
        of_run["parent"] = parent_run.ParentRunFacet(
            run=parent_run.Run(runId=parent["run"]), job=parent_run.Job(namespace=_namespace(), name=parent["job"])
        )
    if message["error"]:
        of_run["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            message=message["error"], programmingLanguage="python"
        )
    of_job: dict[str, Any] = {
        "jobType": job_type_job.JobTypeJobFacet(processingType="BATCH", integration="OMNIMILL", jobType="COMMAND")
    }
    if code.commit and code.remote:
        of_job["sourceCodeLocation"] = source_code_location_job.SourceCodeLocationJobFacet(
            type="git", url=code.remote, repoUrl=code.remote, version=code.commit, branch=code.branch
        )
    return event_v2.RunEvent(
        eventType=event_v2.RunState[message["state"]],
        eventTime=message["at"],
        run=event_v2.Run(runId=message["run"]["run"], facets=of_run),
        job=event_v2.Job(namespace=_namespace(), name=message["run"]["job"], facets=of_job),
        producer=PRODUCER,
        inputs=[_dataset(one, event_v2.InputDataset, {}) for one in message["read"]],
        outputs=[_output(one, message["user"]) for one in message["written"]],
    )


def _namespace() -> str:
    return os.environ.get("OPENLINEAGE_NAMESPACE") or NAMESPACE


def _dataset(described: Mapping[str, Any], kind: Any, known_facets: Mapping[str, Any], **further: Any) -> Any:
    """A dataset with the facets that say what it is, and those that are known already."""
    from openlineage.client.facet_v2 import (  # noqa: PLC0415
        dataset_version_dataset,
        datasource_dataset,
        schema_dataset,
        tags_dataset,
    )

    reference, known = Reference(**described["reference"]), About(**described["about"])
    namespace, name = dataset_name(reference)
    facets: dict[str, Any] = {
        **known_facets,
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=reference.digest),
        "dataSource": datasource_dataset.DatasourceDatasetFacet(name=reference.name, uri=namespace),
    }
    if known.columns:
        facets["schema"] = schema_dataset.SchemaDatasetFacet(
            fields=[schema_dataset.SchemaDatasetFacetFields(name=column, type=of) for column, of in known.columns]
        )
    if known.licences:
        facets["tags"] = tags_dataset.TagsDatasetFacet(
            tags=[
                tags_dataset.TagsDatasetFacetFields(key=f"licence.{source}", value=said or "unknown", source=NAMESPACE)
                for source, said in known.licences.items()
            ]
        )
    if known.made_of:
        facets["columnLineage"] = _column_lineage(known)
    return kind(namespace=namespace, name=name, facets=facets, **further)


def _output(described: Mapping[str, Any], owner: str) -> Any:
    from openlineage.client import event_v2  # noqa: PLC0415
    from openlineage.client.facet_v2 import output_statistics_output_dataset, ownership_dataset  # noqa: PLC0415

    known = About(**described["about"])
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=known.rows, size=known.bytes, fileCount=known.files
    )
    further = {} if known.rows is None else {"outputStatistics": statistics}
    owned = ownership_dataset.OwnershipDatasetFacet(owners=[ownership_dataset.Owner(name=owner, type="MAINTAINER")])
    return _dataset(described, event_v2.OutputDataset, {"ownership": owned}, outputFacets=further)


def _column_lineage(known: About) -> Any:
    from openlineage.client.facet_v2 import column_lineage_dataset as facet  # noqa: PLC0415

    def fields(made_of: list[tuple[str, str]]) -> Any:
        named = [(dataset_name(Reference("", "", url)), column) for url, column in made_of]
        return facet.Fields(
            inputFields=[facet.InputField(namespace=where[0], name=where[1], field=column) for where, column in named]
        )

    return facet.ColumnLineageDatasetFacet(
        fields={column: fields([(url, of) for url, of in parts]) for column, parts in known.made_of.items()}
    )
