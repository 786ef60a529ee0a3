"""Tables about recordings: what is said of each recording, found without reading the rest.

A table may have a row for each of millions of recordings. Each machine that reads units makes one sorted copy of it
on its local disk, in which the rows of a recording are found without reading the others.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from blake3 import blake3

from omnimill.config import digest_json
from omnimill.errors import ConfigError
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef
from omnimill.infra.machine_folder import made_once
from omnimill.pipelines import files
from omnimill.pipelines.sources.table_notes import Note, TableSettings, key_of, note_from, note_of
from omnimill.pipelines.sources.table_rows import label_names, rows_of


class Table:
    """The rows of a table by recording."""

    def __init__(self, folder: Path, uris: Sequence[str], names: str | None) -> None:
        self.uris = tuple(uris)
        self._names = names
        self._hashes: npt.NDArray[np.uint64] = np.load(folder / "hashes.npy", mmap_mode="r")
        self._offsets: npt.NDArray[np.int64] = np.load(folder / "offsets.npy", mmap_mode="r")
        self._rows = (folder / "rows.jsonl").open("rb")

    def about(self, path: str) -> list[tuple[int, Note]]:
        """The rows about a recording, in the table's order, with the number of the table's file that has them.

        Args:
            path: of the recording below the source's path.
        """
        found: dict[int, tuple[int, Note]] = {}
        for name in _names_of(path):
            wanted = np.uint64(xxhash.xxh3_64_intdigest(name.encode()))
            first, last = (int(np.searchsorted(self._hashes, wanted, side=side)) for side in ("left", "right"))
            for place in range(first, last):
                offset = int(self._offsets[place])
                row = self._row(offset)
                if row["key"] == name:
                    found[offset] = (int(row["file"]), note_from(row["note"]))
        return [found[offset] for offset in sorted(found)]

    def inputs(self, paths: Sequence[str]) -> list[InputRef]:
        """What recordings depend on, by content: their rows in each file of the table, and the names of labels."""
        rows: list[list[Any]] = [[] for _ in self.uris]
        for path in paths:
            for file, note in self.about(path):
                rows[file].append([path, asdict(note)])
        refs = [
            InputRef(uri=uri, digest=blake3(digest_json(own).encode()).hexdigest(), bytes=len(json.dumps(own)))
            for uri, own in zip(self.uris, rows, strict=True)
        ]
        if self._names is not None:
            digest, size = storage.digest_file(self._names), int(storage.stat(self._names)["bytes"])
            refs.append(InputRef(uri=self._names, digest=digest, bytes=size))
        return refs

    def _row(self, offset: int) -> dict[str, Any]:
        data = os.pread(self._rows.fileno(), 1 << 12, offset)
        while b"\n" not in data and (more := os.pread(self._rows.fileno(), len(data), offset + len(data))):
            data += more
        row: dict[str, Any] = json.loads(data[: data.index(b"\n")])
        return row


def table_files(settings: TableSettings, root: str) -> list[str]:
    """The table's files as paths below `root`, sorted.

    Raises:
        ConfigError: there is none.
    """
    if any(mark in name for name in settings.files for mark in "*?["):
        found = [files.relative(url, root) for url in files.find(root, include=settings.files)]
    else:
        found = sorted(name for name in settings.files if storage.exists(_below(root, name)))
    if not found:
        raise ConfigError(f"{root}: no table {', '.join(settings.files)} below it")
    return found


def open_table(settings: TableSettings, root: str, names: Sequence[str]) -> Table:
    """The table of the recordings below `root`; the machine's copy is made if it is not there or not of this state.

    Args:
        names: what :func:`table_files` found.

    Raises:
        ConfigError: a table that is not what the settings say.
    """
    uris = tuple(_below(root, name) for name in names)
    labels = None if settings.label_names is None else _below(root, settings.label_names.file)
    if labels is not None and not storage.exists(labels):
        raise ConfigError(f"{labels}: no such file")
    watched = [*uris, *([labels] if labels else [])]
    marks = digest_json([[uri, storage.stat(uri)] for uri in watched])[:16]
    return _opened(settings.model_dump_json(), uris, labels, marks)


def _below(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}"


@lru_cache(maxsize=4)
def _opened(settings: str, uris: tuple[str, ...], names: str | None, marks: str) -> Table:
    table = TableSettings.model_validate_json(settings)
    own = digest_json([settings, uris])[:16]
    labels = label_names(table.label_names, names)
    with made_once("tables", own, marks, lambda made: _build(made, table, uris, labels)) as folder:
        return Table(folder, uris, names)


def _build(folder: Path, settings: TableSettings, uris: Sequence[str], names: dict[str, str]) -> None:
    hashes, offsets = array("Q"), array("q")
    with (folder / "rows.jsonl").open("wb") as rows:
        for number, uri in enumerate(uris):
            for row in rows_of(settings, uri):
                key = key_of(settings.file, row, uri)
                note = note_of(settings, row, names)
                hashes.append(xxhash.xxh3_64_intdigest(key.encode()))
                offsets.append(rows.tell())
                line = {"key": key, "file": number, "note": asdict(note)}
                rows.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    keys = np.frombuffer(hashes, np.uint64) if hashes else np.zeros(0, np.uint64)
    order = np.argsort(keys, kind="stable")
    np.save(folder / "hashes.npy", keys[order])
    np.save(folder / "offsets.npy", np.frombuffer(offsets, np.int64)[order] if offsets else np.zeros(0, np.int64))


def _names_of(path: str) -> list[str]:
    """The ends of a path, with and without the file's ending."""
    parts = path.split("/")
    ends = ["/".join(parts[number:]) for number in range(len(parts))]
    bare = [end.rsplit(".", 1)[0] for end in ends if "." in end.rsplit("/", 1)[-1]]
    return list(dict.fromkeys(ends + bare))
