"""Big annotation files, found by key: each machine parses them once into a local copy that is mapped into memory.

A row says something about one medium (its key) or about all (no key). The copy holds the rows of each key together,
sorted by key, so that a unit reads its own slice and nothing else.
"""

from __future__ import annotations

import json
import mmap
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from omnimill.config import digest_json
from omnimill.errors import BadRecord
from omnimill.infra import storage
from omnimill.infra.machine_folder import made_once

FAULT = "fault"
Said = dict[str, list[Any]]
_FAULT = "fault.json"
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Row(NamedTuple):
    """What an annotation file says. key: of the medium; None: said of all media. kind: what sort of statement.

    value: anything that JSON holds, or a `BadRecord`: why the row cannot be read.
    """

    key: str | None
    kind: str
    value: Any


@dataclass(frozen=True)
class Entry:
    """All that is said of one key. lines: a JSON line for every row: number of its file, kind and value."""

    key: str
    lines: bytes

    def said(self) -> Said:
        """The values of the rows by kind, in the order of the files.

        Raises:
            BadRecord: the verdict on a row that could not be read.
        """
        return _said(self.lines)


class AnnotationIndex:
    """The rows of some annotation files by key."""

    def __init__(self, folder: Path) -> None:
        self._keys: list[str] = json.loads((folder / "keys.json").read_bytes())
        self._ends: npt.NDArray[np.int64] = np.load(folder / "ends.npy", mmap_mode="r")
        with (folder / "rows.jsonl").open("rb") as rows:
            empty = os.fstat(rows.fileno()).st_size == 0
            self._rows = b"" if empty else mmap.mmap(rows.fileno(), 0, access=mmap.ACCESS_READ)
        self.common_lines = (folder / "common.jsonl").read_bytes()

    def __len__(self) -> int:
        return len(self._keys)

    @cached_property
    def common(self) -> Said:
        """What is said of all media, by kind."""
        return _said(self.common_lines)

    def find(self, key: str) -> Entry | None:
        """The entry of a key, None where nothing is said of it."""
        place = bisect_left(self._keys, key)
        return self._entry(place) if place < len(self._keys) and self._keys[place] == key else None

    def entries(self, part: int = 0, parts: int = 1) -> Iterator[Entry]:
        """The entries of a part of all keys, sorted."""
        first, last = (len(self._keys) * step // parts for step in (part, part + 1))
        for place in range(first, last):
            yield self._entry(place)

    def _entry(self, place: int) -> Entry:
        begin = int(self._ends[place - 1]) if place else 0
        return Entry(self._keys[place], bytes(self._rows[begin : int(self._ends[place])]))


def open_index(recipe: Mapping[str, Any], uris: Sequence[str], rows: Callable[[int], Iterator[Row]]) -> AnnotationIndex:
    """The index of annotation files; this machine's copy is made if it is not there.

    Args:
        recipe: settings that decide what the rows of the same files are.
        rows: the rows of file number i of `uris`.

    Raises:
        BadRecord: a file that cannot be parsed.
    """
    digests = [_digest(uri, digest_json(storage.stat(uri))) for uri in uris]
    own = digest_json([recipe, uris])[:16]
    return _opened(own, digest_json([recipe, digests])[:32], _Builder(len(uris), rows))


class _Builder(NamedTuple):
    """Makes an index; all builders are equal, so that a cache looks at the name of the index alone."""

    files: int
    rows: Callable[[int], Iterator[Row]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Builder)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=256)
def _digest(uri: str, mark: str) -> str:  # noqa: ARG001 - a changed file has another mark
    return storage.digest_file(uri)


@lru_cache(maxsize=8)
def _opened(own: str, state: str, builder: _Builder) -> AnnotationIndex:
    """The index of some files (`own`) as they are now (`state`); that of what they were before is removed."""

    def make(folder: Path) -> None:
        try:
            _build(folder, builder)
        except BadRecord as fault:  # every unit would parse the files again to find this
            (folder / "unsorted").unlink()
            (folder / _FAULT).write_text(json.dumps([fault.reason, fault.message]))

    with made_once("annotations", own, state, make) as folder:
        if (folder / _FAULT).exists():
            raise BadRecord(*json.loads((folder / _FAULT).read_text()))
        return AnnotationIndex(folder)


def _build(folder: Path, builder: _Builder) -> None:
    """Write the rows as they come, then once more in the order of their keys."""
    numbers: dict[str, int] = {}
    owners, begins = array("q"), array("q", [0])
    with (folder / "unsorted").open("wb") as unsorted, (folder / "common.jsonl").open("wb") as common:
        for file in range(builder.files):
            for place, said in enumerate(builder.rows(file)):
                row = _storable(said)
                line = _line(file, row)
                if row.key is None and not isinstance(row.value, BadRecord):
                    common.write(line)
                    continue
                key = row.key if row.key is not None else f"#{file}:{place}"
                owners.append(numbers.setdefault(key, len(numbers)))
                begins.append(begins[-1] + len(line))
                unsorted.write(line)
    keys = sorted(numbers)
    rank = np.zeros(len(keys), np.int64)
    rank[[numbers[key] for key in keys]] = np.arange(len(keys))
    place_of = rank[np.frombuffer(owners, np.int64)] if owners else np.zeros(0, np.int64)
    sizes = np.diff(np.frombuffer(begins, np.int64))
    (folder / "keys.json").write_text(json.dumps(keys))
    np.save(folder / "ends.npy", np.cumsum(np.bincount(place_of, sizes, len(keys))).astype(np.int64))
    _in_order(folder, np.argsort(place_of, kind="stable"), np.frombuffer(begins, np.int64))
    (folder / "unsorted").unlink()


def _in_order(folder: Path, order: npt.NDArray[np.int64], begins: npt.NDArray[np.int64]) -> None:
    with (folder / "rows.jsonl").open("wb") as rows, (folder / "unsorted").open("rb") as unsorted:
        if not len(order):
            return
        with mmap.mmap(unsorted.fileno(), 0, access=mmap.ACCESS_READ) as source:
            for place in order.tolist():
                rows.write(source[begins[place] : begins[place + 1]])


def _storable(row: Row) -> Row:
    """The row, or what is wrong with its key."""
    try:
        (row.key or "").encode()
    except UnicodeEncodeError as fault:
        return Row(None, FAULT, BadRecord("invalid_utf8", f"a key: character {fault.start}: {fault.reason}"))
    return row


def _line(file: int, row: Row) -> bytes:
    kind, value = row.kind, row.value
    if isinstance(value, BadRecord):
        kind, value = FAULT, [value.reason, value.message]
    return _encode([file, kind, value]).encode() + b"\n"


def _said(lines: bytes) -> Said:
    said: Said = {}
    for line in lines.splitlines():
        _, kind, value = json.loads(line)
        if kind == FAULT:
            raise BadRecord(*value)
        said.setdefault(kind, []).append(value)
    return said
