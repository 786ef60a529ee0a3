"""Where data came from and where it went: walks MLflow's runs and the datasets' manifests, both ways.

Runs say which manifest was made from which; manifests say which shard holds which example and which input file it was
read from. What a training run consumed, and when, is replayed by ``omnimill.training.replay``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from mlflow.entities import Run

from omnimill.errors import OmnimillError
from omnimill.infra import lineage, storage
from omnimill.infra.dataset import Commit, Dataset, FileRef, Manifest

_EXAMPLE_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MEDIA = ("images", "audio")


@dataclass(frozen=True)
class Version:
    """One version of a dataset and the run that published it first; None when no run under this root did."""

    dataset: Dataset
    digest: str
    manifest: Manifest
    run: str | None

    @property
    def shards(self) -> Iterator[tuple[Commit, FileRef]]:
        return ((commit, shard) for commit in self.manifest.commits for shard in commit.shards)


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

    @cached_property
    def runs(self) -> list[Run]:
        return lineage.runs(self.root)

    @cached_property
    def versions(self) -> list[Version]:
        """Every dataset version that a run published, oldest first; then those it was made from under other roots."""
        found: dict[str, Version] = {}
        read: dict[str, lineage.Reference] = {}
        for run in self.runs:
            if run.data.tags.get("omnimill.command") not in ("ingest", "tokenize"):
                continue
            read |= {reference.digest: reference for reference in lineage.references(run, "input")}
            for reference in lineage.references(run, "output"):
                if reference.digest not in found:
                    found[reference.digest] = _version(reference, run.info.run_id)
        waiting = list(found.values())
        for version in waiting:
            for digest in version.manifest.parents.values():
                if digest in found or digest not in read:
                    continue
                try:
                    found[digest] = _version(read[digest], None)
                except OmnimillError:
                    continue  # it is gone, which matters to questions about it alone: see `version`
                waiting.append(found[digest])
        return list(found.values())

    def version(self, digest: str) -> Version:
        """The version with this manifest digest."""
        for version in self.versions:
            if version.digest == digest:
                return version
        raise OmnimillError(f"no run under {self.root} published or can read a dataset version {digest}")

    def made_from(self, digest: str) -> list[Version]:
        """Versions made from the version `digest`."""
        return [version for version in self.versions if digest in version.manifest.parents.values()]

    def training_runs(self, digest: str) -> list[Run]:
        """Training runs that read the token version `digest`."""
        train = (run for run in self.runs if run.data.tags.get("omnimill.command") == "train")
        return [run for run in train if any(ref.digest == digest for ref in lineage.references(run, "input"))]

    def shard(self, digest: str) -> list[tuple[Version, Commit, FileRef]]:
        """Every place a shard of this digest (or a prefix of it) has in a version."""
        found = ((version, commit, ref) for version in self.versions for commit, ref in version.shards)
        return [hit for hit in found if hit[2].digest.startswith(digest)]


def _version(reference: lineage.Reference, run: str | None) -> Version:
    dataset = Dataset(*reference.url.rstrip("/").rsplit("/", 1))
    _, manifest = dataset.manifest(reference.digest)
    return Version(dataset, reference.digest, manifest, run)


def looks_like_example_id(query: str) -> bool:
    return bool(_EXAMPLE_ID.fullmatch(query))


def looks_like_digest(query: str) -> bool:
    return bool(_DIGEST.fullmatch(query))


def find_examples(catalog: Catalog, query: str) -> list[Place]:
    """Examples that a file, URL, content digest or example id went into.

    A file that exists is also found by its content, wherever it lay when it was ingested. When neither an example nor a
    rejection names the file itself, the units that read it answer for all their examples (a captions file, an archive).
    """
    match = _Match(query)
    places: list[Place] = []
    for version in catalog.versions:
        if version.manifest.kind != "examples":
            continue
        found = [place for commit, ref in version.shards for place in _places(version, commit, ref, match)]
        if not found and not _rejections(version, match):
            found = [
                Place(version, commit, ref, row, id_)
                for commit, ref in version.shards
                if any(match.uri(item.uri) or item.digest in match.digests for item in commit.inputs)
                for row, id_ in enumerate(version.dataset.read(ref).column("id").to_pylist())
            ]
        places += found
    return places


def find_derived(catalog: Catalog, places: Sequence[Place]) -> list[Place]:
    """Examples that were made from these, and from those again: of versions that read the version of a place.

    A row belongs to the example whose id or key it has for its key, or else to those whose media it shows.
    """
    found: dict[tuple[str, str, int], Place] = {}
    waiting = list(places)
    while waiting:
        parents: dict[tuple[str, str], list[Place]] = {}
        for place in waiting:
            parents.setdefault((place.version.digest, place.shard.digest), []).append(place)
        made = (
            place
            for (digest, shard), group in parents.items()
            for version in catalog.made_from(digest)
            if version.manifest.kind == "examples"
            for commit in version.manifest.commits
            if any(ref.digest == shard for ref in commit.inputs)
            for place in _made_of(version, commit, group)
        )
        new = {(place.version.digest, place.shard.digest, place.row): place for place in made}
        waiting = [place for key, place in new.items() if key not in found]
        found |= new
    return list(found.values())


def _made_of(version: Version, commit: Commit, group: Sequence[Place]) -> Iterator[Place]:
    """Rows of a commit that come from places of one shard."""
    parent = group[0].version.dataset.read(group[0].shard)
    rows = {place.row for place in group}
    names = {name for column in ("id", "key") for name in parent.column(column).to_pylist()}
    wanted = {parent.column(column)[row].as_py() for column in ("id", "key") for row in rows}
    digests = {digest for row, digest in _media_digests(parent) if digest and row in rows}
    for ref in commit.shards:
        table = version.dataset.read(ref)
        shown = {row for row, digest in _media_digests(table) if digest in digests}
        for row, (id_, key) in enumerate(zip(*(table.column(name).to_pylist() for name in ("id", "key")), strict=True)):
            if key in wanted if key in names else row in shown:
                yield Place(version, commit, ref, row, id_)


def _media_digests(table: pa.Table) -> Iterator[tuple[int, str]]:
    """(row, digest) of every picture and clip; reads no medium."""
    for name in _MEDIA:
        column = table.column(name)
        digests = pc.struct_field(pc.list_flatten(column), "digest")
        yield from zip(pc.list_parent_indices(column).to_pylist(), digests.to_pylist(), strict=True)


def find_rejections(catalog: Catalog, query: str) -> list[Rejection]:
    """What was quarantined or dropped from a file or URL."""
    match = _Match(query)
    return [rejection for version in catalog.versions for rejection in _rejections(version, match)]


def _rejections(version: Version, match: _Match) -> list[Rejection]:
    found = []
    for commit in version.manifest.commits:
        for verdict, table in version.dataset.rejected(commit):
            for row in table.select(["key", "uri", "operator", "reason"]).to_pylist():
                if match.uri(row["uri"]):
                    found.append(Rejection(version, verdict, **row))
    return found


def find_rows(version: Version, ids: Sequence[str]) -> list[Place]:
    """Rows of a version that hold these example ids."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    places = []
    for commit, ref in version.shards:
        column = version.dataset.read(ref).column("id")
        for row in _true_rows(pc.is_in(column, wanted)):
            places.append(Place(version, commit, ref, row, column[row].as_py()))
    return places


class _Match:
    """Whether a stored uri or digest is what the query means."""

    def __init__(self, query: str) -> None:
        self.query = query
        self.absolute = _absolute(query)
        self.digests = {query} if looks_like_digest(query) or looks_like_example_id(query) else set()
        if Path(query).is_file():
            self.digests.add(storage.digest_file(query))

    def uri(self, uri: str | None) -> bool:
        return uri is not None and (uri == self.query or _absolute(uri) == self.absolute)

    def uris(self, column: pa.ChunkedArray) -> list[int]:
        """Row numbers of a string column that match; each distinct value is looked at once."""
        encoded = column.combine_chunks().dictionary_encode()
        hits = pa.array([i for i, uri in enumerate(encoded.dictionary.to_pylist()) if self.uri(uri)], pa.int32())
        return _true_rows(pc.is_in(encoded.indices, hits))

    def values(self, column: pa.ChunkedArray) -> list[int]:
        wanted = pa.array(sorted(self.digests), pa.string())
        return _true_rows(pc.is_in(column, wanted))


def _true_rows(mask: pa.ChunkedArray | pa.Array) -> list[int]:
    # pyarrow 25's indices_nonzero crashes the process on a chunked array that has no chunk.
    return np.flatnonzero(mask.to_numpy(zero_copy_only=False)).tolist()  # type: ignore[no-any-return]


def _absolute(uri: str) -> str:
    if "://" in uri and not uri.startswith("file://"):
        return uri
    return str(Path(uri.removeprefix("file://")).resolve())


def _places(version: Version, commit: Commit, ref: FileRef, match: _Match) -> Iterator[Place]:
    table = version.dataset.read(ref)
    rows = set(match.values(table.column("id")))
    provenance, meta, video = (table.column(name) for name in ("provenance", "meta", "video"))
    rows.update(match.uris(pc.struct_field(provenance, "uri")), match.values(pc.struct_field(provenance, "digest")))
    rows.update(match.uris(pc.struct_field(meta, "url")))
    rows.update(match.uris(pc.struct_field(video, "uri")), match.values(pc.struct_field(video, "digest")))
    for name in _MEDIA:
        column = table.column(name)
        owners = pc.list_parent_indices(column)
        items = pc.list_flatten(column)
        for position in match.uris(pc.struct_field(items, "uri")) + match.values(pc.struct_field(items, "digest")):
            rows.add(owners[position].as_py())
    ids = table.column("id")
    return (Place(version, commit, ref, row, ids[row].as_py()) for row in sorted(rows))
