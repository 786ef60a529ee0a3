"""What sources that read Parquet share: a unit is a row group or a run of them; only columns in use are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.fields import top_field

_ROWS = 1024


class ParquetRows(Source):
    """Base of sources of Parquet files. A file whose footer cannot be read is one unit, all of it quarantined.

    max_group_bytes: a row group whose columns in use are larger, uncompressed, is quarantined, and the rest of its
        unit with it.
    row_groups_per_unit: more make fewer units where row groups are small.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "row_groups_per_unit")

    path: str
    include: tuple[str, ...] = ("**/*.parquet",)
    exclude: tuple[str, ...] = ()
    max_group_bytes: int = Field(1 << 30, gt=0)
    row_groups_per_unit: int = Field(1, ge=1)

    def fields(self) -> list[str]:
        """All fields that are read: columns, or paths with dots that lead into them."""
        raise NotImplementedError

    def required(self) -> list[str]:
        """Those of `fields` without which a file cannot be read."""
        raise NotImplementedError

    def units(self) -> Iterator[Unit]:
        for url in files.find(self.path, self.include, self.exclude):
            try:
                with storage.open_read(url) as stream:
                    count = pq.read_metadata(stream).num_row_groups
            except (pa.ArrowException, OSError):
                yield Unit(source=self.name, files=(url,))  # reading it will say what is wrong
                continue
            for first in range(0, count, self.row_groups_per_unit):
                groups = min(self.row_groups_per_unit, count - first)
                run = {"row_groups": groups} if groups > 1 else {}
                yield Unit(source=self.name, files=(url,), options={"row_group": first, **run})

    def inputs(self, unit: Unit) -> list[InputRef]:
        """The bytes of the columns that are read; of a file without readable footer all bytes."""
        if not unit.options:
            return super().inputs(unit)
        hasher, size = blake3(), 0
        with storage.open_read(unit.files[0]) as stream:
            metadata = pq.read_metadata(stream)
            chunks = (chunk for group in _groups(unit) for chunk in self._chunks(metadata, group))
            for name, start, length in chunks:
                stream.seek(start)
                hasher.update(f"{name} {length}\n".encode())
                hasher.update(stream.read(length))
                size += length
        return [InputRef(uri=unit.files[0], digest=hasher.hexdigest(), bytes=size)]

    def batches(self, unit: Unit, dictionaries: Sequence[str] = ()) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """The unit's rows in batches, each with its row group and the number of its first row in that.

        Args:
            dictionaries: text columns to leave dictionary-encoded where they are: a long value that many rows share
                is in memory once.

        Raises:
            BadRecord: ``parquet_unreadable``, ``missing_field``, ``row_group_too_large``.
        """
        with storage.open_read(unit.files[0]) as stream:
            try:
                metadata = pq.read_metadata(stream)
                if not unit.options:
                    raise BadRecord("parquet_unreadable", "the footer could not be read when the units were listed")
                columns = self._present(metadata)
                file = pq.ParquetFile(stream, metadata=metadata, read_dictionary=list(dictionaries))
                for group in _groups(unit):
                    self._check_size(metadata, group)
                    start = 0
                    for batch in file.iter_batches(_ROWS, row_groups=[group], columns=columns):
                        yield group, start, batch
                        start += batch.num_rows
            except (pa.ArrowException, OSError) as fault:
                if getattr(fault, "errno", None) is not None:
                    raise
                raise BadRecord("parquet_unreadable", str(fault)) from fault

    def _present(self, metadata: pq.FileMetaData) -> list[str]:
        """The columns to read; raises BadRecord when one that is required is not there."""
        present = metadata.schema.to_arrow_schema().names
        for field in self.required():
            if top_field(field, present) not in present:
                raise BadRecord("missing_field", f"no column {field!r}; it has {', '.join(sorted(present))}")
        return self._names(present)

    def _check_size(self, metadata: pq.FileMetaData, group: int) -> None:
        chunks = metadata.row_group(group)
        size = sum(int(chunks.column(i).total_uncompressed_size) for i in self._columns(metadata))
        if size > self.max_group_bytes:
            raise BadRecord("row_group_too_large", f"{size} bytes uncompressed; at most {self.max_group_bytes}")

    def _names(self, present: list[str]) -> list[str]:
        wanted = (top_field(field, present) for field in self.fields())
        return [name for name in dict.fromkeys(wanted) if name in present]

    def _columns(self, metadata: pq.FileMetaData) -> list[int]:
        """Indices of the stored columns that are read; a list or a struct is stored as columns below its name."""
        names = set(self._names(metadata.schema.to_arrow_schema().names))
        paths = ((i, metadata.schema.column(i).path) for i in range(metadata.num_columns))
        return [i for i, path in paths if path in names or path.partition(".")[0] in names]

    def _chunks(self, metadata: pq.FileMetaData, group: int) -> Iterator[tuple[str, int, int]]:
        row_group = metadata.row_group(group)
        for i in self._columns(metadata):
            column = row_group.column(i)
            start = column.dictionary_page_offset or column.data_page_offset
            yield column.path_in_schema, min(start, column.data_page_offset), column.total_compressed_size


def _groups(unit: Unit) -> range:
    """The row groups of a unit."""
    first = int(unit.options["row_group"])
    return range(first, first + int(unit.options.get("row_groups", 1)))
