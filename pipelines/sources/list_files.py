"""Lists of records (of URLs with captions, mostly): Parquet, TSV, CSV, JSON Lines, and JSON documents with a list.

A slice is a part of a file that a unit reads: rows of a row group, a range of bytes, or a share of a document's list.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omnimill.errors import BadRecord, ConfigError
from omnimill.infra import storage
from omnimill.pipelines import files
from omnimill.pipelines.decoders.text import parse_json, utf8

NAMES = ("**/*.parquet", "**/*.tsv", "**/*.csv", "**/*.jsonl", "**/*.ndjson", "**/*.json")
_MAX_GROUP_BYTES = 4 << 30
_MAX_DOCUMENT_BYTES = 1 << 30
_SEPARATORS = {"tsv": "\t", "csv": ","}

Slice = Mapping[str, int]


@dataclass(frozen=True)
class Row:
    """A row of a list. place: in its file, the same on every reading. values: a `BadRecord` when it cannot be read."""

    place: str
    values: Mapping[str, Any] | BadRecord


@dataclass(frozen=True)
class ListFormat:
    """How list files are read and cut.

    columns: names of the fields of TSV and CSV lines; None: the file's first line has them.
    rows_field: of a JSON document, the key of its list.
    rows_per_slice: of Parquet. bytes_per_slice: of the other kinds.
    json_lines: whether ``.json`` files hold an object a line.
    batch_rows: of Parquet, rows that are in memory at once. max_line_bytes: a longer line cannot be read.
    """

    columns: tuple[str, ...] | None
    rows_field: str
    rows_per_slice: int
    bytes_per_slice: int
    json_lines: bool = False
    batch_rows: int = 1024
    max_line_bytes: int = 1 << 20

    def slices(self, url: str) -> Iterator[dict[str, int]]:
        """The slices of a file, found without reading its rows; a single empty one when only reading can tell."""
        if files.is_compressed(url):
            raise ConfigError(f"{url}: a compressed list cannot be read in slices; decompress it, or make it Parquet")
        if _ending(url) == "parquet":
            yield from self._parquet_slices(url)
            return
        size = int(storage.stat(url)["bytes"])
        parts = max(1, -(-size // self.bytes_per_slice))
        if self._is_document(url):
            yield from ({"part": part, "parts": parts} for part in range(parts))
        else:
            yield from (
                {"offset": part * self.bytes_per_slice, "length": self.bytes_per_slice} for part in range(parts)
            )

    def _parquet_slices(self, url: str) -> Iterator[dict[str, int]]:
        try:
            with storage.open_read(url) as stream:
                metadata = pq.read_metadata(stream)
                counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        except (pa.ArrowException, OSError):
            yield {}
            return
        for group, count in enumerate(counts):
            for start in range(0, count, self.rows_per_slice):
                yield {"row_group": group, "start": start, "rows": min(self.rows_per_slice, count - start)}

    def rows(self, url: str, part: Slice, fields: Sequence[str]) -> Iterator[Row]:
        """The rows of a slice; of Parquet only the columns among `fields`.

        Raises:
            BadRecord: ``parquet_unreadable``, ``row_group_too_large``, ``invalid_json``, ``missing_field``,
                ``wrong_type``, ``file_too_large``: the slice cannot be read (any further).
        """
        ending = _ending(url)
        if ending == "parquet":
            return _parquet_rows(url, part, fields, self.batch_rows)
        if self._is_document(url):
            return self._document_rows(url, part)
        return self._lines(url, part, _SEPARATORS.get(ending))

    def _is_document(self, url: str) -> bool:
        return _ending(url) == "json" and not self.json_lines

    def _document_rows(self, url: str, part: Slice) -> Iterator[Row]:
        document = parse_json(files.read_file(url, _MAX_DOCUMENT_BYTES))
        entries = document.get(self.rows_field) if isinstance(document, dict) else document
        if not isinstance(entries, list):
            raise BadRecord("wrong_type", f"{self.rows_field!r} is {type(entries).__name__}, not a list")
        first, last = (len(entries) * step // part["parts"] for step in (part["part"], part["part"] + 1))
        for place in range(first, last):
            yield Row(str(place), _mapping(entries[place]))

    def _lines(self, url: str, part: Slice, separator: str | None) -> Iterator[Row]:
        start, stop = part["offset"], part["offset"] + part["length"]
        names = self.columns or ()
        with files.open_expanded(url) as stream:
            header = separator is not None and self.columns is None
            if header and start > 0:
                first = next(files.read_lines(stream, self.max_line_bytes, 0, 1), None)
                names, header = _header(first, separator), False
                stream.seek(0)
            for line in files.read_lines(stream, self.max_line_bytes, start, stop):
                if header:
                    names, header = _header(line, separator), False
                    continue
                yield Row(str(line.offset), _line_values(line, separator, names))


def _ending(url: str) -> str:
    return url.rsplit(".", 1)[-1].lower()


def _mapping(value: Any) -> Mapping[str, Any] | BadRecord:
    if isinstance(value, dict):
        return value
    return BadRecord("wrong_type", f"a row is {type(value).__name__}, not an object")


def _header(line: files.Line | None, separator: str | None) -> tuple[str, ...]:
    fields = None if line is None else _fields(line, separator)
    if fields is None or isinstance(fields, BadRecord):
        raise BadRecord("list_row_malformed", "the first line, which should name the columns, cannot be read")
    return tuple(fields)


def _line_values(line: files.Line, separator: str | None, names: Sequence[str]) -> Mapping[str, Any] | BadRecord:
    fields = _fields(line, separator)
    if isinstance(fields, BadRecord | dict):
        return fields
    if len(fields) != len(names):
        return BadRecord("list_row_malformed", f"{len(fields)} fields; there are {len(names)} columns")
    return dict(zip(names, fields, strict=True))


def _fields(line: files.Line, separator: str | None) -> Any:
    """The fields of a line: a list, or an object when there is no separator; or what is wrong with it."""
    if line.data is None:
        return BadRecord("line_too_long", f"{line.length} bytes")
    try:
        text = utf8(line.data)
        if separator is None:
            return _mapping(parse_json(text))
        if separator == "\t":  # quotes mean nothing in the lists that come as TSV
            return text.split("\t")
        return next(csv.reader([text], strict=True))
    except BadRecord as fault:
        return BadRecord(fault.reason, fault.message)
    except csv.Error as fault:
        return BadRecord("list_row_malformed", str(fault))


def _parquet_rows(url: str, part: Slice, fields: Sequence[str], batch_rows: int) -> Iterator[Row]:
    if not part:
        raise BadRecord("parquet_unreadable", "the footer could not be read when the units were listed")
    group, start, stop = part["row_group"], part["start"], part["start"] + part["rows"]
    with storage.open_read(url) as stream:
        try:
            metadata = pq.read_metadata(stream)
            columns = _wanted(metadata, group, fields)
            position = 0
            for batch in pq.ParquetFile(stream, metadata=metadata).iter_batches(
                batch_rows, row_groups=[group], columns=columns
            ):
                first, last = max(start - position, 0), min(stop - position, batch.num_rows)
                if first < last:
                    for row, values in enumerate(_values(batch.slice(first, last - first)), position + first):
                        yield Row(f"{group}:{row}", values)
                position += batch.num_rows
                if position >= stop:
                    return
        except (pa.ArrowException, OSError) as fault:
            if getattr(fault, "errno", None) is not None:
                raise
            raise BadRecord("parquet_unreadable", str(fault)) from fault


def _wanted(metadata: pq.FileMetaData, group: int, fields: Sequence[str]) -> list[str]:
    names = set(fields)
    chunks = metadata.row_group(group)
    size = sum(
        int(chunks.column(i).total_uncompressed_size)
        for i in range(metadata.num_columns)
        if metadata.schema.column(i).path.partition(".")[0] in names or metadata.schema.column(i).path in names
    )
    if size > _MAX_GROUP_BYTES:
        raise BadRecord("row_group_too_large", f"{size} bytes uncompressed; at most {_MAX_GROUP_BYTES}")
    return [name for name in metadata.schema.to_arrow_schema().names if name in names]


def _values(batch: pa.RecordBatch) -> Iterator[Mapping[str, Any] | BadRecord]:
    columns = {}
    for name in batch.schema.names:
        column = batch.column(name)
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        # Text comes as bytes that nobody checked: one bad value must not cost its neighbours.
        kind = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(column.type)
        columns[name] = (column if kind is None else column.cast(kind)).to_pylist()
    for row in range(batch.num_rows):
        try:
            values = ((name, column[row]) for name, column in columns.items())
            yield {name: utf8(value) if isinstance(value, bytes) else value for name, value in values}
        except BadRecord as fault:
            yield BadRecord(fault.reason, fault.message)
