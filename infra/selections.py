"""Selections: which rows of a dataset version are not to be used, and why. Shards are never rewritten.

Layout below a dataset's folder::

    selected/<digest>.arrow     rows of one shard that a selection leaves out (`SELECTION_SCHEMA`)
    selections/<digest>.json    every published selection
    selections/<name>.json      the current selection of that name

A selection holds for the one version that it judged: of another version it would not know the new rows.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import Field

from omnimill.config import Config, canonical_json
from omnimill.errors import IntegrityError, OmnimillError
from omnimill.infra import arrow_files, storage
from omnimill.infra.dataset import Dataset, FileRef

SELECTION_VERSION = 1

_DIGEST = re.compile(r"[0-9a-f]{64}")

SELECTION_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # in the shard
        pa.field("id", pa.string(), nullable=False),  # of the example
        pa.field("step", pa.string(), nullable=False),  # that decided
        pa.field("reason", pa.string(), nullable=False),
        ("twin", pa.string()),  # id of the example that is kept in its place
        ("score", pa.float64()),  # what was held against a threshold: a similarity, a distance, a score
    ]
)


class LeftOut(Config):
    """What a selection leaves out of one shard. file: its rows, sorted. dropped: how many for which reason."""

    shard: str
    file: FileRef
    dropped: dict[str, int]


class Selection(Config):
    """A verdict on every row of one dataset version.

    manifest: digest of the version. config: what decided, resolved. kept: rows that are left.
    shards: those that lose rows, in the manifest's order.
    """

    version: int = SELECTION_VERSION
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    dataset: str
    manifest: str
    config: dict[str, Any]
    kept: int
    shards: tuple[LeftOut, ...]

    @property
    def dropped(self) -> dict[str, int]:
        """Rows left out, by reason."""
        sums: Counter[str] = Counter()
        for shard in self.shards:
            sums.update(shard.dropped)
        return dict(sorted(sums.items()))


def publish_left_out(dataset: Dataset, shard: str, rows: pa.Table | Sequence[Mapping[str, Any]]) -> LeftOut:
    """Store the rows (of `SELECTION_SCHEMA`, each row of the shard at most once) that are left out of a shard."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), SELECTION_SCHEMA)
    table = table.sort_by("row")
    digest, size = arrow_files.publish_table(table, storage.join(dataset.url, "selected"))
    reasons = Counter(table.column("reason").to_pylist())
    file = FileRef(digest=digest, rows=table.num_rows, bytes=size)
    return LeftOut(shard=shard, file=file, dropped=dict(sorted(reasons.items())))


def publish_selection(dataset: Dataset, selection: Selection) -> str:
    """Store a selection and make it the current one of its name; its digest (64 hex digits)."""
    digest = selection.content_digest()
    body = canonical_json(selection.model_dump(mode="json"))
    for name in (digest, selection.name):
        storage.publish_bytes(selection_url(dataset, name), body)
    return digest


def selection_url(dataset: Dataset, name: str) -> str:
    """Where a selection of a name or digest is stored."""
    return storage.join(dataset.url, "selections", f"{name}.json")


def load_selection(dataset: Dataset, name: str, manifest: str | None = None) -> tuple[str, Selection]:
    """A selection by name or digest, with its digest.

    Args:
        manifest: digest of the version that it is to be used on.

    Raises:
        OmnimillError: there is none of that name.
        IntegrityError: it was made for another version, by another release, or is damaged.
    """
    url = selection_url(dataset, name)
    try:
        body = json.loads(storage.read_bytes(url))
    except FileNotFoundError:
        raise OmnimillError(f"dataset {dataset.name!r} has no selection {name!r}: {url} does not exist") from None
    if body.get("version") != SELECTION_VERSION:
        raise IntegrityError(
            f"{url}: selection version {body.get('version')!r}; this omnimill reads {SELECTION_VERSION}"
        )
    selection = Selection.model_validate(body)
    if manifest is not None and selection.manifest != manifest:
        raise IntegrityError(
            f"selection {name!r} judged version {selection.manifest[:12]} of {dataset.name!r}, which is now at "
            f"{manifest[:12]}: run `omnimill dedup` again"
        )
    return selection.content_digest(), selection


def current_selections(dataset: Dataset, manifest: str) -> list[tuple[str, Selection]]:
    """The current selections, by name, that judged the version `manifest`, with their digests."""
    files = storage.list_folder(storage.join(dataset.url, "selections"))
    names = [name.removesuffix(".json") for name in files]
    found = [load_selection(dataset, name) for name in names if not _DIGEST.fullmatch(name)]
    return [(digest, selection) for digest, selection in found if selection.manifest == manifest]


def left_out(dataset: Dataset, file: FileRef) -> pa.Table:
    """The rows that a selection leaves out of a shard, in `SELECTION_SCHEMA`."""
    return arrow_files.read_table(selected_url(dataset, file))


def selected_url(dataset: Dataset, file: FileRef) -> str:
    """Where the rows that a selection leaves out of a shard are stored."""
    return storage.join(dataset.url, "selected", f"{file.digest}.arrow")
