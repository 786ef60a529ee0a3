"""What is different between two versions of datasets: units, rows, recipes, what was turned down, attributes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnimill.config import digest_json, flat
from omnimill.errors import OmnimillError
from omnimill.infra import arrow_files, storage
from omnimill.infra.dataset import Commit, Dataset, FileRef, Manifest, total
from omnimill.infra.settling import settled

_PREFIX = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Opened:
    """A version of a dataset."""

    dataset: Dataset
    digest: str
    manifest: Manifest


def open_version(root: str, written: str) -> Opened | None:
    """The version that is meant by ``name`` (the current one), ``name@digest`` or ``digest``; None: none is.

    Args:
        written: of a digest the first 8 digits or more.

    Raises:
        OmnimillError: several versions begin so.
    """
    name, at, digest = written.partition("@")
    if not at and storage.exists(storage.join(root, name, "manifest.json")):
        dataset = Dataset(root, name)
        return Opened(dataset, *dataset.manifest())
    digest = digest or name
    if not _PREFIX.fullmatch(digest):
        return None
    names = [name] if at else storage.list_folders(root)
    found = [
        (Dataset(root, one), file.removesuffix(".json"))
        for one in names
        for file in storage.list_folder(storage.join(root, one, "manifests"))
        if file.startswith(digest)
    ]
    if len(found) > 1:
        listed = ", ".join(f"{dataset.name}@{whole}" for dataset, whole in found)
        raise OmnimillError(f"{written}: several versions begin so: {listed}")
    return Opened(found[0][0], *found[0][0].manifest(found[0][1])) if found else None


def version_diff(first: Opened, second: Opened, *, rows: bool = False) -> dict[str, Any]:
    """The second version as seen from the first, as JSON; of what is the same nothing is told.

    Args:
        rows: count rows that only one of them has, by id; reads the ids of all shards that only one of them has.

    Returns:
        ``{"kind": "versions", "versions": [...], "sources": {name: {"units", "rows", "recipes", "turned_down"}},
        "shards", "rows", "attributes", "parents"}``; pairs are [in the first, in the second].
    """
    names = sorted({commit.source for one in (first, second) for commit in one.manifest.commits})
    sources = {name: _source(*([_of(one, name) for one in (first, second)])) for name in names}
    shards = [{ref.digest: ref for commit in one.manifest.commits for ref in commit.shards} for one in (first, second)]
    only = [[ref for digest, ref in own.items() if digest not in other] for own, other in (shards, shards[::-1])]
    return {
        "kind": "versions",
        "versions": [_described(one) for one in (first, second)],
        "sources": {name: found for name, found in sources.items() if found},
        "shards": {"removed": len(only[0]), "added": len(only[1])},
        "rows": _rows((first, only[0]), (second, only[1])) if rows else None,
        "attributes": pairs(first.manifest.attributes, second.manifest.attributes),
        "parents": pairs(first.manifest.parents, second.manifest.parents),
    }


def pairs(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values that differ, by key, nested keys joined by dots: [was, is]; null where there is none."""
    old, new = dict(flat(was)), dict(flat(now))
    keys = sorted(
        key for key in old.keys() | new.keys() if old.get(key) != new.get(key) or (key in old) != (key in new)
    )
    return {key: [old.get(key), new.get(key)] for key in keys}


def _described(one: Opened) -> dict[str, Any]:
    erased = settled(one.dataset, one.digest, one.manifest)
    own = {ref.digest for commit in one.manifest.commits for ref in commit.shards}
    return {
        "dataset": one.dataset.name,
        "manifest": one.digest,
        "kind": one.manifest.kind,
        "units": len(one.manifest.commits),
        "rows": one.manifest.rows,
        "erased": sum(len(erased.rows(shard)) for shard in erased.shards() if shard in own),
    }


def _of(one: Opened, source: str) -> dict[str, Commit]:
    return {commit.unit: commit for commit in one.manifest.commits if commit.source == source}


def _source(was: Mapping[str, Commit], now: Mapping[str, Commit]) -> dict[str, Any]:
    """What is different in a source; empty: nothing."""
    both = [(was[unit], now[unit]) for unit in was if unit in now]
    units = {
        "removed": len(was.keys() - now.keys()),
        "added": len(now.keys() - was.keys()),
        "changed": sum(_outcome(a) != _outcome(b) for a, b in both),
        "done_again": sum(_outcome(a) == _outcome(b) and a != b for a, b in both),
    }
    if not any(units.values()):
        return {}
    sums = [total(commit.counts for commit in one.values()) for one in (was, now)]
    recipes = [Counter(commit.recipe[:16] for commit in one.values()) for one in (was, now)]
    kinds = ("records_dropped", "examples_dropped", "quarantined")
    reasons = [{f"{kind}.{why}": n for kind in kinds for why, n in getattr(one, kind).items()} for one in sums]
    found: dict[str, Any] = {"units": units, "rows": [one.examples_written for one in sums]}
    if recipes[0] != recipes[1]:
        found["recipes"] = [dict(sorted(one.items())) for one in recipes]
    if turned_down := pairs(*reasons):
        found["turned_down"] = {key: [count or 0 for count in counts] for key, counts in turned_down.items()}
    return found


def _outcome(commit: Commit) -> str:
    """What readers see of a unit."""
    return digest_json([ref.digest for ref in commit.shards])


def _rows(*sides: tuple[Opened, list[FileRef]]) -> dict[str, int]:
    """Rows, by the ids of their examples, that one version has and the other has not."""
    removed, added = (Counter(id_ for ref in only for id_ in _ids(one.dataset, ref)) for one, only in sides)
    return {"removed": (removed - added).total(), "added": (added - removed).total()}


def _ids(dataset: Dataset, ref: FileRef) -> Iterable[str]:
    for _, table in arrow_files.read_batches(dataset.shard_url(ref), np.arange(ref.rows), ("id",)):
        yield from table.column("id").to_pylist()
