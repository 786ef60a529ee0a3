"""Trees of text files: program sources and the prose that lies among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.sniff import suffix
from omnimill.pipelines.decoders.text import plain_text
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.schema import Example, Provenance, Text


class SourceTreeSource(Source):
    """Files below a folder, each an example with one text.

    prose: suffixes whose text has the role ``body``; all others have the role ``code``.
    max_file_bytes: a larger file is quarantined as ``file_too_large``. Files with NUL bytes are ``binary_file``; files
        without any text are dropped as ``empty_file``: they are common in source trees.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "files_per_unit")

    type: Literal["source_tree"]
    path: str
    include: tuple[str, ...] = ("**/*.py", "**/*.md", "**/*.rst", "**/*.txt")
    exclude: tuple[str, ...] = ()
    prose: tuple[str, ...] = ("md", "rst", "txt", "adoc", "tex")
    files_per_unit: int = Field(256, gt=0)
    max_file_bytes: int = Field(4 << 20, gt=0)

    def units(self) -> Iterator[Unit]:
        for group in files.groups(files.find(self.path, self.include, self.exclude), self.files_per_unit):
            yield Unit(source=self.name, files=group)

    def read(self, unit: Unit) -> Iterator[Record]:
        for uri in unit.files:
            key = files.relative(uri, self.path)
            try:
                data = files.read_file(uri, self.max_file_bytes)
            except BadRecord as fault:
                verdict = RecordDropped(fault.reason) if fault.reason == "empty_file" else fault
                yield Record(key, Provenance(uri=uri, digest=storage.digest_file(uri)), refusal(verdict))
                continue
            provenance = Provenance(uri=uri, digest=blake3(data).hexdigest())
            small = data if len(data) <= files.SMALL_BYTES else None
            yield Record(key, provenance, partial(self._decode, unit, key, provenance, data), small)

    def _decode(self, unit: Unit, key: str, provenance: Provenance, data: bytes) -> Sequence[Example]:
        text = plain_text(data)
        if not text.strip():
            raise RecordDropped("empty_file")
        role = "body" if suffix(key) in self.prose else "code"
        return [make_example(self, unit, key, provenance, text=[Text(role=role, text=text)])]
