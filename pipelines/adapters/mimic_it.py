"""MIMIC-IT: instructions about one or several pictures, with earlier instructions as context."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3
from pydantic import Field

from omnimill.config import canonical_json
from omnimill.errors import BadRecord, ConfigError, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.adapters.annotation_index import AnnotationIndex, Row, open_index
from omnimill.pipelines.adapters.annotation_rows import json_rows
from omnimill.pipelines.adapters.dialogue import Turn, exchanges
from omnimill.pipelines.adapters.picture_instructions import evenly
from omnimill.pipelines.adapters.row_pictures import row_picture
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.images import ImageSettings
from omnimill.pipelines.decoders.text import text_value
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.schema import Example, Provenance, Text

_ENDING = "_instructions.json"
# Of instructions, typically; with the size of a file it tells how many units there are.
_BYTES = 512
# Of pictures in Parquet: the column of base64, and how many are in memory at once.
_PIXELS = "base64"
_BATCH_ROWS = 32
_Said = Mapping[str, Any]


class MimicItSource(Source):
    """``<name>_instructions.json`` with instructions, and ``<name>.json`` with the pictures as base64 by their ids.

    Pictures may be Parquet, too: ids and a column ``base64``.

    A record is an instruction: item 0 with ``question`` (earlier instructions and answers that it is related to come
    first) and ``answer``, about its pictures in their order. Each machine that reads units goes through the two files
    once, and keeps a copy of them by id on its disk.

    instructions: globs of files below `path`. pictures: their pictures beside them; ``{name}`` is the name before
        ``_instructions``.
    related: how many related instructions (``rel_ins_ids``) become earlier turns; 0 for none. Only those about the
        same pictures do: others would speak of what is not shown.
    max_pictures: of an instruction with more (frames of a film), so many are taken, evenly spaced, the last among them.
    """

    selection: ClassVar[tuple[str, ...]] = ("instructions", "instructions_per_unit")

    type: Literal["mimic_it"]
    path: str
    instructions: tuple[str, ...] = (f"**/*{_ENDING}",)
    pictures: str = "{name}.json"
    related: int = Field(4, ge=0)
    earlier_characters: int = Field(1200, ge=0)
    max_pictures: int = Field(5, ge=1)
    instructions_per_unit: int = Field(500, ge=1)
    images: ImageSettings = ImageSettings()

    def units(self) -> Iterator[Unit]:
        for url in files.find(self.path, self.instructions):
            folder, last = posixpath.split(url)
            beside = storage.join(folder, self.pictures.replace("{name}", last.removesuffix(_ENDING)))
            if not storage.exists(beside):
                raise ConfigError(f"source {self.name}: no pictures {beside} for {url}")
            parts = max(1, -(-int(storage.stat(url)["bytes"]) // (_BYTES * self.instructions_per_unit)))
            for part in range(parts):
                yield Unit(source=self.name, files=(url, beside), options={"part": part, "parts": parts})

    def inputs(self, unit: Unit) -> list[InputRef]:
        """The unit's instructions, and the pictures that they are about."""
        told, shown = blake3(), blake3()
        try:
            pictures = _index(unit.files[1], "")
            for key, said in self._said(unit):
                told.update(canonical_json([key, said]))
                for name in _pictures(said):
                    entry = pictures.find(name)
                    shown.update(name.encode() + (b"" if entry is None else entry.lines))
        except BadRecord:
            return super().inputs(unit)
        sizes = [int(storage.stat(url)["bytes"]) for url in unit.files]
        digests = (told.hexdigest(), shown.hexdigest())
        return [
            InputRef(uri=url, digest=digest, bytes=size)
            for url, digest, size in zip(unit.files, digests, sizes, strict=True)
        ]

    def read(self, unit: Unit) -> Iterator[Record]:
        instructions, pictures = _index(unit.files[0], "data"), _index(unit.files[1], "")
        name = files.relative(unit.files[0], self.path)
        for key, said in self._said(unit):
            line = canonical_json([key, said])
            provenance = Provenance(uri=unit.files[0], digest=blake3(line).hexdigest())
            small = line if len(line) <= files.SMALL_BYTES else None
            if not isinstance(said, dict):
                wrong = BadRecord("wrong_type", f"an instruction is {type(said).__name__}, not an object")
                yield Record(f"{name}:{key}", provenance, refusal(wrong), small)
                continue
            decode = partial(self._decode, unit, f"{name}:{key}", provenance, said, instructions, pictures)
            yield Record(f"{name}:{key}", provenance, decode, small)

    def _said(self, unit: Unit) -> Iterator[tuple[str, Any]]:
        index = _index(unit.files[0], "data")
        for entry in index.entries(int(unit.options["part"]), int(unit.options["parts"])):
            yield entry.key, entry.said()["row"][0]

    def _decode(
        self,
        unit: Unit,
        key: str,
        provenance: Provenance,
        said: _Said,
        instructions: AnnotationIndex,
        pictures: AnnotationIndex,
    ) -> Sequence[Example]:
        turns = [turn for earlier in self._related(said, instructions) for turn in _turns(earlier)]
        pairs = list(exchanges([*turns, *_turns(said)], self.earlier_characters))
        names = evenly(_pictures(said), self.max_pictures)
        if not names:
            raise RecordDropped("no_picture")
        if not pairs or not text_value(said.get("answer"), "answer").strip():
            raise RecordDropped("no_answer")
        images = [row_picture(_picture(name, pictures), name, self.path, self.images, "base64") for name in names]
        image = 0 if len(images) == 1 else None
        asked, answered = pairs[-1].question, pairs[-1].answer
        texts = [
            Text(role="question", text=asked, image=image, item=0),
            Text(role="answer", text=answered, image=image, item=0),
        ]
        return [make_example(self, unit, key, provenance, text=texts, images=images)]

    def _related(self, said: _Said, instructions: AnnotationIndex) -> list[_Said]:
        """Earlier instructions about the same pictures, in the order in which they are named."""
        ids = said.get("rel_ins_ids")
        found: list[_Said] = []
        for name in ids if isinstance(ids, list) else []:
            entry = instructions.find(name) if isinstance(name, str) else None
            other = None if entry is None else entry.said()["row"][0]
            if len(found) < self.related and isinstance(other, dict) and _pictures(other) == _pictures(said):
                found.append(other)
        return found


def _turns(said: _Said) -> list[Turn]:
    asked, answer = (text_value(said.get(field), field) for field in ("instruction", "answer"))
    return [Turn("person", asked), Turn("assistant", answer)]


def _pictures(said: Any) -> list[str]:
    names = said.get("image_ids") if isinstance(said, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _picture(name: str, pictures: AnnotationIndex) -> str:
    entry = pictures.find(name)
    value = None if entry is None else entry.said()["row"][0]
    if not isinstance(value, str):
        raise BadRecord("missing_file", f"no picture {name!r}")
    return value


def _index(url: str, member: str) -> AnnotationIndex:
    """The members of an object in a JSON document by their names."""
    return open_index({"members": member}, [url], lambda _: _members(url, member))


def _members(url: str, member: str) -> Iterator[Row]:
    if url.lower().endswith(".parquet"):
        yield from _table(url)
        return
    for _, key, value in json_rows(url, member):
        yield Row(str(key), "row", value)


def _table(url: str) -> Iterator[Row]:
    """Pictures of a Parquet file: a column of base64, and one of ids, which is the index that pandas stored."""
    with storage.open_read(url) as stream:
        try:
            file = pq.ParquetFile(stream)
            names = file.schema_arrow.names
            if len(names) != 2 or _PIXELS not in names:
                raise BadRecord("missing_field", f"columns {', '.join(names)}; wanted are ids and {_PIXELS!r}")
            ids = next(name for name in names if name != _PIXELS)
            for batch in file.iter_batches(_BATCH_ROWS):
                for key, value in zip(batch[ids].to_pylist(), batch[_PIXELS].to_pylist(), strict=True):
                    yield Row(str(key), "row", value)
        except (pa.ArrowException, OSError) as fault:
            if getattr(fault, "errno", None) is not None:
                raise
            raise BadRecord("parquet_unreadable", str(fault)) from fault
