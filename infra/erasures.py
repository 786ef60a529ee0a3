"""Erasures: what was asked to be taken out of all data for good, and which stored rows that is.

Shards are never rewritten: an erasure is a request, and from then on no reader hands out the rows that its rules mean.

Layout under a root::

    erasures/<digest>.json             a request: who, when, why, and the rules; never changed, never deleted
    <dataset>/erased/<digest>.json     which rows of one version some requests mean (`Settlement`)
    <dataset>/selected/<digest>.arrow  those rows of one shard, as of any selection

What is written after a request leaves erased records out by its rules. What was there before is looked through once,
version by version (`omnimill.infra.settling`), by whoever reads a version first: so it does not matter who died when.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from omnimill.config import Config, canonical_json
from omnimill.errors import IntegrityError
from omnimill.infra import storage
from omnimill.infra.dataset import Commit, Dataset, FileRef
from omnimill.infra.erasure_rules import Kind, Rules
from omnimill.infra.selections import LeftOut, left_out
from omnimill.rng import Int64s
from omnimill.schema import Provenance

ERASURE_VERSION = 1
REGISTER = "erasures"
SETTLED = "erased"
REASON = "erased"

Verdict = Literal["quarantined", "dropped"]


class Erasure(Config):
    """A request. queries: as it was asked for. by: who asked, at: when (ISO 8601, UTC), reason: why.

    rules: what it means, by kind.
    """

    version: int = ERASURE_VERSION
    queries: tuple[str, ...] = Field(min_length=1)
    by: str = Field(min_length=1)
    at: str
    reason: str = Field(min_length=1)
    rules: dict[Kind, tuple[str, ...]]


class Settlement(Config):
    """The rows of one version of a dataset that requests mean.

    manifest: digest of the version. left_out: by the request's digest, all that were looked for, the shards that lose
    rows.
    """

    version: int = ERASURE_VERSION
    dataset: str
    manifest: str
    left_out: dict[str, tuple[LeftOut, ...]]


@dataclass(frozen=True)
class Register:
    """The requests of a root, by digest, oldest first."""

    root: str
    erasures: Mapping[str, Erasure] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.erasures)

    @cached_property
    def rules(self) -> Rules:
        """Of all requests."""
        return Rules(one.rules for one in self.erasures.values())


def register(root: str) -> Register:
    """The requests that are in force under a root now.

    Raises:
        IntegrityError: one of them is damaged, or of another release.
    """
    names = tuple(name for name in storage.list_folder(storage.join(root, REGISTER)) if name.endswith(".json"))
    return _register(root, names) if names else Register(root)


def publish(root: str, erasure: Erasure) -> str:
    """Put a request in force; its digest."""
    digest = erasure.content_digest()
    storage.publish_bytes(request_url(root, digest), canonical_json(erasure.model_dump(mode="json")))
    return digest


def rejected(dataset: Dataset, commit: Commit) -> Iterator[tuple[Verdict, pa.Table]]:
    """What a unit turned down, as of `Dataset.rejected`; less what was quarantined and is erased by now."""
    rules = register(dataset.root).rules
    for verdict, table in dataset.rejected(commit):
        if not rules or verdict != "quarantined":
            yield verdict, table
            continue
        columns = zip(*(table.column(name).to_pylist() for name in ("source", "key", "uri")), strict=True)
        kept = [not rules.record(source, key, Provenance(uri=uri, digest="")) for source, key, uri in columns]
        yield verdict, table.filter(pa.array(kept, pa.bool_()))


def request_url(root: str, digest: str) -> str:
    """Where a request is stored."""
    return storage.join(root, REGISTER, f"{digest}.json")


class ErasedRows:
    """The rows of a dataset's shards that requests mean, as far as its versions were looked through.

    Attributes:
        looked_for: by version, the requests that it was looked through for.
    """

    def __init__(self, dataset: Dataset, settlements: Collection[Settlement]) -> None:
        self._dataset = dataset
        self._files: dict[str, dict[tuple[str, str], FileRef]] = {}
        self.looked_for: dict[str, set[str]] = {}
        for one in settlements:
            self.looked_for.setdefault(one.manifest, set()).update(one.left_out)
            for request, shards in one.left_out.items():
                for part in shards:
                    self._files.setdefault(part.shard, {})[request, part.file.digest] = part.file

    def requests(self, shard: str) -> set[str]:
        """The requests that mean rows of a shard."""
        return {request for request, _ in self._files.get(shard, ())}

    def files(self, shard: str, requests: Collection[str] | None = None) -> list[FileRef]:
        """The files with the rows of a shard, of some requests or of all."""
        found = self._files.get(shard, {}).items()
        return list({file.digest: file for (one, _), file in found if requests is None or one in requests}.values())

    def rows(self, shard: str, requests: Collection[str] | None = None) -> Int64s:
        """The rows of a shard, sorted, of some requests or of all."""
        tables = (left_out(self._dataset, file) for file in self.files(shard, requests))
        return np.unique(np.concatenate([np.empty(0, np.int64), *(one.column("row").to_numpy() for one in tables)]))

    def shards(self) -> Iterator[str]:
        """Digests of the shards that lose rows."""
        return iter(self._files)


def erased_rows(dataset: Dataset) -> ErasedRows:
    """What is known to be erased of a dataset's shards; see `omnimill.infra.settling.settled` for a version's."""
    names = tuple(name for name in storage.list_folder(storage.join(dataset.url, SETTLED)) if name.endswith(".json"))
    return _erased_rows(dataset.root, dataset.name, names)


def publish_settlement(dataset: Dataset, settlement: Settlement) -> None:
    """Store what was found in a version."""
    url = storage.join(dataset.url, SETTLED, f"{settlement.content_digest()}.json")
    storage.publish_bytes(url, canonical_json(settlement.model_dump(mode="json")))


def read_settlement(url: str) -> Settlement:
    """A stored settlement.

    Raises:
        IntegrityError: it is of another release.
    """
    return Settlement.model_validate(_checked(url))


# Files are named by content, so the same names mean the same requests.
@lru_cache(maxsize=16)
def _register(root: str, names: tuple[str, ...]) -> Register:
    found = {name.removesuffix(".json"): _erasure(root, name.removesuffix(".json")) for name in names}
    return Register(root, dict(sorted(found.items(), key=lambda item: (item[1].at, item[0]))))


@lru_cache(maxsize=64)
def _erased_rows(root: str, name: str, names: tuple[str, ...]) -> ErasedRows:
    dataset = Dataset(root, name)
    return ErasedRows(dataset, [read_settlement(storage.join(dataset.url, SETTLED, one)) for one in names])


def _erasure(root: str, digest: str) -> Erasure:
    url = request_url(root, digest)
    erasure = Erasure.model_validate(_checked(url))
    if erasure.content_digest() != digest:
        raise IntegrityError(f"{url}: content hashes to {erasure.content_digest()}: a request was changed")
    return erasure


def _checked(url: str) -> object:
    body = json.loads(storage.read_bytes(url))
    if body.get("version") != ERASURE_VERSION:
        raise IntegrityError(f"{url}: version {body.get('version')!r}; this omnimill reads {ERASURE_VERSION}")
    return body
