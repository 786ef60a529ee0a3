"""The tracking store of a root: where MLflow's runs are kept, and how a dataset is called in them.

The store is ``MLFLOW_TRACKING_URI`` when set, otherwise a SQLite file under the root; no server is needed.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag

from omnimill.errors import ConfigError
from omnimill.infra import storage
from omnimill.infra.dataset import Manifest
from omnimill.schema import EXAMPLE_SCHEMA
from omnimill.tokens import TOKEN_SCHEMA

# MLflow tells about every table it creates in a new store.
logging.getLogger("mlflow.store").setLevel(logging.WARNING)

EXPERIMENT = "omnimill"
CONTEXT_TAG = "mlflow.data.context"
MANIFEST_TAG = "omnimill.manifest"
# MLflow stores at most 36 characters of a dataset's digest; the whole digest is in the tag.
DIGEST_CHARACTERS = 32
# MLflow's own patience with a server (120 s, 7 tries with pauses up to 2 min) is for programs that cannot go on
# without it; here what a server does not take waits elsewhere.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    # MLflow would print a link where a command prints its answer.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


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


def artifacts_of(root: str) -> str:
    """Where artifacts of runs lie that are recorded in a database: under the root."""
    folder = storage.join(root, "mlartifacts")
    return Path(storage.filesystem(folder)[1]).absolute().as_uri() if storage.is_local(root) else folder


def without_secrets(uri: str) -> str:
    """A URI as it may be shown: without user and password."""
    return re.sub("://[^/@]*@", "://…@", uri)


def is_server(uri: str) -> bool:
    """Whether a tracking store is a server, which itself knows where artifacts go, and not a database."""
    return bool(re.match("https?:", uri))


def client(root: str) -> MlflowClient:
    """An MLflow client for the tracking store of `root`."""
    return client_of(tracking_uri(root))


def client_of(uri: str) -> MlflowClient:
    """An MLflow client for a tracking store."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    # Otherwise what another part of the process has set for MLflow as a whole would count.
    return MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)


@dataclass(frozen=True)
class Reference:
    """A dataset, file or folder that a run read or wrote. digest: of its manifest or content, 64 hex digits."""

    name: str
    digest: str
    url: str


@dataclass(frozen=True)
class About:
    """What is known of a dataset version beside its name.

    rows, bytes, files: in it. columns: name and type of each. licences: by source; None: not stated.
    made_of: columns of another dataset by column, as pairs of that dataset's URL and a column.
    """

    rows: int | None = None
    bytes: int | None = None
    files: int | None = None
    columns: Sequence[tuple[str, str]] = ()
    licences: Mapping[str, str | None] = field(default_factory=dict)
    made_of: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)


def about(
    manifest: Manifest,
    licences: Mapping[str, str | None] | None = None,
    made_of: Mapping[str, Sequence[tuple[str, str]]] | None = None,
) -> About:
    """What a manifest says of its version; `licences` of its sources and `made_of`: see :class:`About`."""
    shards = [shard for commit in manifest.commits for shard in commit.shards]
    schemas = {"examples": EXAMPLE_SCHEMA, "tokens": TOKEN_SCHEMA}
    known = licences or {}
    return About(
        rows=sum(shard.rows for shard in shards),
        bytes=sum(shard.bytes for shard in shards),
        files=len(shards),
        columns=columns(schemas[manifest.kind]) if manifest.kind in schemas else (),
        licences={source: known.get(source) for source in sorted({commit.source for commit in manifest.commits})},
        made_of=made_of or {},
    )


def columns(schema: pa.Schema) -> list[tuple[str, str]]:
    """Name and type of every column."""
    return [(one.name, str(one.type)) for one in schema]


def dataset_input(one: Reference, context: str, known: About) -> DatasetInput:
    """A dataset as MLflow records it. context: ``input`` or ``output``."""
    numbers = {"num_rows": known.rows, "num_bytes": known.bytes, "num_files": known.files}
    profile = {name: value for name, value in numbers.items() if value is not None}
    described = [{"name": name, "type": kind, "required": True} for name, kind in known.columns]
    entity = Dataset(
        name=one.name,
        digest=one.digest[:DIGEST_CHARACTERS],
        source_type="omnimill",
        source=json.dumps({"uri": one.url}),
        schema=json.dumps({"mlflow_colspec": described}) if described else None,
        profile=json.dumps(profile) if profile else None,
    )
    return DatasetInput(entity, [InputTag(CONTEXT_TAG, context), InputTag(MANIFEST_TAG, one.digest)])
