"""Datasets: units, commits, shards, quarantine and manifests, the exactly-once contract.

Layout under any fsspec URL::

    <root>/<dataset>/commits/<unit>.<state>.json   one unit's outcome; written last, so a unit exists whole or not
                     commits/<unit>.<state>.<n>.json the same unit done again on demand, for the n-th time
                     shards/<digest>.arrow          rows, named by content
                     quarantine/<digest>.arrow      records that could not be read (`QUARANTINE_SCHEMA`)
                     drops/<digest>.arrow           records and examples that a rule turned down (`DROPS_SCHEMA`)
                     manifests/<digest>.json        every published version
                     manifest.json                  the current version

Nothing is ever overwritten except ``manifest.json``: a retry writes files of the same names and the same bytes.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
from blake3 import blake3
from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from omnimill.config import Config, canonical_json, digest_json
from omnimill.errors import IntegrityError, OmnimillError
from omnimill.infra import arrow_files, storage

MANIFEST_VERSION = 1
# Behind a manifest's commits there is little.
_HEAD_BYTES = 64 << 10

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        pa.field("operator", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("tries", pa.int32(), nullable=False),
        ("data", pa.large_binary()),
    ]
)

DROPS_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("level", pa.string(), nullable=False),  # "record" or "example"
        pa.field("operator", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


class Unit(Config):
    """The slice of a source that is read, committed and retried as one.

    files: URLs that hold the unit's bytes. options: what else the reader needs to find its slice (a row range, …).
    The id is a pure function of these, so listing the same source again gives the same units.
    """

    source: str
    files: tuple[str, ...]
    options: dict[str, Any] = Field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        return f"{self.source}-{digest_json([self.files, self.options])[:16]}"

    def __copy__(self) -> Unit:
        """Without the id, for a copy may get other values."""
        copied = super().__copy__()
        copied.__dict__.pop("id", None)
        return copied


class FileRef(Config):
    """A file this dataset holds: blake3 digest, rows, bytes."""

    digest: str
    rows: int
    bytes: int


class InputRef(Config):
    """A file that went into a unit, by content."""

    uri: str
    digest: str
    bytes: int


class Counts(Config):
    """The account of a unit or a dataset.

    Records balance: ``records_in = kept + sum(records_dropped) + sum(quarantined)``. A kept record was expanded
    into examples, and each of those was written or dropped.
    """

    records_in: int = 0
    kept: int = 0
    records_dropped: dict[str, int] = Field(default_factory=dict)
    quarantined: dict[str, int] = Field(default_factory=dict)
    examples_written: int = 0
    examples_dropped: dict[str, int] = Field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The shape that ``--json`` prints: ``{"records": {...}, "examples": {...}}``."""
        return {
            "records": {
                "in": self.records_in,
                "kept": self.kept,
                "dropped": self.records_dropped,
                "quarantined": self.quarantined,
            },
            "examples": {"written": self.examples_written, "dropped": self.examples_dropped},
        }

    def check(self, where: str) -> None:
        """Raise IntegrityError when the records do not balance."""
        out = self.kept + sum(self.records_dropped.values()) + sum(self.quarantined.values())
        if out != self.records_in:
            raise IntegrityError(f"{where}: {self.records_in} records went in but {out} are accounted for: {self}")


def total(counts: Iterable[Counts]) -> Counts:
    """The sum of accounts, reasons merged and sorted."""
    plain: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {
        "records_dropped": Counter(),
        "quarantined": Counter(),
        "examples_dropped": Counter(),
    }
    for one in counts:
        plain.update(records_in=one.records_in, kept=one.kept, examples_written=one.examples_written)
        for name, sums in reasons.items():
            sums.update(getattr(one, name))
    return Counts(**plain, **{name: dict(sorted(sums.items())) for name, sums in reasons.items()})


class Commit(Config):
    """What one unit became. Holds nothing that differs between two runs over the same input: no time or host.

    attempt: how often the unit was done again on demand, over the same input with the same recipe; written when not 0.
    """

    unit: str
    source: str
    recipe: str
    inputs: tuple[InputRef, ...]
    shards: tuple[FileRef, ...] = ()
    quarantine: FileRef | None = None
    drops: FileRef | None = None
    counts: Counts = Counts()
    attempt: int = 0

    @model_serializer(mode="wrap")
    def _without_a_first_attempt(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = dump(self)
        if not self.attempt:
            body.pop("attempt", None)
        return body

    @property
    def state(self) -> str:
        """Digest of what decides the outcome: the recipe and the inputs' content."""
        return digest_json([self.recipe, [ref.digest for ref in self.inputs]])[:16]

    @property
    def file_name(self) -> str:
        """What its file is called, without the ending."""
        attempt = f".{self.attempt}" if self.attempt else ""
        return f"{self.unit}.{self.state}{attempt}"


class _Stored(Config):
    """A commit's file."""

    commit: Commit
    observed: dict[str, Any]


class Manifest(Config):
    """One version of a dataset: its commits in a fixed order, and the versions it was made from.

    attributes: facts a reader needs that hold for the whole version (token layout, …).
    """

    version: int = MANIFEST_VERSION
    dataset: str
    kind: Literal["examples", "tokens", "answers"]
    parents: dict[str, str] = Field(default_factory=dict)
    attributes: dict[str, Any] = Field(default_factory=dict)
    commits: tuple[Commit, ...]

    @property
    def counts(self) -> Counts:
        return total(commit.counts for commit in self.commits)

    @property
    def rows(self) -> int:
        return sum(shard.rows for commit in self.commits for shard in commit.shards)


class ManifestHead(BaseModel):
    """What a manifest says before one looks at its commits; see `Manifest`."""

    dataset: str
    kind: Literal["examples", "tokens", "answers"]
    parents: dict[str, str] = Field(default_factory=dict)
    version: int


class _Version(BaseModel):
    """What can be read of a manifest of any version."""

    version: Any = None


def published_json(digest: str, manifest: Manifest, committed: int, seconds: float) -> dict[str, Any]:
    """The shape that commands which publish a version print with ``--json``; committed: units that this run did."""
    return {
        "manifest": digest,
        "dataset": manifest.dataset,
        "units": len(manifest.commits),
        "committed": committed,
        **manifest.counts.as_json(),
        "seconds": round(seconds, 3),
    }


class Dataset:
    """A named dataset under a root; see the module's text for its layout.

    Args:
        root: fsspec URL or path that holds datasets.
        name: the dataset's folder.
    """

    def __init__(self, root: str, name: str) -> None:
        self.root = root
        self.name = name
        self.url = storage.join(root, name)

    def publish_shard(self, table: pa.Table) -> FileRef:
        """Store rows under their content digest; a shard that no commit names does not exist for readers."""
        return self._publish(table, "shards")

    def publish_rejected(self, rows: pa.Table | None, folder: Literal["quarantine", "drops"]) -> FileRef | None:
        """Store rows of `QUARANTINE_SCHEMA` or `DROPS_SCHEMA`; None when there are none."""
        return self._publish(rows, folder) if rows is not None and rows.num_rows else None

    def _publish(self, table: pa.Table, folder: str) -> FileRef:
        digest, size = arrow_files.publish_table(table, storage.join(self.url, folder))
        return FileRef(digest=digest, rows=table.num_rows, bytes=size)

    def shard_url(self, ref: FileRef, folder: Literal["shards", "quarantine", "drops"] = "shards") -> str:
        return storage.join(self.url, folder, f"{ref.digest}.arrow")

    def read(self, ref: FileRef, folder: Literal["shards", "quarantine", "drops"] = "shards") -> pa.Table:
        """The rows of a shard, quarantine or drops file; memory-mapped when local."""
        return arrow_files.read_table(self.shard_url(ref, folder))

    def rejected(self, commit: Commit) -> Iterator[tuple[Literal["quarantined", "dropped"], pa.Table]]:
        """What a unit turned down: the verdict, and the rows of its quarantine and drops files, where it has them."""
        if commit.quarantine is not None:
            yield "quarantined", self.read(commit.quarantine, "quarantine")
        if commit.drops is not None:
            yield "dropped", self.read(commit.drops, "drops")

    def commit(self, commit: Commit, observed: Mapping[str, Any] | None = None) -> None:
        """Make a unit exist. `observed` (seconds, host, input marks) is kept beside the record, outside its digest."""
        commit.counts.check(f"unit {commit.unit}")
        body = {"commit": commit.model_dump(mode="json"), "observed": dict(observed or {})}
        storage.publish_bytes(self._commit_url(commit), canonical_json(body))

    def committed(self, commit: Commit) -> Commit | None:
        """The stored commit of the same unit, recipe, inputs and attempt; None when it has not come that far."""
        try:
            return _Stored.model_validate_json(storage.read_bytes(self._commit_url(commit))).commit
        except FileNotFoundError:
            return None

    def observed(self, commit: Commit) -> dict[str, Any]:
        """What was observed when a commit was made; empty when it is not there."""
        try:
            return _Stored.model_validate_json(storage.read_bytes(self._commit_url(commit))).observed
        except FileNotFoundError:
            return {}

    def _commit_url(self, commit: Commit) -> str:
        return storage.join(self.url, "commits", f"{commit.file_name}.json")

    def commits(self) -> list[tuple[Commit, dict[str, Any]]]:
        """Every commit with what was observed when it was made, of all versions, sorted by file name."""
        files = storage.read_folder(storage.join(self.url, "commits"), ".json")
        stored = (_Stored.model_validate_json(data) for _, data in files)
        return [(body.commit, body.observed) for body in stored]

    def publish_manifest(
        self,
        kind: Literal["examples", "tokens", "answers"],
        commits: Iterable[Commit],
        parents: Mapping[str, str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        current: bool = True,
    ) -> tuple[str, Manifest]:
        """Publish a version from commits (sorted here by source and unit) and make it the current one.

        A run that failed publishes with `current` False, so that what it left can be looked at by digest.

        Returns:
            The manifest's digest (64 hex digits) and the manifest.
        """
        manifest = Manifest(
            dataset=self.name,
            kind=kind,
            parents=dict(parents or {}),
            attributes=dict(attributes or {}),
            commits=tuple(sorted(commits, key=lambda commit: (commit.source, commit.unit))),
        )
        body = canonical_json(manifest.model_dump(mode="json"))
        digest = blake3(body).hexdigest()
        storage.publish_bytes(storage.join(self.url, "manifests", f"{digest}.json"), body)
        if current:
            storage.publish_bytes(storage.join(self.url, "manifest.json"), body)
        return digest, manifest

    def versions(self) -> list[str]:
        """Digests of all published versions, sorted."""
        names = storage.list_folder(storage.join(self.url, "manifests"))
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def manifest_url(self, digest: str | None = None) -> str:
        """Where a version is stored; the current one when no digest is given."""
        return storage.join(self.url, "manifest.json" if digest is None else f"manifests/{digest}.json")

    def manifest(self, digest: str | None = None) -> tuple[str, Manifest]:
        """The current version, or the one of a given digest, with its digest.

        Raises:
            OmnimillError: the dataset has no such version.
            IntegrityError: the stored version does not hash to its name or is of a version this program cannot read.
        """
        url = self.manifest_url(digest)
        try:
            body = storage.read_bytes(url)
        except FileNotFoundError:
            raise OmnimillError(f"no dataset {self.name!r} under {self.root}: {url} does not exist") from None
        found = blake3(body).hexdigest()
        if digest is not None and found != digest:
            raise IntegrityError(f"{url}: content hashes to {found}")
        # Keys are in order, so the last one is the version; parsing all for it would take as long as all.
        if not body.endswith(b'"version":%d}' % MANIFEST_VERSION):
            version = _Version.model_validate_json(body).version
            if version != MANIFEST_VERSION:
                raise IntegrityError(f"{url}: manifest version {version!r}; this omnimill reads {MANIFEST_VERSION}")
        return found, Manifest.model_validate_json(body)

    def manifest_head(self, digest: str) -> ManifestHead:
        """What the version with a digest is and was made from; reads its last bytes, which are not checked.

        Raises:
            OmnimillError: the dataset has no such version.
        """
        url = self.manifest_url(digest)
        try:
            with storage.open_read(url, _HEAD_BYTES) as stream:
                stream.seek(max(stream.seek(0, io.SEEK_END) - _HEAD_BYTES, 0))
                tail = stream.read()
        except FileNotFoundError:
            raise OmnimillError(f"no dataset {self.name!r} under {self.root}: {url} does not exist") from None
        # Keys are in order, and the list of commits is the last one.
        start = tail.rfind(b'],"dataset":')
        if start < 0:
            manifest = self.manifest(digest)[1]
            return ManifestHead.model_validate(manifest.model_dump(include=set(ManifestHead.model_fields)))
        return ManifestHead.model_validate_json(b"{" + tail[start + 2 :])
