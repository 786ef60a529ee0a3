"""The index of a dataset: which rows of which of its files a value names, found without reading the files.

It covers all published versions of a dataset, for files are named by content and belong to many of them: which of the
files found are in a version, its manifest says. Indexed are shards (example id; addresses and digests of provenance,
media and meta), files of quarantine and drops (address, key) and the inputs of units (address, digest); beside these,
rows by domain and by licence of each shard.

What others call:

* :func:`refresh` after a version was published: indexes what is new. Never fails because of the index.
* :func:`open_index` to ask: versions that are not covered are indexed first. Then :meth:`Index.find`,
  :meth:`Index.domain`, :meth:`Index.licences`. What :meth:`Index.find` gives is probable: compare the row itself.
* :func:`rebuild` to make it anew; :func:`adopt` to put one there that was made in another way.

It can be deleted: nothing but the time of a look-up depends on it. New files are added as segments
(``omnimill.infra.index_segments``); small segments are merged, so that there are few however many versions were
published. ``index.json`` names the segments that hold.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice

import numpy as np
import pyarrow as pa

from omnimill.config import canonical_json
from omnimill.errors import IntegrityError, OmnimillError
from omnimill.infra import index_pieces, index_segments, storage
from omnimill.infra.dataset import Commit, Dataset, Manifest
from omnimill.infra.index_keys import FileKeys, keys_of_inputs, keys_of_table
from omnimill.infra.index_segments import MOST_WORDS, ROW_BITS, Content, IndexedFile, Segment
from omnimill.progress import console, progress
from omnimill.rng import Int64s

# Raised when other keys are found in the same files, or they are stored in another way.
_VERSION = 1
_FOLDER, _HEAD = "index", "index.json"
# So many segments that are not full are left side by side.
_SMALL_SEGMENTS = 8
_THREADS = 4
_AT_ONCE = 64
# Fewer files are read without telling of it.
_TOLD_FROM = 200

# What may stand against reading files and writing the index.
_FAULTS = (OSError, OmnimillError, pa.ArrowException)

_Found = tuple[IndexedFile, int, FileKeys]


class Index:
    """The segments of a dataset's index."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments

    @property
    def files(self) -> set[IndexedFile]:
        """All that are covered."""
        return {file for segment in self.segments for file in segment.files}

    def find(self, values: Iterable[str]) -> dict[IndexedFile, Int64s]:
        """Rows (sorted) that are probably found by one of some values, by file.

        Of a file in the folder ``inputs``, which is called like a commit, a row is an input's place in the commit.

        Args:
            values: ids and digests; addresses as `omnimill.infra.index_keys.plain_address` has them.
        """
        found: dict[IndexedFile, Int64s] = {}
        for value in dict.fromkeys(values):
            for segment in self.segments:
                for file, rows in segment.find(value):
                    found[file] = np.union1d(found[file], rows) if file in found else rows
        return found

    def domain(self, name: str) -> dict[IndexedFile, int]:
        """Files with rows that come from a domain or one below it, and how many rows."""
        return {file: rows for segment in self.segments for file, rows in segment.domain(name)}

    def licences(self) -> dict[IndexedFile, Mapping[str, int]]:
        """Rows of every file of examples by licence, "" where none is stated."""
        return {file: counts for segment in self.segments for file, counts in segment.licences()}


def refresh(dataset: Dataset, digest: str, manifest: Manifest) -> None:
    """Index what the version `digest` holds and no version before it; says so when that cannot be, and goes on."""
    try:
        _update(dataset, digest, manifest, storage.join(dataset.url, _FOLDER))
    except _FAULTS as error:
        console.print(f"{dataset.name}: not indexed, look-ups will take longer: {error}")


def open_index(dataset: Dataset, digests: Iterable[str]) -> Index:
    """The index of a dataset, in which the versions with these digests are covered; what is missing is added.

    Where it cannot be written beside the dataset, what is missing is kept for the time of this process only.
    """
    url = storage.join(dataset.url, _FOLDER)
    index, head = _read(url)
    for digest in sorted(set(digests) - set(head.versions)):
        _, manifest = dataset.manifest(digest)
        try:
            index = _update(dataset, digest, manifest, url)
        except _FAULTS:
            elsewhere = tempfile.mkdtemp(prefix="omnimill-index-")
            added = _add(dataset, _missing(manifest, index.files), elsewhere)
            index = Index([*index.segments, *(Segment(elsewhere, name) for name in added)])
    return index


def rebuild(dataset: Dataset, digests: Iterable[str]) -> Index:
    """Make the index anew, of the versions with these digests."""
    url = storage.join(dataset.url, _FOLDER)
    _, head = _read(url)
    _write_head(url, _Head(retired=(*head.retired, *head.segments)))
    return open_index(dataset, digests)


def adopt(dataset: Dataset, digests: Iterable[str], segments: Iterable[Content]) -> None:
    """Let segments be the index of a dataset; they cover the versions with these digests."""
    url = storage.join(dataset.url, _FOLDER)
    names = tuple(index_segments.write(url, content) for content in segments)
    _write_head(url, _Head(tuple(digests), names))


def leftovers(dataset: Dataset) -> list[str]:
    """URLs of the index's files that nothing needs: segments that no head names, and pieces that are in one."""
    url = storage.join(dataset.url, _FOLDER)
    index, head = _read(url)
    files = [name for name in storage.list_folder(url) if name != _HEAD]
    left = [storage.join(url, name) for name in files if name.partition(".")[0] not in head.segments]
    covered = {file.name for file in index.files if file.folder == "shards"}
    return [*left, *index_pieces.leftovers(dataset, covered)]


def input_file(commit: Commit) -> IndexedFile:
    """What a unit's inputs are called in the index."""
    return IndexedFile("inputs", commit.file_name)


def files_of(commit: Commit) -> Iterator[IndexedFile]:
    """What of a commit is indexed."""
    for ref in commit.shards:
        yield IndexedFile("shards", ref.digest)
    if commit.quarantine is not None:
        yield IndexedFile("quarantine", commit.quarantine.digest)
    if commit.drops is not None:
        yield IndexedFile("drops", commit.drops.digest)
    if commit.inputs:
        yield input_file(commit)


def _update(dataset: Dataset, digest: str, manifest: Manifest, url: str) -> Index:
    index, head = _read(url)
    if digest in head.versions:
        return index
    missing = _missing(manifest, index.files)
    added = [Segment(url, name) for name in _add(dataset, missing, url)]
    segments, merged = _tidy(url, [*index.segments, *added])
    covered = {file for one in segments for file in one.files}
    # A version of which a file is gone is looked through again, so that the file is found once it is back.
    versions = head.versions if missing.keys() - covered else (*head.versions, digest)
    # Those that were given up by the update before: whoever opened the index then is done with them.
    for name in set(head.retired) - {one.name for one in segments}:
        with suppress(OSError):
            index_segments.delete(url, name)
    _write_head(url, _Head(versions, tuple(one.name for one in segments), merged))
    index_pieces.delete(dataset, (file.name for file in covered if file.folder == "shards"))
    return Index(segments)


def _missing(manifest: Manifest, known: set[IndexedFile]) -> dict[IndexedFile, Commit]:
    found = {file: commit for commit in manifest.commits for file in files_of(commit)}
    return {file: commit for file, commit in found.items() if file not in known}


def _add(dataset: Dataset, missing: Mapping[IndexedFile, Commit], url: str) -> list[str]:
    """Write segments of files that are not covered."""
    told = progress(f"index {dataset.name}", len(missing), "files") if len(missing) >= _TOLD_FROM else nullcontext()
    names: list[str] = []
    waiting: list[_Found] = []
    words = rows = 0
    with told as advance, ThreadPoolExecutor(_THREADS, "index") as pool:
        left = iter(missing.items())
        while batch := list(islice(left, _AT_ONCE)):
            for found in pool.map(lambda item: _keys(dataset, *item), batch):
                if advance is not None:
                    advance(1)
                if found is None:
                    continue
                if waiting and (words + len(found[2].hashes) > MOST_WORDS or rows + found[1] > 1 << ROW_BITS):
                    names.append(index_segments.write(url, index_segments.content_of(waiting)))
                    waiting, words, rows = [], 0, 0
                waiting.append(found)
                words, rows = words + len(found[2].hashes), rows + found[1]
    if waiting:
        names.append(index_segments.write(url, index_segments.content_of(waiting)))
    return names


def _keys(dataset: Dataset, file: IndexedFile, commit: Commit) -> _Found | None:
    """The keys of a file; None when it is gone."""
    if file.folder == "inputs":
        return file, len(commit.inputs), keys_of_inputs(commit.inputs)
    refs = {ref.digest: ref for ref in (*commit.shards, commit.quarantine, commit.drops) if ref is not None}
    ref = refs[file.name]
    if file.folder == "shards" and (piece := index_pieces.read(dataset, file.name)) is not None:
        return file, ref.rows, piece
    try:
        table = dataset.read(ref, file.folder)  # type: ignore[arg-type]  # one of the three folders
    except FileNotFoundError:
        console.print(f"{dataset.name}: {file.folder}/{file.name}.arrow is gone, its rows are not found")
        return None
    return file, table.num_rows, keys_of_table(table)


def _tidy(url: str, segments: Sequence[Segment]) -> tuple[list[Segment], tuple[str, ...]]:
    """Merge segments that are not full, where there are many of them: those that hold, and names of the others."""
    small = sorted((one for one in segments if len(one) <= MOST_WORDS // 2), key=len)
    if len(small) <= _SMALL_SEGMENTS:
        return list(segments), ()
    taken: list[Segment] = []
    words = rows = 0
    for one in small:
        if words + len(one) > MOST_WORDS or rows + sum(one.rows) > 1 << ROW_BITS:
            break
        taken.append(one)
        words, rows = words + len(one), rows + sum(one.rows)
    name = index_segments.write(url, index_segments.merge([one.content() for one in taken]))
    return [*(one for one in segments if one not in taken), Segment(url, name)], tuple(one.name for one in taken)


@dataclass(frozen=True)
class _Head:
    """What ``index.json`` says. versions: digests of manifests all of whose files the segments cover.

    retired: segments that are not needed any more, which somebody may still be reading.
    """

    versions: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()


def _read(url: str) -> tuple[Index, _Head]:
    """The index as it is stored; without segments that cannot be read, and then no version is known to be covered."""
    head = _Head()
    with suppress(FileNotFoundError, NotADirectoryError, ValueError, LookupError, AttributeError, TypeError):
        body = json.loads(storage.read_bytes(storage.join(url, _HEAD)))
        if body.pop("version") == _VERSION:
            head = _Head(**{key: tuple(value) for key, value in body.items()})
    segments = []
    for name in head.segments:
        try:
            segments.append(Segment(url, name))
        except IntegrityError:
            head = replace(head, versions=())
    return Index(segments), head


def _write_head(url: str, head: _Head) -> None:
    storage.publish_bytes(storage.join(url, _HEAD), canonical_json({"version": _VERSION, **asdict(head)}))
