"""Text records as rows of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record
from omnimill.pipelines.decoders.text import utf8
from omnimill.pipelines.sources.examples import refusal
from omnimill.pipelines.sources.text_rows import TextRows
from omnimill.schema import Provenance

_ROWS = 1024


class ParquetTextSource(TextRows):
    """Parquet files; a unit is a row group, a record is a row. The `*_field` settings name columns.

    A file whose footer cannot be read is one unit, and that one record goes to quarantine.

    max_group_bytes: a row group whose columns in use are larger, uncompressed, is quarantined as a whole.
    max_text_bytes: a longer text is quarantined as ``text_too_large``.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude")

    type: Literal["parquet_text"]
    include: tuple[str, ...] = ("**/*.parquet",)
    max_group_bytes: int = Field(1 << 30, gt=0)
    max_text_bytes: int = Field(16 << 20, gt=0)

    def units(self) -> Iterator[Unit]:
        for url in files.find(self.path, self.include, self.exclude):
            try:
                with storage.open_read(url) as stream:
                    count = pq.read_metadata(stream).num_row_groups
            except (pa.ArrowException, OSError):
                yield Unit(source=self.name, files=(url,))  # reading it will say what is wrong
                continue
            for group in range(count):
                yield Unit(source=self.name, files=(url,), options={"row_group": group})

    def inputs(self, unit: Unit) -> list[InputRef]:
        """The bytes of the row group's columns that are read; of a file without readable footer all bytes."""
        if not unit.options:
            return super().inputs(unit)
        hasher, size = blake3(), 0
        with storage.open_read(unit.files[0]) as stream:
            for name, start, length in self._chunks(pq.read_metadata(stream), unit):
                stream.seek(start)
                hasher.update(f"{name} {length}\n".encode())
                hasher.update(stream.read(length))
                size += length
        return [InputRef(uri=unit.files[0], digest=hasher.hexdigest(), bytes=size)]

    def read(self, unit: Unit) -> Iterator[Record]:
        uri = unit.files[0]
        file = files.relative(uri, self.path)
        with storage.open_read(uri) as stream:
            try:
                metadata = pq.read_metadata(stream)
                group, columns = self._checked(metadata, unit)
                # Dictionary-encoded text stays so: a long value that many rows share is in memory once.
                table = pq.ParquetFile(stream, metadata=metadata, read_dictionary=[self.text_field])
                batches = table.iter_batches(_ROWS, row_groups=[group], columns=columns)
                start = 0
                for batch in batches:
                    yield from self._rows(batch, unit, uri, f"{file}:{group}", start)
                    start += batch.num_rows
            except (pa.ArrowException, OSError) as fault:
                if getattr(fault, "errno", None) is not None:
                    raise
                raise BadRecord("parquet_unreadable", str(fault)) from fault

    def _checked(self, metadata: pq.FileMetaData, unit: Unit) -> tuple[int, list[str]]:
        if not unit.options:
            raise BadRecord("parquet_unreadable", "the footer could not be read when the units were listed")
        present = metadata.schema.to_arrow_schema().names
        if self.text_field not in present:
            raise BadRecord("missing_field", f"no column {self.text_field!r}; it has {', '.join(sorted(present))}")
        group = int(unit.options["row_group"])
        chunks = metadata.row_group(group)
        size = sum(int(chunks.column(i).total_uncompressed_size) for i in self._columns(metadata))
        if size > self.max_group_bytes:
            raise BadRecord("row_group_too_large", f"{size} bytes uncompressed; at most {self.max_group_bytes}")
        return group, [name for name in self.fields() if name in present]

    def _columns(self, metadata: pq.FileMetaData) -> list[int]:
        names = set(self.fields())
        return [i for i in range(metadata.num_columns) if metadata.schema.column(i).path in names]

    def _chunks(self, metadata: pq.FileMetaData, unit: Unit) -> Iterator[tuple[str, int, int]]:
        group = metadata.row_group(int(unit.options["row_group"]))
        for i in self._columns(metadata):
            column = group.column(i)
            start = column.dictionary_page_offset or column.data_page_offset
            yield column.path_in_schema, min(start, column.data_page_offset), column.total_compressed_size

    def _rows(self, batch: pa.RecordBatch, unit: Unit, uri: str, place: str, start: int) -> Iterator[Record]:
        columns = {name: _Column(batch.column(name)) for name in batch.schema.names}
        for i in range(batch.num_rows):
            row: dict[str, Any] = {}
            digest = blake3()
            data: bytes | None = None
            key = f"{place}:{start + i}"
            try:
                for name, column in columns.items():
                    value = column.value(i, self.max_text_bytes)
                    if isinstance(value, bytes):
                        digest.update(value)
                        data = value if name == self.text_field else data
                        value = utf8(value)
                    row[name] = value
            except BadRecord as fault:
                provenance = Provenance(uri=uri, digest=digest.hexdigest())
                yield Record(key, provenance, refusal(fault), data)
                continue
            key = self.key(place, row, start + i)
            provenance = Provenance(uri=uri, digest=digest.hexdigest())
            small = data if data is not None and len(data) <= files.SMALL_BYTES else None
            yield Record(key, provenance, partial(self.example, unit, key, provenance, row), small)


class _Column:
    """Values of an Arrow column, text as bytes that were not checked, each dictionary entry held once."""

    def __init__(self, column: pa.Array) -> None:
        self._indices: pa.Array | None = None
        if isinstance(column, pa.DictionaryArray):
            self._indices, column = column.indices, column.dictionary
        if pa.types.is_string(column.type):
            column = column.cast(pa.binary())
        elif pa.types.is_large_string(column.type):
            column = column.cast(pa.large_binary())
        self._values = column

    def value(self, i: int, max_bytes: int) -> Any:
        """The i-th value; raises BadRecord ``text_too_large`` above `max_bytes`."""
        if self._indices is not None:
            index = self._indices[i].as_py()
            if index is None:
                return None
            i = index
        scalar = self._values[i]
        if pa.types.is_binary(scalar.type) or pa.types.is_large_binary(scalar.type):
            size = 0 if scalar.as_buffer() is None else scalar.as_buffer().size
            if size > max_bytes:
                raise BadRecord("text_too_large", f"{size} bytes; at most {max_bytes}")
        return scalar.as_py()
