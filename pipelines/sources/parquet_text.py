"""Text records as rows of Parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar, Literal

import pyarrow as pa
from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record
from omnimill.pipelines.decoders.text import utf8
from omnimill.pipelines.sources.examples import refusal
from omnimill.pipelines.sources.parquet_rows import ParquetRows
from omnimill.pipelines.sources.text_rows import TextRows
from omnimill.schema import Provenance


class ParquetTextSource(ParquetRows, TextRows):
    """Parquet files; a unit is a row group, a record is a row. Fields are columns, and paths lead into structs.

    max_text_bytes: a longer text is quarantined as ``text_too_large``.
    """

    version: ClassVar[int] = 2

    type: Literal["parquet_text"]
    include: tuple[str, ...] = ("**/*.parquet",)
    max_text_bytes: int = Field(16 << 20, gt=0)

    def fields(self) -> list[str]:
        return TextRows.fields(self)

    def required(self) -> list[str]:
        return [self.text_field]

    def read(self, unit: Unit) -> Iterator[Record]:
        uri = unit.files[0]
        file = files.relative(uri, self.path)
        for group, start, batch in self.batches(unit, dictionaries=[self.text_field]):
            yield from self._rows(batch, unit, uri, f"{file}:{group}", start)

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
                    else:
                        digest.update(json.dumps(value, default=str, sort_keys=True).encode())
                    row[name] = value
                key = self.key(place, row, start + i)
            except BadRecord as fault:
                provenance = Provenance(uri=uri, digest=digest.hexdigest())
                yield Record(key, provenance, refusal(fault), data)
                continue
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
        try:
            return scalar.as_py()
        except UnicodeDecodeError as fault:
            raise BadRecord("invalid_utf8", f"in a list or struct: {fault}") from None
