"""What adapters of annotations that are rows share: Parquet, JSON Lines, JSON documents, CSV and TSV in units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, islice
from typing import Any, ClassVar

from blake3 import blake3
from pydantic import Field

from omnimill.config import canonical_json
from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.adapters.annotation_index import Row as Statement
from omnimill.pipelines.adapters.annotation_index import open_index
from omnimill.pipelines.adapters.annotation_rows import json_rows
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.fields import fact
from omnimill.pipelines.sources.examples import refusal
from omnimill.pipelines.sources.list_files import ListFormat, Row
from omnimill.schema import Example, Provenance

# A line that holds pictures as base64 may be long.
_MAX_LINE_BYTES = 64 << 20
# Rows of Parquet that hold pictures are read so many at a time.
_BATCH_ROWS = 32


class RowFiles(Source):
    """Base of adapters whose records are rows of files; a unit is a slice of a file.

    path: a file, or a folder of files chosen by `include` and `exclude`: ``.parquet``, ``.jsonl`` (also compressed: a
        unit each), ``.json`` (a list, or an object with a list or an object of rows under `rows_field`), ``.csv``,
        ``.tsv``. JSON documents may be of any size: each machine that reads units goes through them once.
    tag_fields: from tag to field, for what is known of a row.
    held_out: the first so many rows of each file are for validation: they are dropped as ``held_out``. Rows that a JSON
        document names have no order, and are all read.
    rows_per_unit: of Parquet. bytes_per_unit: of the other kinds.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "rows_per_unit", "bytes_per_unit")

    path: str
    include: tuple[str, ...] = ("**/*.parquet", "**/*.jsonl", "**/*.jsonl.gz", "**/*.jsonl.zst", "**/*.json")
    exclude: tuple[str, ...] = ()
    rows_field: str = "data"
    tag_fields: dict[str, str] = Field(default_factory=dict)
    held_out: int = Field(0, ge=0)
    rows_per_unit: int = Field(1000, ge=1)
    bytes_per_unit: int = Field(8 << 20, ge=1)

    def fields(self) -> Sequence[str]:
        """The fields that are read; columns of Parquet that are not among them are left alone."""
        raise NotImplementedError

    def example(self, unit: Unit, key: str, provenance: Provenance, row: Mapping[str, Any]) -> Sequence[Example]:
        """The examples of a row; raises BadRecord or RecordDropped."""
        raise NotImplementedError

    def media(self, row: Mapping[str, Any]) -> Sequence[str]:  # noqa: ARG002 - subclasses use it
        """URLs of the files that a row refers to; raises BadRecord."""
        return ()

    def lists(self) -> ListFormat:
        """How the files are read."""
        return ListFormat(
            None,
            self.rows_field,
            self.rows_per_unit,
            self.bytes_per_unit,
            batch_rows=_BATCH_ROWS,
            max_line_bytes=_MAX_LINE_BYTES,
        )

    def units(self) -> Iterator[Unit]:
        for url in files.find(self.path, self.include, self.exclude):
            whole: dict[str, int] = {"offset": 0, "length": 1 << 62}
            parts = [whole] if files.is_compressed(url) else list(self.lists().slices(url))
            for part, end in zip(parts, self._ends(url, parts), strict=True):
                options = {**part, "held_out": end} if end > 0 else part
                yield Unit(source=self.name, files=(url,), options=options)

    def _ends(self, url: str, parts: Sequence[Mapping[str, int]]) -> list[int]:
        """Where the rows that are held out end: a row of a slice of Parquet, a row of a document, a byte of lines."""
        if not self.held_out:
            return [0] * len(parts)
        if self.is_document(url):
            return [self.held_out] * len(parts)
        if parts and "offset" not in parts[0]:
            before = accumulate((part.get("rows", 0) for part in parts), initial=0)
            return [self.held_out - count for part, count in zip(parts, before, strict=False)]
        with files.open_expanded(url) as stream:
            offsets = (line.offset + 1 for line in files.read_lines(stream, _MAX_LINE_BYTES))
            header = url.lower().endswith((".csv", ".tsv"))
            end = max(islice(offsets, self.held_out + header), default=0)
        return [end if end > part["offset"] else 0 for part in parts]

    def is_document(self, url: str) -> bool:
        """Whether a file is one JSON document."""
        return url.lower().endswith(".json") and not self.lists().json_lines

    def inputs(self, unit: Unit) -> list[InputRef]:
        """The unit's rows, by what is in the fields that are read, and the files that they refer to."""
        hasher, size, named = blake3(), 0, dict[str, None]()
        try:
            for row in self.rows(unit):
                line = canonical_json([row.place, _content(row, self.fields())])
                hasher.update(line)
                size += len(line)
                if not isinstance(row.values, BadRecord):
                    named |= dict.fromkeys(self._media(row.values))
        except BadRecord:
            return super().inputs(unit)
        refs = [InputRef(uri=unit.files[0], digest=hasher.hexdigest(), bytes=size)]
        marks = storage.stats(named)
        there = [url for url in named if marks[url] is not None]
        for url, digest in zip(there, storage.digest_files(there), strict=True):
            refs.append(InputRef(uri=url, digest=digest, bytes=int((marks[url] or {})["bytes"])))
        return refs

    def rows(self, unit: Unit) -> Iterator[Row]:
        """The rows of a unit; raises BadRecord when they cannot be read (any further)."""
        url = unit.files[0]
        if self.is_document(url):
            return self._document_rows(url, int(unit.options["part"]), int(unit.options["parts"]))
        return self.lists().rows(url, unit.options, [*self.fields(), *map(_column, self.fields())])

    def read(self, unit: Unit) -> Iterator[Record]:
        uri = unit.files[0]
        name = files.relative(uri, self.path)
        end = int(unit.options.get("held_out", 0))
        in_group = "row_group" in unit.options
        for number, row in enumerate(self.rows(unit)):
            key = f"{name}:{row.place}"
            if end and (in_group or row.place.isdecimal()) and (number if in_group else int(row.place)) < end:
                yield Record(key, Provenance(uri=uri, digest=""), refusal(RecordDropped("held_out")))
                continue
            if isinstance(row.values, BadRecord):
                yield Record(key, Provenance(uri=uri, digest=""), refusal(row.values))
                continue
            line = canonical_json(plain(row.values))
            provenance = Provenance(uri=uri, digest=self._digest(line, row.values))
            small = line if len(line) <= files.SMALL_BYTES else None
            yield Record(key, provenance, partial(self.example, unit, key, provenance, row.values), small)

    def _digest(self, line: bytes, row: Mapping[str, Any]) -> str:
        """The digest of a row and of the files that it refers to, as far as they are there."""
        hasher = blake3(line)
        for url in self._media(row):
            with suppress(FileNotFoundError):  # decoding the row will say so
                hasher.update(storage.digest_file(url).encode())
        return hasher.hexdigest()

    def tags(self, row: Mapping[str, Any]) -> dict[str, str]:
        """The tags of a row; raises BadRecord ``wrong_type``."""
        found = {tag: fact(row, field) for tag, field in self.tag_fields.items()}
        return {tag: value for tag, value in found.items() if value is not None}

    def _document_rows(self, url: str, part: int, parts: int) -> Iterator[Row]:
        index = open_index({"rows_field": self.rows_field}, [url], lambda _: _children(url, self.rows_field))
        for entry in index.entries(part, parts):
            row = entry.said()["row"][0]
            if not isinstance(row, dict):
                row = BadRecord("wrong_type", f"a row is {type(row).__name__}, not an object")
            yield Row(entry.key, row)

    def _media(self, row: Mapping[str, Any]) -> Sequence[str]:
        try:
            return self.media(row)
        except BadRecord:
            return ()  # reading the row will say what is wrong


def plain(value: Any) -> Any:
    """A row as JSON can hold it: bytes by their digest."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return blake3(value).hexdigest()
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value if isinstance(value, int | float | None) else str(value)


def _children(url: str, rows_field: str) -> Iterator[Statement]:
    """The rows of a JSON document by their names, or by their numbers, in the order of these."""
    with files.open_expanded(url) as stream:
        is_list = stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    for _, key, row in json_rows(url, "" if is_list else rows_field):
        yield Statement(key if isinstance(key, str) else f"{key:09}", "row", row)


def _content(row: Row, fields: Sequence[str]) -> Any:
    if isinstance(row.values, BadRecord):
        return None
    return {name: plain(row.values.get(name)) for name in (*fields, *map(_column, fields))}


def _column(field: str) -> str:
    """The top-level field that a path with dots leads into."""
    return field.partition(".")[0]
