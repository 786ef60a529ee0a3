"""What the data turned out to be: languages, facts that sources and operators noted, and what selections left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow.compute as pc

from omnimill.infra.dataset import Dataset, FileRef, Manifest
from omnimill.infra.report.samples import thumbnail
from omnimill.infra.selections import Selection, current_selections, left_out

_EXAMPLES = 3
# Facts are shown that sort examples into so many kinds at most, of at least so many examples on average.
_TAG_VALUES = 12
_TAG_EXAMPLES = 4
_MISLABELLED = "mislabelled"
_MISLABELLED_SHOWN = 20
_CLUSTERS = 8
_CLUSTER_PICTURES = 6
_FILE_PAIRS = 12


@dataclass(frozen=True)
class Tag:
    """A fact that `count` examples of a source share, with the keys of a few of them."""

    source: str
    name: str
    value: str
    count: int
    keys: list[str]


@dataclass(frozen=True)
class Member:
    """A row by its place: the example's id, key, source, and the file that it was read from."""

    id: str
    key: str
    source: str
    uri: str


@dataclass(frozen=True)
class Cluster:
    """An example that is kept in the place of others. pictures: data URLs with captions, of the kept one first."""

    kept: Member
    others: list[Member]
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
    """One selection. reasons: (step, reason, count)."""

    name: str
    digest: str
    kept: int
    reasons: list[tuple[str, str, int]]
    pairs: list[FilePair]
    clusters: list[Cluster]


@dataclass(frozen=True)
class Findings:
    """What is worth knowing about a version besides its accounts.

    languages: examples by language, by source. mislabelled: files whose content is not what their name says.
    """

    languages: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    mislabelled: list[Tag] = field(default_factory=list)
    tags: list[Tag] = field(default_factory=list)
    selections: list[SelectionCard] = field(default_factory=list)


def findings(dataset: Dataset, digest: str, manifest: Manifest) -> Findings:
    """Read the small columns of every shard of a version, and its current selections."""
    languages: dict[str, Counter[str]] = {}
    tagged: dict[tuple[str, str, str], list[str]] = {}
    for commit in manifest.commits:
        for ref in commit.shards:
            table = dataset.read(ref).select(["key", "meta"])
            meta = table.column("meta")
            found = pc.value_counts(pc.struct_field(meta, "language")).to_pylist()
            languages.setdefault(commit.source, Counter()).update({one["values"]: one["counts"] for one in found})
            for key, tags in zip(
                table.column("key").to_pylist(), pc.struct_field(meta, "tags").to_pylist(), strict=True
            ):
                for name, value in tags or ():
                    tagged.setdefault((commit.source, name, value), []).append(key)
    return Findings(
        languages={
            source: [(language or "not known", count) for language, count in counts.most_common()]
            for source, counts in sorted(languages.items())
            if set(counts) - {None}
        },
        mislabelled=_tags(
            {which: keys for which, keys in tagged.items() if which[1] == _MISLABELLED}, _MISLABELLED_SHOWN
        ),
        tags=_tags(_telling(tagged), _EXAMPLES),
        selections=[
            _selection_card(dataset, manifest, name, selection)
            for name, selection in current_selections(dataset, digest)
        ],
    )


def _tags(tagged: Mapping[tuple[str, str, str], Sequence[str]], shown: int) -> list[Tag]:
    return [
        Tag(source, name, value, len(keys), sorted(keys)[:shown])
        for (source, name, value), keys in sorted(tagged.items(), key=lambda item: (*item[0][:2], -len(item[1])))
    ]


def _telling(tagged: Mapping[tuple[str, str, str], Sequence[str]]) -> dict[tuple[str, str, str], Sequence[str]]:
    """The tags that group examples: one with a value of its own for nearly every example tells a reader nothing."""
    values: Counter[tuple[str, str]] = Counter()
    examples: Counter[tuple[str, str]] = Counter()
    for (source, name, _), keys in tagged.items():
        values[source, name] += 1
        examples[source, name] += len(keys)
    return {
        (source, name, value): keys
        for (source, name, value), keys in tagged.items()
        if name != _MISLABELLED
        and values[source, name] <= _TAG_VALUES
        and examples[source, name] >= _TAG_EXAMPLES * values[source, name]
    }


def _selection_card(dataset: Dataset, manifest: Manifest, digest: str, selection: Selection) -> SelectionCard:
    rows = [row for part in selection.shards for row in left_out(dataset, part.file).to_pylist()]
    members, sizes, places = _members(dataset, manifest, {row["id"] for row in rows} | {row["twin"] for row in rows})
    reasons = Counter((row["step"], row["reason"]) for row in rows)
    pairs: Counter[tuple[str, str]] = Counter()
    clusters: dict[str, list[tuple[Member, str, str]]] = {}
    for row in rows:
        member, twin = members[row["id"]], members.get(row["twin"])
        if twin is None:
            continue
        clusters.setdefault(twin.id, []).append((member, row["step"], row["reason"]))
        if member.uri != twin.uri:
            pairs[member.uri, twin.uri] += 1
    largest = sorted(clusters.items(), key=lambda item: (-len(item[1]), item[0]))[:_CLUSTERS]
    return SelectionCard(
        name=selection.name,
        digest=digest,
        kept=selection.kept,
        reasons=[(*key, count) for key, count in reasons.most_common()],
        pairs=[
            FilePair(*files, count, sizes[files[0]]) for files, count in pairs.most_common(_FILE_PAIRS) if count > 1
        ],
        clusters=[
            Cluster(
                kept=members[kept],
                others=[member for member, _, _ in others],
                step=others[0][1],
                reason=others[0][2],
                pictures=list(_pictures(dataset, places, [members[kept], *(member for member, _, _ in others)])),
            )
            for kept, others in largest
        ],
    )


def _members(
    dataset: Dataset, manifest: Manifest, ids: set[str]
) -> tuple[dict[str, Member], Counter[str], dict[str, tuple[FileRef, int]]]:
    """Rows by id as far as they are asked for, how many rows every file has, and where the rows are stored."""
    members: dict[str, Member] = {}
    sizes: Counter[str] = Counter()
    places: dict[str, tuple[FileRef, int]] = {}
    for commit in manifest.commits:
        for ref in commit.shards:
            table = dataset.read(ref).select(["id", "key", "provenance"])
            uris = pc.struct_field(table.column("provenance"), "uri").to_pylist()
            sizes.update(uris)
            keys = table.column("key").to_pylist()
            for row, id_ in enumerate(table.column("id").to_pylist()):
                if id_ in ids:
                    members[id_] = Member(id_, keys[row], commit.source, uris[row])
                    places[id_] = (ref, row)
    return members, sizes, places


def _pictures(
    dataset: Dataset, places: dict[str, tuple[FileRef, int]], members: list[Member]
) -> Iterator[tuple[str, str]]:
    for member in members[:_CLUSTER_PICTURES]:
        ref, row = places[member.id]
        images = dataset.read(ref).column("images")[row]
        if len(images):
            yield thumbnail(images[0]["data"].as_py()), member.key
