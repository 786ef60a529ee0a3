"""Tables about recordings: captions, spans and labels by file, in CSV, TSV, JSON Lines, JSON or Parquet.

A table may have a row for each of millions of recordings. Each machine that reads units makes one sorted copy of it
on its local disk, in which the rows of a recording are found without reading the others.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import shutil
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from blake3 import blake3
from pydantic import Field, model_validator

from omnimill.config import Config, digest_json
from omnimill.errors import BadRecord, ConfigError
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef
from omnimill.pipelines import files

_FIELD = re.compile(r"\{([^{}:]+)(?::(0?\d*(?:\.\d+)?[fd]))?\}")
_STAMP = re.compile(r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)")
_MAX_LINE_BYTES = 64 << 20
_MAX_JSON_BYTES = 1 << 30
# csv refuses longer fields; the limit is the module's own for the whole process.
csv.field_size_limit(_MAX_LINE_BYTES)


class LabelNames(Config):
    """A CSV file with header that gives labels names. key, name: its columns."""

    file: str
    key: str
    name: str


class TableSettings(Config):
    """Where a table lies, how its rows are read and what they say.

    files: globs below the source's path; rows come in the order of the sorted files.
    file: which recording a row is about, with the row's columns in braces: ``{page_dir}/{videoid}``. A row belongs to
        the recordings whose path ends with it, with or without ending. ``{start:.0f}`` formats a number.
    rows: where the rows lie inside each JSON object, as a path: a name, ``*`` for all items, ``{column}`` for all
        items of an object with their keys as a column. What stands around them belongs to each row.
    columns: of a CSV or TSV file without header. comment: lines that begin with it are passed over.
    start, end: columns of times, in seconds or as ``HH:MM:SS.fff``. A row with neither is about the whole recording,
        one with a start alone about a moment. A dotted name leads into lists and objects: ``span.0``.
    caption, labels, url: columns. labels may be a list, or text with `label_separator`.
    tags: columns by the name of the tag that they become.
    cut: only the spans from start to end are kept of a recording.
    required: a recording without rows is dropped as ``not_in_table``.
    """

    files: tuple[str, ...] = Field(min_length=1)
    file: str
    rows: str | None = None
    columns: tuple[str, ...] | None = None
    comment: str | None = Field(None, min_length=1)
    start: str | None = None
    end: str | None = None
    caption: str | None = None
    labels: str | None = None
    label_separator: str = Field(",", min_length=1)
    label_names: LabelNames | None = None
    url: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    cut: bool = False
    required: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> TableSettings:
        if not _FIELD.search(self.file):
            raise ValueError("file names no column in braces")
        if self.cut and (self.start is None or self.end is None):
            raise ValueError("cut needs the columns start and end")
        if self.end is not None and self.start is None:
            raise ValueError("end is given without start")
        return self


@dataclass(frozen=True)
class Note:
    """What one row says about a recording. start, end: seconds; neither for the whole, no end for a moment.

    fault: why the row cannot be used; empty when it can.
    """

    start: float | None = None
    end: float | None = None
    caption: str | None = None
    labels: tuple[str, ...] = ()
    url: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    fault: str = ""


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
                    note = {**row["note"], "labels": tuple(row["note"]["labels"])}
                    note["tags"] = tuple((tag, text) for tag, text in note["tags"])
                    found[offset] = (int(row["file"]), Note(**note))
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
    home = _home()
    folder = home / f"{own}-{marks}"
    if not folder.is_dir():
        for old in home.glob(f"{own}-*"):
            shutil.rmtree(old, ignore_errors=True)
        made = Path(tempfile.mkdtemp(dir=home))
        try:
            _build(made, table, uris, _label_names(table.label_names, names))
            with suppress(OSError):  # another process was as fast
                made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return Table(folder, uris, names)


def _home() -> Path:
    """A folder of this user's for copies of tables."""
    home = Path(tempfile.gettempdir()) / f"omnimill-tables-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_uid != os.getuid() or home.is_symlink():
        raise ConfigError(f"{home} belongs to somebody else")
    return home


def _build(folder: Path, settings: TableSettings, uris: Sequence[str], names: dict[str, str]) -> None:
    hashes, offsets = array("Q"), array("q")
    with (folder / "rows.jsonl").open("wb") as rows:
        for number, uri in enumerate(uris):
            for row in _rows(settings, uri):
                key = _key(settings.file, row, uri)
                note = _note(settings, row, names)
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


def _rows(settings: TableSettings, uri: str) -> Iterator[dict[str, Any]]:
    """The rows of one file of a table, as objects of columns."""
    form = next((part for part in reversed(uri.lower().split(".")) if part not in ("gz", "zst", "bz2")), "")
    if form in ("csv", "tsv"):
        yield from _csv_rows(settings, uri, "," if form == "csv" else "\t")
        return
    if form == "parquet":
        items: Iterator[Any] = _parquet_rows(uri)
    elif form in ("jsonl", "ndjson"):
        items = _json_lines(uri)
    elif form == "json":
        items = _json(uri)
    else:
        raise ConfigError(f"{uri}: a table is .csv, .tsv, .jsonl, .json or .parquet")
    path = settings.rows.split(".") if settings.rows else []
    for item in items:
        yield from _inside(item, path, {})


def _csv_rows(settings: TableSettings, uri: str, delimiter: str) -> Iterator[dict[str, Any]]:
    with files.open_expanded(uri) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
        comment = settings.comment
        lines = (line.replace("\0", "") for line in text if comment is None or not line.startswith(comment))
        reader = csv.DictReader(lines, settings.columns, delimiter=delimiter, skipinitialspace=True)
        try:
            yield from reader
        except csv.Error as error:
            raise ConfigError(f"{uri}: line {reader.line_num}: {error}") from None


def _json_lines(uri: str) -> Iterator[Any]:
    with files.open_expanded(uri) as stream:
        for line in files.read_lines(stream, _MAX_LINE_BYTES):
            try:
                yield json.loads(line.data or b"")
            except (ValueError, RecursionError):
                raise ConfigError(f"{uri}: no JSON at byte {line.offset}") from None


def _json(uri: str) -> Iterator[Any]:
    with files.open_expanded(uri) as stream:
        data = stream.read(_MAX_JSON_BYTES + 1)
    if len(data) > _MAX_JSON_BYTES:
        raise ConfigError(f"{uri}: more than {_MAX_JSON_BYTES >> 30} GiB; make JSON Lines of it")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{uri}: no JSON: {error}") from None
    yield from content if isinstance(content, list) else [content]


def _parquet_rows(uri: str) -> Iterator[Any]:
    with storage.open_read(uri) as stream:
        try:
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=4096):
                yield from batch.to_pylist()
        except pa.ArrowException as error:
            raise ConfigError(f"{uri}: no Parquet that is read: {str(error)[:200]}") from None


def _inside(item: Any, path: Sequence[str], around: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows at a path inside an item; what stands around them comes along."""
    if isinstance(item, dict):
        around = around | {name: value for name, value in item.items() if not path or name != path[0]}
    if not path:
        if isinstance(item, dict):
            yield around
        return
    step, rest = path[0], path[1:]
    if isinstance(item, list):
        children: list[tuple[Any, Any]] = [(None, child) for child in item] if step == "*" else []
    elif isinstance(item, dict):
        all_of_them = step == "*" or step.startswith("{")
        children = list(item.items()) if all_of_them else [(step, item[step])] if step in item else []
        if all_of_them:
            around = {name: value for name, value in around.items() if name not in item}
    else:
        children = []
    for key, child in children:
        named = {step.strip("{}"): key} if step.startswith("{") else {}
        yield from _inside(child, rest, around | named)


def _value(row: dict[str, Any], column: str) -> Any:
    """A column, or what a dotted name leads to."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return None
    return value


def _key(template: str, row: dict[str, Any], uri: str) -> str:
    def fill(match: re.Match[str]) -> str:
        value = _value(row, match[1])
        if value is None:
            raise ConfigError(f"{uri}: no column {match[1]!r}; there are {', '.join(map(str, row))[:200]}")
        if match[2] is None:
            return str(value)
        try:
            number = float(value)
            return format(int(number) if match[2].endswith("d") else number, match[2])
        except (TypeError, ValueError, OverflowError):
            return str(value)  # the name of no recording

    return _FIELD.sub(fill, template)


def _note(settings: TableSettings, row: dict[str, Any], names: dict[str, str]) -> Note:
    try:
        start = _seconds(_value(row, settings.start)) if settings.start else None
        end = _seconds(_value(row, settings.end)) if settings.end else None
        if settings.cut and (start is None or end is None):
            raise ValueError("no span")
        if start is not None and end is not None and end <= start:
            raise ValueError(f"a span from {start:g} to {end:g} s")
    except ValueError as error:
        return Note(fault=str(error)[:200])
    caption = _text(_value(row, settings.caption)) if settings.caption else None
    labels = _value(row, settings.labels) if settings.labels else None
    if isinstance(labels, str):
        labels = labels.split(settings.label_separator)
    texts = [text for label in labels or () if (text := _text(label))]
    tags = ((tag, text) for tag, column in sorted(settings.tags.items()) if (text := _text(_value(row, column))))
    return Note(
        start,
        end,
        caption,
        tuple(names.get(text, text) for text in texts),
        _text(_value(row, settings.url)) if settings.url else None,
        tuple(tags),
    )


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, dict | list):
        return None
    return str(value).strip() or None


def _seconds(value: Any) -> float | None:
    if value is None or value == "":
        return None
    text = str(value).strip()
    if match := _STAMP.fullmatch(text):
        return int(match[1] or 0) * 3600 + int(match[2]) * 60 + float(match[3])
    number = float(text)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"no valid time: {text[:80]!r}")
    return number


def _label_names(settings: LabelNames | None, uri: str | None) -> dict[str, str]:
    if settings is None or uri is None:
        return {}
    with files.open_expanded(uri) as stream:
        reader = csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""))
        missing = {settings.key, settings.name} - set(reader.fieldnames or ())
        if missing:
            raise ConfigError(f"{uri}: no column {', '.join(sorted(missing))}")
        return {row[settings.key]: row[settings.name] for row in reader}


def usable(notes: Sequence[Note]) -> list[Note]:
    """The rows that can be used.

    Raises:
        BadRecord: ``span_malformed`` when there are rows and none can be.
    """
    good = [note for note in notes if not note.fault]
    if notes and not good:
        raise BadRecord("span_malformed", notes[0].fault)
    return good
