"""Text records as JSON lines, plain or compressed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record
from omnimill.pipelines.decoders.text import parse_json
from omnimill.pipelines.sources.examples import refusal
from omnimill.pipelines.sources.text_rows import TextRows
from omnimill.schema import Provenance


class JsonlSource(TextRows):
    """JSON Lines files: one object a line. A record is a line that is not blank.

    A plain file is cut into byte ranges of `bytes_per_unit`; a line belongs to the range that holds its first byte.
    Compressed files (``.gz``, ``.zst``, ``.bz2``) are read as one unit each, and offsets count decompressed bytes.

    max_line_bytes: a longer line is quarantined as ``line_too_long`` without being held in memory.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "bytes_per_unit")

    type: Literal["jsonl"]
    include: tuple[str, ...] = ("**/*.jsonl", "**/*.jsonl.gz", "**/*.jsonl.zst", "**/*.ndjson")
    bytes_per_unit: int = Field(16 << 20, gt=0)
    max_line_bytes: int = Field(16 << 20, gt=0)

    def units(self) -> Iterator[Unit]:
        for url in files.find(self.path, self.include, self.exclude):
            if files.is_compressed(url):
                yield Unit(source=self.name, files=(url,))
            else:
                yield from files.byte_ranges(self.name, url, self.bytes_per_unit)

    def inputs(self, unit: Unit) -> list[InputRef]:
        """The file, or of a byte range the lines that begin in it."""
        if not unit.options:
            return super().inputs(unit)
        hasher, size = blake3(), 0
        for line in self._lines(unit):
            hasher.update(f"{line.offset} {line.digest}\n".encode())
            size += line.length
        return [InputRef(uri=unit.files[0], digest=hasher.hexdigest(), bytes=size)]

    def read(self, unit: Unit) -> Iterator[Record]:
        uri = unit.files[0]
        name = files.relative(uri, self.path)
        for line in self._lines(unit):
            provenance = Provenance(uri=uri, digest=line.digest, offset=line.offset, length=line.length)
            data = line.data if line.length <= files.SMALL_BYTES else None
            try:
                row = self._row(line)
                key = self.key(name, row, line.offset)
            except BadRecord as fault:
                yield Record(self.key(name, {}, line.offset), provenance, refusal(fault), data)
                continue
            yield Record(key, provenance, partial(self.example, unit, key, provenance, row), data)

    def _lines(self, unit: Unit) -> Iterator[files.Line]:
        start = int(unit.options.get("offset", 0))
        stop = start + int(unit.options["length"]) if unit.options else None
        with files.open_expanded(unit.files[0]) as stream:
            yield from files.read_lines(stream, self.max_line_bytes, start, stop)

    def _row(self, line: files.Line) -> Mapping[str, Any]:
        if line.data is None:
            raise BadRecord("line_too_long", f"{line.length} bytes; at most {self.max_line_bytes}")
        row = parse_json(line.data)
        if not isinstance(row, dict):
            raise BadRecord("wrong_type", f"the line is {type(row).__name__}, not an object")
        return row
