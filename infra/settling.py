"""Looks versions of datasets through for what requests erase. A version is looked through once for each request.

Rows are found by a request's rules, and by what they were made from: token rows and derived examples of an erased
example are erased with it. Which shards are worth a look says the dataset's index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnimill.infra import arrow_files, storage
from omnimill.infra.dataset import Dataset, FileRef, Manifest
from omnimill.infra.descent import made_of
from omnimill.infra.erasure_rules import Rules, RuleValues
from omnimill.infra.erasures import REASON, ErasedRows, Settlement, erased_rows, publish_settlement, register
from omnimill.infra.index import Index, open_index
from omnimill.infra.selections import LeftOut, left_out, publish_left_out
from omnimill.rng import Int64s

_THREADS = 4
_STEP = "erase"
_NONE = np.empty(0, np.int64)


def settled(dataset: Dataset, digest: str, manifest: Manifest) -> ErasedRows:
    """What is erased of a version of a dataset, by every request that is in force under its root.

    For what it was not looked through yet, it is now; that is written down. What was found once stays erased, wherever
    the dataset is copied to, with its requests or without them.

    Args:
        digest: of the version.
    """
    if manifest.kind == "answers":
        return ErasedRows(dataset, ())
    requests = register(dataset.root).erasures
    known = erased_rows(dataset)
    missing = [request for request in requests if request not in known.looked_for.get(digest, ())]
    if missing:
        parents = list(_settled_parents(dataset, manifest))
        index = open_index(dataset, [digest])
        found = {
            request: tuple(_lost(dataset, manifest, index, request, requests[request].rules, parents, known))
            for request in missing
        }
        publish_settlement(dataset, Settlement(dataset=dataset.name, manifest=digest, left_out=found))
        known = erased_rows(dataset)
    return known


def find(dataset: Dataset, digest: str, manifest: Manifest, rules: RuleValues) -> Iterator[tuple[FileRef, Int64s]]:
    """The rows of a version that rules mean, by shard; not those that were made from them."""
    places = _by_rules(manifest, open_index(dataset, [digest]), rules)
    for place, rows in _looked_at(dataset, Rules([rules]), places):
        if len(rows):
            yield place.ref, rows


@dataclass
class _Place:
    """A shard that may lose rows.

    rows: that the rules may mean; None: any. all: they mean every row. ancestors: digests of shards that it was made
    from and that lose rows, with their dataset and what they lose.
    """

    ref: FileRef
    rows: Int64s | None = field(default_factory=lambda: _NONE)
    all: bool = False
    ancestors: list[tuple[Dataset, str, Sequence[FileRef]]] = field(default_factory=list)


def _settled_parents(dataset: Dataset, manifest: Manifest) -> Iterator[tuple[Dataset, ErasedRows]]:
    for name, digest in manifest.parents.items():
        parent = Dataset(dataset.root, name)
        # One that lies under another root has a register of its own that speaks of it.
        if storage.exists(parent.manifest_url(digest)):
            yield parent, settled(parent, digest, parent.manifest(digest)[1])


def _lost(
    dataset: Dataset,
    manifest: Manifest,
    index: Index,
    request: str,
    rules: RuleValues,
    parents: Sequence[tuple[Dataset, ErasedRows]],
    known: ErasedRows,
) -> Iterator[LeftOut]:
    """The shards of a version that lose rows by a request."""
    places = _by_rules(manifest, index, rules)
    _add_descendants(places, manifest, request, parents)
    new = {}
    for digest, place in places.items():
        # Another version has the same shard.
        if files := known.files(digest, [request]):
            yield from (LeftOut(shard=digest, file=file, dropped={REASON: file.rows}) for file in files)
        else:
            new[digest] = place
    for place, rows in _looked_at(dataset, Rules([rules]), new):
        if len(rows):
            yield _left_out(dataset, place.ref, rows)


def _by_rules(manifest: Manifest, index: Index, rules: RuleValues) -> dict[str, _Place]:
    """Shards of a version that may have rows that rules mean."""
    shards = {ref.digest: ref for commit in manifest.commits for ref in commit.shards}
    places: dict[str, _Place] = {}

    def place(digest: str) -> _Place:
        return places.setdefault(digest, _Place(shards[digest]))

    named = (*rules.get("id", ()), *rules.get("digest", ()), *rules.get("uri", ()))
    for file, rows in index.find(named).items():
        if file.folder == "shards" and file.name in shards:
            place(file.name).rows = rows
    licences = set(rules.get("licence", ()))
    several = [file for domain in rules.get("domain", ()) for file in index.domain(domain)]
    several += [file for file, counts in index.licences().items() if licences & counts.keys()] if licences else []
    for file in several:
        if file.folder == "shards" and file.name in shards:
            place(file.name).rows = None
    whole = Rules([{kind: values for kind, values in rules.items() if kind in ("input", "source")}])
    if whole:
        for commit in manifest.commits:
            if whole.unit(commit.source, commit.inputs):
                for ref in commit.shards:
                    place(ref.digest).all = True
    return places


def _add_descendants(
    places: dict[str, _Place], manifest: Manifest, request: str, parents: Sequence[tuple[Dataset, ErasedRows]]
) -> None:
    """Add the shards of units that read shards which lose rows by the request."""
    losing: dict[str, tuple[Dataset, str, Sequence[FileRef]]] = {
        shard: (parent, shard, files)
        for parent, erased in parents
        for shard in erased.shards()
        if (files := erased.files(shard, [request]))
    }
    for commit in manifest.commits if losing else ():
        ancestors = [losing[ref.digest] for ref in commit.inputs if ref.digest in losing]
        for ref in commit.shards if ancestors else ():
            places.setdefault(ref.digest, _Place(ref)).ancestors += ancestors


def _looked_at(dataset: Dataset, rules: Rules, places: Mapping[str, _Place]) -> Iterator[tuple[_Place, Int64s]]:
    with ThreadPoolExecutor(_THREADS, "settle") as pool:
        yield from zip(places.values(), pool.map(partial(_hits, dataset, rules), places.values()), strict=True)


def _hits(dataset: Dataset, rules: Rules, place: _Place) -> Int64s:
    """The rows of a shard that are erased, sorted."""
    if place.all:
        return np.arange(place.ref.rows)
    found = [_NONE, *(_made(dataset, place, *ancestor) for ancestor in place.ancestors)]
    likely = np.arange(place.ref.rows) if place.rows is None else place.rows
    for first, batch in arrow_files.read_batches(dataset.shard_url(place.ref), likely):
        found.append(first + rules.rows(batch))
    return np.unique(np.concatenate(found))


def _made(dataset: Dataset, place: _Place, parent: Dataset, shard: str, lost: Sequence[FileRef]) -> Int64s:
    """Rows that were made from what a shard of the parent loses: a token row has its example's id."""
    table = dataset.read(place.ref)
    rows = pa.concat_tables(left_out(parent, file) for file in lost)
    same = pc.is_in(table.column("id"), rows.column("id").combine_chunks()).to_numpy(zero_copy_only=False)
    found = np.flatnonzero(same)
    if "provenance" not in table.column_names:
        return found
    before = arrow_files.read_table(storage.join(parent.url, "shards", f"{shard}.arrow"))
    return np.union1d(found, made_of(before, set(rows.column("row").to_pylist()), table)).astype(np.int64)


def _left_out(dataset: Dataset, ref: FileRef, rows: Int64s) -> LeftOut:
    ids = dataset.read(ref).column("id").take(pa.array(rows)).to_pylist()
    said = {"step": _STEP, "reason": REASON}
    return publish_left_out(
        dataset, ref.digest, [{"row": row, "id": id_, **said} for row, id_ in zip(rows.tolist(), ids, strict=True)]
    )
