"""Where data came from and where it went: walks MLflow's runs and the datasets' manifests, both ways.

Runs say which manifest was made from which; manifests say which shard holds which example and which input file it was
read from; indexes (``omnimill.infra.index``) say which rows a value names. What a training run consumed, and when, is
computed by ``omnimill.training.lineage.sightings``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from mlflow.entities import Run

from omnimill.errors import OmnimillError
from omnimill.infra import arrow_files, lineage, storage
from omnimill.infra.dataset import Commit, Dataset, FileRef, Manifest, ManifestHead
from omnimill.infra.descent import made_of
from omnimill.infra.index import Index, open_index
from omnimill.infra.index_segments import IndexedFile
from omnimill.infra.queries import Query, parse_query
from omnimill.rng import Int64s

DIGEST_CHARACTERS = 64
PUBLISHING, _LEARNING = ("ingest", "tokenize"), ("train", "merge")
# What the folders hold that a value may name too, and of it what is told.
_REJECTED = {"quarantine": "quarantined", "drops": "dropped"}
_REJECTION = ["key", "uri", "operator", "reason"]


class Version:
    """One version of a dataset.

    Args:
        run: that published it first; None when no run under this root did.
    """

    def __init__(self, dataset: Dataset, digest: str, run: str | None) -> None:
        self.dataset, self.digest, self.run = dataset, digest, run

    @cached_property
    def head(self) -> ManifestHead:
        """What it is and what it was made from."""
        return self.dataset.manifest_head(self.digest)

    @cached_property
    def manifest(self) -> Manifest:
        return self.dataset.manifest(self.digest)[1]

    @property
    def shards(self) -> Iterator[tuple[Commit, FileRef]]:
        return ((commit, shard) for commit in self.manifest.commits for shard in commit.shards)

    def find_shards(self, digests: Iterable[str]) -> list[tuple[Commit, FileRef]]:
        """Where shards have their places, by digest or the beginning of one."""
        wanted = list(digests)
        # Most versions of a long history lack what is looked for, and reading is quicker than parsing.
        if "manifest" not in self.__dict__:
            body = storage.read_bytes(self.dataset.manifest_url(self.digest))
            wanted = [one for one in wanted if one.encode() in body]
        if not wanted:
            return []
        found = []
        for digest in wanted:
            full = len(digest) == DIGEST_CHARACTERS
            names = [digest] if full else [name for name in self._by_shard if name.startswith(digest)]
            found += [place for name in names for place in self._by_shard.get(name, ())]
        return found

    @cached_property
    def _by_shard(self) -> dict[str, list[tuple[Commit, FileRef]]]:
        found: dict[str, list[tuple[Commit, FileRef]]] = {}
        for commit, ref in self.shards:
            found.setdefault(ref.digest, []).append((commit, ref))
        return found

    @cached_property
    def by_input(self) -> dict[str, list[Commit]]:
        """Commits that read a file, by its digest."""
        found: dict[str, list[Commit]] = {}
        for commit in self.manifest.commits:
            for ref in commit.inputs:
                found.setdefault(ref.digest, []).append(commit)
        return found

    @cached_property
    def rejected(self) -> frozenset[IndexedFile]:
        """Files of what was turned down."""
        return frozenset(
            IndexedFile(folder, ref.digest)
            for commit in self.manifest.commits
            for folder, ref in (("quarantine", commit.quarantine), ("drops", commit.drops))
            if ref is not None
        )


@dataclass(frozen=True)
class Rows:
    """Rows of one shard of a version. numbers: int64 [n], sorted, in the shard."""

    version: Version
    commit: Commit
    shard: FileRef
    numbers: Int64s

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells the shard from others, of other versions too."""
        return self.version.digest, self.commit.unit, self.shard.digest

    @cached_property
    def ids(self) -> list[str]:
        """Of the examples."""
        return self.column("id")

    def column(self, name: str) -> list[Any]:
        """Values of a column."""
        url = self.version.dataset.shard_url(self.shard)
        found: list[Any] = []
        for first, table in arrow_files.read_batches(url, self.numbers, (name,)):
            inside = (self.numbers >= first) & (self.numbers < first + table.num_rows)
            found += table.column(name).take(pa.array(self.numbers[inside] - first)).to_pylist()
        return found


@dataclass(frozen=True)
class Place:
    """A row of a version: the example's id and where it is stored."""

    version: Version
    commit: Commit
    shard: FileRef
    row: int
    id: str


@dataclass(frozen=True)
class Rejection:
    """A record or example of a version that was quarantined or dropped."""

    version: Version
    verdict: str
    key: str
    uri: str
    operator: str
    reason: str


class Catalog:
    """Everything recorded under one root. Reads lazily; make a new one to see newer runs."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._indexes: dict[str, Index] = {}

    @cached_property
    def runs(self) -> list[Run]:
        """Of every command, oldest first."""
        return lineage.runs(self.root)

    @cached_property
    def versions(self) -> list[Version]:
        """Every dataset version that a run published, oldest first; then those it was made from under other roots."""
        found: dict[str, Version] = {}
        read: dict[str, lineage.Reference] = {}
        for run in self._publishing:
            read |= {reference.digest: reference for reference in lineage.references(run, "input")}
            for reference in lineage.references(run, "output"):
                if reference.digest not in found:
                    found[reference.digest] = _version(reference, run.info.run_id)
        waiting = list(found.values())
        for version in waiting:
            for digest in version.head.parents.values():
                if digest in found or digest not in read:
                    continue
                parent = _version(read[digest], None)
                try:
                    _ = parent.head
                except OmnimillError:
                    continue  # it is gone, which matters to questions about it alone: see `version`
                found[digest] = parent
                waiting.append(parent)
        return list(found.values())

    def version(self, digest: str) -> Version:
        """The version with this manifest digest."""
        for version in self.versions:
            if version.digest == digest:
                return version
        raise OmnimillError(f"no run under {self.root} published or can read a dataset version {digest}")

    def made_from(self, digest: str) -> list[Version]:
        """Versions made from the version `digest`."""
        return [version for version in self.versions if digest in version.head.parents.values()]

    def training_runs(self, digest: str) -> list[Run]:
        """Training runs that read the token version `digest`."""
        runs = lineage.runs(self.root, "train", reading=digest)
        return [run for run in runs if any(ref.digest == digest for ref in lineage.references(run, "input"))]

    def made_of_weights(self, digest: str) -> list[lineage.Reference]:
        """Checkpoints of runs that started from the weights of this digest, those that were merged from it, and what
        was made of these in turn; each once, by digest."""
        found: dict[str, lineage.Reference] = {}
        waiting = [digest]
        while waiting:
            own = waiting.pop()
            for run in (run for command in _LEARNING for run in lineage.runs(self.root, command, reading=own)):
                if any(reference.digest == own for reference in lineage.references(run, "input")):
                    made = [one for one in lineage.references(run, "output") if one.digest not in found]
                    found |= {one.digest: one for one in made}
                    waiting += [one.digest for one in made]
        return list(found.values())

    def shard(self, digest: str) -> list[tuple[Version, Commit, FileRef]]:
        """Every place a shard of this digest (or a prefix of it) has in a version."""
        return [(version, commit, ref) for version in self.versions for commit, ref in version.find_shards([digest])]

    def index(self, version: Version) -> Index:
        """The index of a version's dataset, in which all versions of it are covered."""
        url = version.dataset.url
        if url not in self._indexes:
            digests = [one.digest for one in self.versions if one.dataset.url == url]
            self._indexes[url] = open_index(version.dataset, digests)
        return self._indexes[url]

    @cached_property
    def _publishing(self) -> list[Run]:
        found = [run for command in PUBLISHING for run in lineage.runs(self.root, command)]
        return sorted(found, key=lambda run: run.info.start_time)


def _version(reference: lineage.Reference, run: str | None) -> Version:
    return Version(Dataset(*reference.url.rstrip("/").rsplit("/", 1)), reference.digest, run)


def find_rows(catalog: Catalog, query: Query) -> list[Rows]:
    """Rows of examples that a query means, exactly, shard by shard.

    When neither an example nor a rejection names a file itself, the units that read it answer for all their examples (a
    captions file, an archive).
    """
    found: list[Rows] = []
    for version in catalog.versions:
        if version.head.kind != "examples":
            continue
        named = list(_named(catalog, version, query))
        if not named and query.kind == "value" and not _rejections(catalog, version, query):
            named = list(_read_by_units(catalog, version, query))
        found += named
    return found


def count_rows(catalog: Catalog, query: Query) -> list[tuple[Version, Commit, FileRef, int]]:
    """Shards of examples with rows of a domain, licence or source, and how many; from indexes and manifests alone."""
    found = []
    for version in catalog.versions:
        if version.head.kind == "examples":
            counts = _counts(catalog, version, query)
            found += [
                (version, commit, ref, counts(commit, ref)) for commit, ref in version.shards if counts(commit, ref)
            ]
    return found


def _counts(catalog: Catalog, version: Version, query: Query) -> Callable[[Commit, FileRef], int]:
    if query.kind == "source":
        return lambda commit, ref: ref.rows if commit.source == query.name else 0
    index = catalog.index(version)
    if query.kind == "domain":
        counts = {file.name: rows for file, rows in index.domain(query.name).items() if file.folder == "shards"}
    else:
        counts = {file.name: found.get(query.name, 0) for file, found in index.licences().items()}
    return lambda _, ref: counts.get(ref.digest, 0)


def _named(catalog: Catalog, version: Version, query: Query) -> Iterator[Rows]:
    """Rows that name what is asked for."""
    if query.kind == "value":
        hits = _in_shards(catalog.index(version).find(query.values))
        likely = [(commit, ref, hits[ref.digest]) for commit, ref in version.find_shards(hits)]
    else:
        counts = _counts(catalog, version, query)
        likely = [(commit, ref, np.arange(ref.rows)) for commit, ref in version.shards if counts(commit, ref)]
    for commit, ref, rows in likely:
        numbers = _matching(version.dataset.shard_url(ref), rows, query)
        if len(numbers):
            yield Rows(version, commit, ref, numbers)


def _matching(url: str, likely: Int64s, query: Query) -> Int64s:
    """Rows of a shard that are meant, among those of batches that hold likely ones."""
    parts = [first + query.rows(table) for first, table in arrow_files.read_batches(url, likely)]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _read_by_units(catalog: Catalog, version: Version, query: Query) -> Iterator[Rows]:
    """All rows of units that read a file."""
    hits = [file.name for file in catalog.index(version).find(query.values) if file.folder == "inputs"]
    for commit in version.manifest.commits if hits else ():
        if any(name.startswith(f"{commit.unit}.") for name in hits) and any(
            query.address(item.uri) or item.digest in query.digests for item in commit.inputs
        ):
            for ref in commit.shards:
                yield Rows(version, commit, ref, np.arange(ref.rows))


def find_examples(catalog: Catalog, text: str) -> list[Place]:
    """Examples that a query means, one by one; see :func:`find_rows`.

    A file that exists is also found by its content, wherever it lay when it was ingested.
    """
    return [place for rows in find_rows(catalog, parse_query(text)) for place in places(rows)]


def places(rows: Rows) -> list[Place]:
    """Rows one by one."""
    return [
        Place(rows.version, rows.commit, rows.shard, number, id_)
        for number, id_ in zip(rows.numbers.tolist(), rows.ids, strict=True)
    ]


def find_derived(catalog: Catalog, found: Sequence[Rows]) -> list[Rows]:
    """Examples that were made from these, and from those again: of versions that read the version of a row."""
    derived: dict[tuple[str, str, str], Rows] = {}
    waiting = list(found)
    while waiting:
        made = [
            rows
            for parent in waiting
            for version in catalog.made_from(parent.version.digest)
            if version.head.kind == "examples"
            for commit in version.by_input.get(parent.shard.digest, ())
            for rows in _made_of(version, commit, parent)
        ]
        waiting = []
        for rows in made:
            before = derived.get(rows.key)
            numbers = rows.numbers if before is None else np.union1d(before.numbers, rows.numbers)
            if before is None or len(numbers) > len(before.numbers):
                derived[rows.key] = Rows(rows.version, rows.commit, rows.shard, numbers)
                waiting.append(rows)
    return list(derived.values())


def _made_of(version: Version, commit: Commit, parent: Rows) -> Iterator[Rows]:
    """Rows of a commit that come from rows of a shard that it read."""
    table = parent.version.dataset.read(parent.shard)
    for ref in commit.shards:
        if numbers := made_of(table, set(parent.numbers.tolist()), version.dataset.read(ref)):
            yield Rows(version, commit, ref, np.array(numbers))


def find_tokens(catalog: Catalog, found: Sequence[Rows]) -> list[Rows]:
    """Token rows that were made from rows of examples."""
    tokens: dict[tuple[str, str, str], Rows] = {}
    parents: dict[str, list[Rows]] = {}
    for rows in found:
        parents.setdefault(rows.version.digest, []).append(rows)
    for digest, group in parents.items():
        for version in catalog.made_from(digest):
            if version.head.kind == "tokens":
                for rows in _tokens_of(catalog, version, group):
                    tokens.setdefault(rows.key, rows)
    return list(tokens.values())


def _tokens_of(catalog: Catalog, version: Version, group: Sequence[Rows]) -> Iterator[Rows]:
    for rows in group:
        commits = version.by_input.get(rows.shard.digest)
        if commits is None:  # its units do not say what they read
            yield from find_ids(catalog, version, rows.ids)
            continue
        wanted = pa.array(rows.ids, pa.string())
        for commit in commits:
            for ref in commit.shards:
                own = Rows(version, commit, ref, np.arange(ref.rows))
                held = np.array(pc.is_in(pa.array(own.ids, pa.string()), wanted), np.bool_)
                if held.any():
                    yield Rows(version, commit, ref, np.flatnonzero(held))


def find_ids(catalog: Catalog, version: Version, ids: Iterable[str]) -> list[Rows]:
    """Rows of a version that hold these example ids."""
    wanted = set(ids)
    found = []
    hits = _in_shards(catalog.index(version).find(wanted))
    for commit, ref in version.find_shards(hits):
        likely = Rows(version, commit, ref, hits[ref.digest])
        held = np.array([one in wanted for one in likely.ids], np.bool_)
        if held.any():
            found.append(Rows(version, commit, ref, likely.numbers[held]))
    return found


def _in_shards(hits: Mapping[IndexedFile, Int64s]) -> dict[str, Int64s]:
    """Of what an index finds, rows of shards, by the shards' digests."""
    return {file.name: rows for file, rows in hits.items() if file.folder == "shards"}


def find_rejections(catalog: Catalog, query: Query) -> list[Rejection]:
    """What was quarantined or dropped from a file or URL, or under a key."""
    return [rejection for version in catalog.versions for rejection in _rejections(catalog, version, query)]


def _rejections(catalog: Catalog, version: Version, query: Query) -> list[Rejection]:
    """Rejections that a value names; of domains, licences and sources the accounts of units tell."""
    if query.kind != "value":
        return []
    hits = catalog.index(version).find(query.values)
    found = []
    for file, numbers in hits.items():
        if file.folder in _REJECTED and file in version.rejected:
            url = storage.join(version.dataset.url, file.folder, f"{file.name}.arrow")
            for _, table in arrow_files.read_batches(url, numbers):
                for row in table.select(_REJECTION).take(pa.array(query.rows(table))).to_pylist():
                    found.append(Rejection(version, _REJECTED[file.folder], **row))
    return found


def describe_shard(rows: Rows) -> dict[str, Any]:
    """Where rows lie, as JSON."""
    return {
        "dataset": rows.version.dataset.name,
        "kind": rows.version.head.kind,
        "manifest": rows.version.digest,
        "source": rows.commit.source,
        "unit": rows.commit.unit,
        "shard": rows.shard.digest,
        "url": rows.version.dataset.shard_url(rows.shard),
    }
