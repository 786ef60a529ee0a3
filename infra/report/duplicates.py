"""What the selections of a version left out, and the groups of examples that they took for one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from omnimill import rng
from omnimill.infra import arrow_files, storage
from omnimill.infra.arrow_files import BATCH_ROWS
from omnimill.infra.dataset import Dataset, FileRef, Manifest
from omnimill.infra.erasures import ErasedRows
from omnimill.infra.index import open_index
from omnimill.infra.index_keys import plain_address
from omnimill.infra.report.media import thumbnail
from omnimill.infra.report.sampled import MOST_FILES
from omnimill.infra.report.samples import read_example
from omnimill.infra.selections import Selection, current_selections, left_out

_CLUSTERS = 8
_CLUSTER_PICTURES = 6
_CLUSTER_MEMBERS = 8
_FILE_PAIRS = 12
# Rows whose files are compared: every one is read by itself.
_PAIRED_LOCAL, _PAIRED_REMOTE = 2000, 100
_COLUMNS = ["id", "step", "reason", "twin"]


@dataclass(frozen=True)
class Member:
    """A row by its place: the example's id, key, source, and the file that it was read from."""

    id: str
    key: str
    source: str
    uri: str


@dataclass(frozen=True)
class Cluster:
    """An example that is kept in the place of others.

    others: the first of `count`. pictures: data URLs with captions, of the kept one first.
    """

    kept: Member
    others: list[Member]
    count: int
    step: str
    reason: str
    pictures: list[tuple[str, str]]


@dataclass(frozen=True)
class FilePair:
    """So many rows of `file` are left out for rows of `kept`, which is another file, out of `rows` in all."""

    file: str
    kept: str
    count: int
    rows: int


@dataclass(frozen=True)
class SelectionCard:
    """One selection.

    reasons: (reason, count) of the whole version. looked_at: for how many of those left out files were sought;
    empty: for all.
    """

    name: str
    digest: str
    kept: int
    reasons: list[tuple[str, int]]
    looked_at: str
    pairs: list[FilePair]
    clusters: list[Cluster]


def selection_cards(dataset: Dataset, digest: str, manifest: Manifest, erased: ErasedRows) -> list[SelectionCard]:
    """The current selections that judged a version."""
    return [
        _card(dataset, manifest, erased, name, selection) for name, selection in current_selections(dataset, digest)
    ]


def _card(dataset: Dataset, manifest: Manifest, erased: ErasedRows, digest: str, selection: Selection) -> SelectionCard:
    parts = list(selection.shards)
    if len(parts) > MOST_FILES:
        parts = sorted(parts, key=lambda part: rng.digest64("report", part.shard))[:MOST_FILES]
    rows = [row for part in parts for row in left_out(dataset, part.file).select(_COLUMNS).to_pylist()]
    dropped = sum(selection.dropped.values())
    twins = [row for row in rows if row["twin"] is not None]
    clusters: dict[str, list[dict[str, str]]] = {}
    for row in twins:
        clusters.setdefault(row["twin"], []).append(row)
    largest = sorted(clusters.items(), key=lambda item: (-len(item[1]), item[0]))[:_CLUSTERS]
    paired = twins[:: max(1, -(-len(twins) // (_PAIRED_LOCAL if storage.is_local(dataset.url) else _PAIRED_REMOTE)))]
    wanted = {row["id"] for row in paired} | {row["twin"] for row in paired}
    for kept, others in largest:
        wanted |= {kept, *(row["id"] for row in others[:_CLUSTER_MEMBERS])}
    places = _Places(dataset, selection.manifest, manifest, erased, wanted)
    return SelectionCard(
        name=selection.name,
        digest=digest,
        kept=selection.kept,
        reasons=sorted(selection.dropped.items(), key=lambda item: (-item[1], item[0])),
        looked_at="" if len(paired) == len(twins) and len(rows) == dropped else f"{len(paired):,} of {dropped:,}",
        pairs=_pairs(places, paired),
        clusters=[one for kept, others in largest if (one := _cluster(places, kept, others)) is not None],
    )


def _pairs(places: _Places, rows: Sequence[dict[str, str]]) -> list[FilePair]:
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        member, twin = places.members.get(row["id"]), places.members.get(row["twin"])
        if member and twin and member.uri != twin.uri:
            found[member.uri, twin.uri] += 1
    return [
        FilePair(*files, count, places.rows_of(files[0]))
        for files, count in found.most_common(_FILE_PAIRS)
        if count > 1
    ]


def _cluster(places: _Places, kept: str, others: Sequence[dict[str, str]]) -> Cluster | None:
    """None: the kept example is in another dataset, or erased."""
    members = [places.members[row["id"]] for row in others[:_CLUSTER_MEMBERS] if row["id"] in places.members]
    if kept not in places.members:
        return None
    shown = [places.members[kept], *members]
    return Cluster(shown[0], members, len(others), others[0]["step"], others[0]["reason"], list(places.pictures(shown)))


class _Places:
    """What the rows with some ids are, found by the dataset's index; erased ones are not found."""

    def __init__(self, dataset: Dataset, digest: str, manifest: Manifest, erased: ErasedRows, ids: set[str]) -> None:
        self._dataset, self._erased = dataset, erased
        self._index = open_index(dataset, [digest])
        self._shards = {ref.digest: (commit.source, ref) for commit in manifest.commits for ref in commit.shards}
        self.members: dict[str, Member] = {}
        self._stored: dict[str, tuple[FileRef, int, int]] = {}
        for source, ref, row in self._found(sorted(ids)):
            batch, place = divmod(row, BATCH_ROWS)
            with arrow_files.open_batches(dataset.shard_url(ref)) as reader:
                rows = reader.get_batch(batch)
                id_ = rows.column("id")[place].as_py()
                if id_ in ids:
                    uri = rows.column("provenance")[place]["uri"].as_py()
                    self.members[id_] = Member(id_, rows.column("key")[place].as_py(), source, uri)
                    self._stored[id_] = (ref, batch, place)

    def rows_of(self, uri: str) -> int:
        """How many rows were made of a file."""
        return sum(1 for _ in self._found([plain_address(uri)]))

    def pictures(self, members: Sequence[Member]) -> Iterator[tuple[str, str]]:
        """The first picture of each, with its key."""
        for member in members[:_CLUSTER_PICTURES]:
            images = read_example(self._dataset, *self._stored[member.id]).images
            if images:
                yield thumbnail(images[0].data), member.key

    def _found(self, values: Sequence[str]) -> Iterator[tuple[str, FileRef, int]]:
        """(source, shard, row) of what is probably meant, in the version."""
        for file, rows in self._index.find(values).items():
            if file.folder == "shards" and file.name in self._shards:
                source, ref = self._shards[file.name]
                left = np.setdiff1d(rows, self._erased.rows(ref.digest))
                yield from ((source, ref, row) for row in left.tolist())
