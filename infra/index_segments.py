"""Segments of a dataset's index: sorted words on storage, of which a look-up reads a few kilobytes.

A segment covers some of the dataset's files, whose rows are numbered through. Below ``<dataset>/index/``::

    <name>.files         the files: folder, name, rows, licences (`FILES_SCHEMA`)
    <name>.rows          uint64 words, sorted: 38 bits of a key, 26 of a row's number in the segment
    <name>.domains       uint64 keys of domains, sorted; then as many words: 32 bits of a file's number, 32 of its rows

Words are little-endian. After the words come fences: every 4,096th of them, which say where to look. Keys are hashes,
so that of a segment's 33 million words one in eight thousand look-ups meets a row of another key: whoever asks looks at
the row itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from blake3 import blake3

from omnimill.config import canonical_json
from omnimill.errors import IntegrityError
from omnimill.infra import arrow_files, storage
from omnimill.infra.index_keys import FileKeys, key_of
from omnimill.rng import Int64s, UInt64s

ROW_BITS = 26
MOST_WORDS = 1 << 25
_FENCE = 4096
_WORD = np.dtype("<u8")
# Bytes of a range that is read from a remote store: fences, and the words between two of them, are less.
_RANGE = 64 << 10
_DOMAIN = "domain:"

FILES_SCHEMA = pa.schema(
    [
        pa.field("folder", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("licences", pa.string(), nullable=False),  # JSON: rows by licence, "" where none is stated
    ]
)


@dataclass(frozen=True)
class IndexedFile:
    """A file of a dataset: its folder and digest; or ``inputs`` and the name of a commit's file."""

    folder: str
    name: str


@dataclass(frozen=True)
class Content:
    """What a segment holds, before it is written or when it is merged with others.

    words: as in the file. domains: uint64 [2, n]; keys and words of the domains.
    """

    files: tuple[IndexedFile, ...]
    rows: tuple[int, ...]
    licences: tuple[str, ...]
    words: UInt64s
    domains: UInt64s


def content_of(files: Sequence[tuple[IndexedFile, int, FileKeys]]) -> Content:
    """The content of a segment of files (with their numbers of rows)."""
    starts = _starts([rows for _, rows, _ in files])
    words = [
        _words(keys.hashes, keys.rows + start) for start, (_, _, keys) in zip(starts.tolist(), files, strict=False)
    ]
    domains = [
        (key_of(_DOMAIN + name), number << 32 | count)
        for number, (_, _, keys) in enumerate(files)
        for name, count in keys.domains.items()
    ]
    return Content(
        tuple(file for file, _, _ in files),
        tuple(rows for _, rows, _ in files),
        tuple(json.dumps(keys.licences, sort_keys=True) if keys.licences else "" for _, _, keys in files),
        np.sort(_joined(words)),
        _by_key(np.array(domains, np.uint64).reshape(-1, 2).T),
    )


def merge(contents: Sequence[Content]) -> Content:
    """Several segments as one."""
    rows = _starts([sum(one.rows) for one in contents]).tolist()
    files = _starts([len(one.files) for one in contents]).tolist()
    words = [one.words + np.uint64(first) for one, first in zip(contents, rows, strict=False)]
    shift = np.uint64(32)
    domains = [
        np.stack([one.domains[0], one.domains[1] + (np.uint64(first) << shift)])
        for one, first in zip(contents, files, strict=False)
    ]
    merged = _joined(words)
    # Sorted runs one behind the other are what this sort merges.
    merged.sort(kind="stable")
    return Content(
        tuple(file for one in contents for file in one.files),
        tuple(count for one in contents for count in one.rows),
        tuple(licences for one in contents for licences in one.licences),
        merged,
        _by_key(np.concatenate(domains, axis=1)),
    )


def write(folder: str, content: Content) -> str:
    """Store a segment.

    Returns:
        Its name, which is a digest of the content.
    """
    if sum(content.rows) > 1 << ROW_BITS:
        raise IntegrityError(f"{folder}: a segment of an index has {1 << ROW_BITS:,} rows at most")
    columns = [
        [file.folder for file in content.files],
        [file.name for file in content.files],
        list(content.rows),
        list(content.licences),
    ]
    hasher = blake3(canonical_json(columns))
    for words in (content.words, *content.domains):
        hasher.update(np.ascontiguousarray(words, _WORD).view(np.uint8).data)
    name = hasher.hexdigest(length=16)
    _write_words(storage.join(folder, f"{name}.rows"), [content.words])
    _write_words(storage.join(folder, f"{name}.domains"), list(content.domains))
    table = pa.table(
        [pa.array(column, kind.type) for column, kind in zip(columns, FILES_SCHEMA, strict=True)], FILES_SCHEMA
    )
    arrow_files.write_table(table, storage.join(folder, f"{name}.files"))
    return name


def delete(folder: str, name: str) -> None:
    """Remove a segment's files, as far as they are there."""
    for ending in ("rows", "domains", "files"):
        filesystem, path = storage.filesystem(storage.join(folder, f"{name}.{ending}"))
        if filesystem.exists(path):
            filesystem.rm_file(path)


class Segment:
    """A stored segment.

    Raises:
        IntegrityError: a file of it is missing or cut short.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.name = name
        try:
            table = arrow_files.read_table(storage.join(folder, f"{name}.files"))
            self._words = _Words(storage.join(folder, f"{name}.rows"), 1)
            self._domains = _Words(storage.join(folder, f"{name}.domains"), 2)
        except (OSError, pa.ArrowException) as error:
            raise IntegrityError(f"{folder}: segment {name} of the index cannot be read: {error}") from None
        folders, names, self._licences = (table.column(i).to_pylist() for i in (0, 1, 3))
        self.files = [IndexedFile(*one) for one in zip(folders, names, strict=True)]
        self.rows = tuple(table.column(2).to_pylist())
        self._starts = _starts(self.rows)

    def find(self, value: str) -> Iterator[tuple[IndexedFile, Int64s]]:
        """Rows (sorted) that are probably found by a value, by file."""
        low = key_of(value) >> ROW_BITS << ROW_BITS
        words, _ = self._words.between(low, low + (1 << ROW_BITS) - 1)
        rows = (words & np.uint64((1 << ROW_BITS) - 1)).astype(np.int64)
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for own in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(numbers)) + 1):
            if len(own):
                number = int(numbers[own[0]])
                yield self.files[number], rows[own] - self._starts[number]

    def domain(self, name: str) -> Iterator[tuple[IndexedFile, int]]:
        """Files with rows from a domain or one below it, and how many rows."""
        key = key_of(_DOMAIN + name)
        _, found = self._domains.between(key, key)
        for word in found.tolist():
            yield self.files[word >> 32], word & 0xFFFFFFFF

    def licences(self) -> Iterator[tuple[IndexedFile, Mapping[str, int]]]:
        """Rows of every file of examples by licence, "" where none is stated."""
        known: dict[str, Mapping[str, int]] = {}
        for file, said in zip(self.files, self._licences, strict=True):
            if said:
                if said not in known:
                    known[said] = json.loads(said)
                yield file, known[said]

    def __len__(self) -> int:
        """Its words."""
        return len(self._words)

    def content(self) -> Content:
        """All of it, to be merged."""
        return Content(tuple(self.files), self.rows, tuple(self._licences), self._words.all()[0], self._domains.all())


class _Words:
    """A stored file of sorted words, some columns one behind the other; the first is what they are sorted by."""

    def __init__(self, url: str, columns: int) -> None:
        self._url, self._columns = url, columns
        size = int(storage.stat(url)["bytes"])
        # n words a column and a fence for every 4,096 of them begun.
        per = columns * _FENCE + 1
        total = size // _WORD.itemsize
        self._count = (total // per) * _FENCE + max(total % per - 1, 0) // columns
        if size != _WORD.itemsize * (columns * self._count + -(-self._count // _FENCE)):
            raise IntegrityError(f"{url}: {size} bytes are not a whole file of an index")

    def __len__(self) -> int:
        return self._count

    def between(self, low: int, high: int) -> tuple[UInt64s, UInt64s]:
        """The words of the first column from `low` to `high`, both included, and those of the last column."""
        fences = self._fences
        first = max(int(np.searchsorted(fences, np.uint64(low))) - 1, 0) * _FENCE
        last = min(int(np.searchsorted(fences, np.uint64(high), side="right")) * _FENCE, self._count)
        block = self._read(first, max(last - first, 0))
        inside = slice(
            int(np.searchsorted(block, np.uint64(low))), int(np.searchsorted(block, np.uint64(high), "right"))
        )
        found = block[inside]
        if self._columns == 1 or not len(found):
            return found, found
        return found, self._read((self._columns - 1) * self._count + first + inside.start, len(found))

    def all(self) -> UInt64s:
        """Every word: uint64 [columns, n]."""
        return self._read(0, self._columns * self._count).reshape(self._columns, -1)

    @cached_property
    def _fences(self) -> UInt64s:
        return self._read(self._columns * self._count, -(-self._count // _FENCE))

    def _read(self, first: int, count: int) -> UInt64s:
        if self._map is not None:
            return self._map[first : first + count]
        if not count:
            return np.empty(0, _WORD)
        with storage.open_read(self._url, _RANGE) as stream:
            stream.seek(first * _WORD.itemsize)
            return np.frombuffer(stream.read(count * _WORD.itemsize), _WORD)

    @cached_property
    def _map(self) -> UInt64s | None:
        if not self._count or not storage.is_local(self._url):
            return None
        return np.memmap(storage.filesystem(self._url)[1], _WORD, "r")


def _write_words(url: str, columns: Sequence[UInt64s]) -> None:
    temporary = storage.scratch_path(url)
    try:
        with temporary.open("wb") as stream:
            for column in (*columns, columns[0][::_FENCE]):
                np.ascontiguousarray(column, _WORD).tofile(stream)
        storage.publish_file(temporary, url)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _words(hashes: UInt64s, rows: Int64s) -> UInt64s:
    bits = np.uint64(ROW_BITS)
    return (hashes >> bits << bits) | rows.astype(np.uint64)


def _starts(sizes: Iterable[int]) -> Int64s:
    return np.concatenate([[0], np.cumsum(np.array(list(sizes), np.int64))]).astype(np.int64)


def _joined(words: Sequence[UInt64s]) -> UInt64s:
    return np.concatenate([np.empty(0, np.uint64), *words])


def _by_key(domains: UInt64s) -> UInt64s:
    return domains[:, np.argsort(domains[0], kind="stable")]
