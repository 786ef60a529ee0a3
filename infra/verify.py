"""Do the files of a root hold what they are named after, and does everything that is named exist?

`verify` reads every byte; `garbage` only lists. Both go by the datasets' own records: manifests, commits, selections.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from blake3 import blake3

from omnimill.errors import OmnimillError
from omnimill.infra import index, storage
from omnimill.infra.dataset import Commit, Dataset, FileRef, Manifest
from omnimill.infra.erasures import SETTLED, read_settlement
from omnimill.infra.selections import LeftOut, load_selection, selected_url
from omnimill.progress import progress

_FOLDERS = ("shards", "quarantine", "drops", "selected")
_THREADS = 8
# What is younger may belong to a unit that is just being committed.
GRACE_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Fault:
    """A file that is not what it should be, and what names it (a manifest, commit or selection)."""

    kind: Literal["missing", "altered", "unreadable"]
    url: str
    named_by: str
    detail: str


@dataclass
class Report:
    """files, bytes: that were read. orphans: files that nothing names."""

    files: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        found: dict[str, list[dict[str, str]]] = {"missing": [], "altered": [], "unreadable": []}
        for fault in self.faults:
            found[fault.kind].append({"url": fault.url, "named_by": fault.named_by, "detail": fault.detail})
        return {"files": self.files, "bytes": self.bytes, **found, "orphans": self.orphans}


@dataclass(frozen=True)
class Garbage:
    """A file that nothing names. age: seconds since it was written."""

    url: str
    bytes: int
    age: float


@dataclass(frozen=True)
class _Named:
    """A file that a record names, and by what."""

    url: str
    ref: FileRef
    by: str


def datasets(root: str) -> list[Dataset]:
    """Every dataset under a root, by name: folders with manifests or commits."""
    return [Dataset(root, name) for name in storage.list_folders(root) if _has_records(storage.join(root, name))]


def _has_records(folder: str) -> bool:
    kinds = {"manifests", "commits"} & {*storage.list_folders(folder)}
    return any(name.endswith(".json") for kind in kinds for name in storage.list_folder(storage.join(folder, kind)))


def verify(root: str, names: Sequence[str] = ()) -> Report:
    """Hash every file again that a manifest, commit or selection names, and look for those that nothing names.

    Args:
        names: datasets; all under the root when none is named.

    Raises:
        OmnimillError: there is no such dataset.
    """
    report = Report()
    for dataset in chosen(root, names):
        named = _named(dataset, report)
        with (
            progress(f"verify {dataset.name}", len(named), "files") as advance,
            ThreadPoolExecutor(_THREADS, "verify") as pool,
        ):
            for one, fault in zip(named.values(), pool.map(_check, named.values()), strict=True):
                report.files += 1
                report.bytes += one.ref.bytes
                if fault is not None:
                    report.faults.append(fault)
                advance(1)
        report.orphans += [url for url in _content_files(dataset) if url not in named]
    return report


def garbage(root: str, names: Sequence[str] = (), grace: float = GRACE_SECONDS) -> list[Garbage]:
    """Files of datasets that no manifest, commit, selection or index names, and that are older than `grace` seconds.

    Raises:
        OmnimillError: there is no such dataset; or one of its records cannot be read, so that nothing is known to be
            without a name.
    """
    found = []
    now = time.time()
    for dataset in chosen(root, names):
        damaged = Report()
        named = _named(dataset, damaged)
        if damaged.faults:
            raise OmnimillError(
                f"{damaged.faults[0].url}: {damaged.faults[0].detail}; what it names is not known, so nothing of "
                f"{dataset.name!r} can be given up: see `omnimill lineage verify`"
            )
        unnamed = [url for url in _content_files(dataset) if url not in named]
        for url in [*unnamed, *index.leftovers(dataset)]:
            filesystem, path = storage.filesystem(url)
            age = now - filesystem.modified(path).timestamp()
            if age >= grace:
                found.append(Garbage(url, int(filesystem.size(path)), age))
    return found


def delete(files: Sequence[Garbage]) -> None:
    """Delete files for good."""
    with progress("delete", len(files), "files") as advance:
        for one in files:
            filesystem, path = storage.filesystem(one.url)
            filesystem.rm_file(path)
            advance(1)


def chosen(root: str, names: Sequence[str]) -> list[Dataset]:
    """The datasets under a root with these names; all when none is named.

    Raises:
        OmnimillError: there is no such dataset.
    """
    found = {dataset.name: dataset for dataset in datasets(root)}
    if unknown := [name for name in names if name not in found]:
        raise OmnimillError(f"no dataset {unknown[0]!r} under {root}; there are {', '.join(found) or 'none'}")
    return [found[name] for name in names] if names else list(found.values())


def _named(dataset: Dataset, report: Report) -> dict[str, _Named]:
    """Every file that a record of the dataset names, by URL; records that cannot be read are faults of the report."""
    found: dict[str, _Named] = {}
    for url, manifest in _manifests(dataset, report):
        for commit in manifest.commits:
            found |= {one.url: one for one in _files(dataset, commit, url)}
    for name, body in storage.read_folder(storage.join(dataset.url, "commits"), ".json"):
        url = storage.join(dataset.url, "commits", name)
        try:
            commit = Commit.model_validate(json.loads(body)["commit"])
        except (ValueError, KeyError, TypeError) as error:
            report.faults.append(Fault("unreadable", url, url, f"not a commit: {_first_line(error)}"))
            continue
        found = {one.url: one for one in _files(dataset, commit, url)} | found
    for name in storage.list_folder(storage.join(dataset.url, "selections")):
        url = storage.join(dataset.url, "selections", name)
        try:
            digest, selection = load_selection(dataset, name.removesuffix(".json"))
        except (OmnimillError, ValueError) as error:
            report.faults.append(Fault("unreadable", url, url, _first_line(error)))
            continue
        if name.removesuffix(".json") not in (digest, selection.name):
            report.faults.append(Fault("altered", url, url, f"its content is that of {digest}"))
        found |= _selected(dataset, selection.shards, url)
    for name in storage.list_folder(storage.join(dataset.url, SETTLED)):
        url = storage.join(dataset.url, SETTLED, name)
        try:
            settlement = read_settlement(url)
        except (OmnimillError, ValueError) as error:
            report.faults.append(Fault("unreadable", url, url, _first_line(error)))
            continue
        if name != f"{settlement.content_digest()}.json":
            report.faults.append(Fault("altered", url, url, f"its content is that of {settlement.content_digest()}"))
        for shards in settlement.left_out.values():
            found |= _selected(dataset, shards, url)
    return found


def _selected(dataset: Dataset, shards: Sequence[LeftOut], by: str) -> dict[str, _Named]:
    places = ((selected_url(dataset, shard.file), shard.file) for shard in shards)
    return {url: _Named(url, ref, by) for url, ref in places}


def _manifests(dataset: Dataset, report: Report) -> Iterator[tuple[str, Manifest]]:
    bodies = {}
    for name, body in storage.read_folder(storage.join(dataset.url, "manifests"), ".json"):
        url = storage.join(dataset.url, "manifests", name)
        digest = blake3(body).hexdigest()
        bodies[digest] = body
        if name != f"{digest}.json":
            report.faults.append(Fault("altered", url, url, f"its content hashes to {digest}"))
            continue
        yield url, Manifest.model_validate_json(body)
    current = storage.join(dataset.url, "manifest.json")
    if storage.exists(current) and blake3(storage.read_bytes(current)).hexdigest() not in bodies:
        report.faults.append(Fault("altered", current, current, "it is none of the published versions"))


def _files(dataset: Dataset, commit: Commit, by: str) -> Iterator[_Named]:
    for shard in commit.shards:
        yield _Named(dataset.shard_url(shard), shard, by)
    if commit.quarantine is not None:
        yield _Named(dataset.shard_url(commit.quarantine, "quarantine"), commit.quarantine, by)
    if commit.drops is not None:
        yield _Named(dataset.shard_url(commit.drops, "drops"), commit.drops, by)


def _check(one: _Named) -> Fault | None:
    try:
        digest = storage.digest_file(one.url)
    except FileNotFoundError:
        return Fault("missing", one.url, one.by, f"{one.ref.rows:,} rows, {one.ref.bytes:,} bytes")
    if digest != one.ref.digest:
        return Fault("altered", one.url, one.by, f"its content hashes to {digest}")
    return None


def _content_files(dataset: Dataset) -> list[str]:
    # Beside what is published, what killed writers left half written.
    kinds = (storage.join(dataset.url, folder) for folder in _FOLDERS)
    folders = (one for folder in kinds for one in (folder, storage.join(folder, ".partial")))
    return [storage.join(folder, name) for folder in folders for name in storage.list_folder(folder)]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
