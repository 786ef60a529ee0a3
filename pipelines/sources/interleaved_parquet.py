"""Documents of pictures and texts in turn as rows of Parquet files, as OBELICS has them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.config import canonical_json, digest_json
from omnimill.errors import BadRecord, ConfigError
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record
from omnimill.pipelines.decoders.fields import fact, field_value
from omnimill.pipelines.decoders.outline import PictureRef
from omnimill.pipelines.decoders.text import parse_json, text_value
from omnimill.pipelines.sources.documents import DocumentPictures, document_example
from omnimill.pipelines.sources.examples import refusal
from omnimill.pipelines.sources.fetched import Found, container_files, fetch_found, tables, wanted_shards
from omnimill.pipelines.sources.parquet_rows import ParquetRows
from omnimill.pipelines.spool import Stored
from omnimill.schema import Example, Meta, Provenance


class InterleavedParquetSource(ParquetRows):
    """Parquet files of documents; a unit is a row group (`row_groups_per_unit`), a record is a row. Role ``body``.

    A document is two lists of one length: at each place stands a picture or a text, and null in the other list. A
    picture is a URL, or a struct with its ``bytes``.

    images_field, texts_field: the two lists.
    details_field: JSON, a list of the same length; its objects' ``alt_text`` is the alternative text of the picture.
    id_field, url_field, language_field, tag_fields: facts about the document, as in the sources of texts.
    fetched: a folder with the output of img2dataset, relative to `path`, in which pictures are found by URL.
        ``{stem}`` stands for the name of the Parquet file without ending: with a folder for each, a unit looks through
        the pictures of its own file alone.
    pictures: which pictures are kept.
    """

    type: Literal["interleaved_parquet"]
    images_field: str = "images"
    texts_field: str = "texts"
    details_field: str | None = "metadata"
    id_field: str | None = None
    url_field: str | None = "general_metadata.url"
    language_field: str | None = None
    tag_fields: dict[str, str] = Field(default_factory=dict)
    fetched: str | None = None
    pictures: DocumentPictures = DocumentPictures()

    def fields(self) -> list[str]:
        optional = (self.details_field, self.id_field, self.url_field, self.language_field)
        names = (*self.required(), *optional, *self.tag_fields.values())
        return list(dict.fromkeys(name for name in names if name is not None))

    def required(self) -> list[str]:
        return [self.images_field, self.texts_field]

    def units(self) -> Iterator[Unit]:
        """Row groups, or runs of them; a unit's id also covers the names of the files that may hold its pictures."""
        names: dict[str, str] = {}
        for unit in super().units():
            folder = self._folder(unit)
            if folder is None or not unit.options:
                yield unit
                continue
            if folder not in names:
                listed = storage.list_folder(folder)
                if not listed and "{stem}" not in (self.fetched or ""):
                    raise ConfigError(f"source {self.name}: no fetched pictures in {folder}")
                names[folder] = digest_json(listed)[:16]
            yield unit.model_copy(update={"options": {**unit.options, "fetched": names[folder]}})

    def inputs(self, unit: Unit) -> list[InputRef]:
        """The row groups, the tables of fetched pictures, and the files that hold pictures of the unit."""
        refs = super().inputs(unit)
        folder = self._folder(unit)
        if folder is None or not unit.options:
            return refs
        try:
            shards = wanted_shards(folder, self._wanted(unit), [])
        except BadRecord:
            return refs  # reading the unit will say what is wrong
        beside = [*tables(folder), *(url for shard in shards for url in container_files(shard))]
        sizes = {url: int(storage.stat(url)["bytes"]) for url in beside}
        return refs + [InputRef(uri=url, digest=storage.digest_file(url), bytes=size) for url, size in sizes.items()]

    def read(self, unit: Unit) -> Iterator[Record]:
        uri = unit.files[0]
        file = files.relative(uri, self.path)
        folder = self._folder(unit)
        found = Found()
        if folder is not None:
            found = fetch_found(folder, self._wanted(unit), self.pictures.images.max_bytes)
        for container, fault in found.faults:
            key = f"{file}:fetched/{posixpath.basename(container)}"
            yield Record(key, Provenance(uri=container, digest=""), refusal(fault))
        for group, start, batch in self.batches(unit):
            for i in range(batch.num_rows):
                yield self._record(unit, f"{file}:{group}", start + i, batch.slice(i, 1), found)

    def _folder(self, unit: Unit) -> str | None:
        if self.fetched is None:
            return None
        stem = posixpath.basename(unit.files[0]).removesuffix(".parquet")
        return storage.join(self.path, self.fetched.replace("{stem}", stem))

    def _wanted(self, unit: Unit) -> set[str]:
        """The URLs of all pictures of a unit."""
        wanted: set[str] = set()
        for _, _, batch in self.batches(unit):
            for row in batch.select([self.images_field]).to_pylist():
                values = row[self.images_field]
                wanted.update(value for value in values or () if isinstance(value, str))
        return wanted

    def _record(self, unit: Unit, place: str, number: int, row: Any, found: Found) -> Record:
        uri = unit.files[0]
        provenance = Provenance(uri=uri, digest="")
        try:
            values = row.to_pylist()[0]
            provenance.digest = blake3(canonical_json(_plain(values))).hexdigest()
            given = field_value(values, self.id_field) if self.id_field is not None else None
        except (UnicodeDecodeError, BadRecord) as fault:
            verdict = fault if isinstance(fault, BadRecord) else BadRecord("invalid_utf8", str(fault))
            return Record(f"{place}:{number}", provenance, refusal(verdict))
        key = f"{place}:{number if given is None else given}"
        return Record(key, provenance, partial(self._decode, unit, key, provenance, values, found))

    def _decode(
        self, unit: Unit, key: str, provenance: Provenance, row: Mapping[str, Any], found: Found
    ) -> Sequence[Example]:
        images, texts = self._lists(row)
        alts = self._alts(row, len(images))
        items: list[str | PictureRef] = []
        embedded: dict[str, Stored] = {}
        for i, (image, text) in enumerate(zip(images, texts, strict=True)):
            if isinstance(image, Mapping):
                name = f"{provenance.uri}#{key}/{i}"
                embedded[name] = Stored(bytes(image.get("bytes") or b""), name)
                items.append(PictureRef((name,), alts[i]))
            elif image is not None:
                items.append(PictureRef((text_value(image, self.images_field),), alts[i]))
            if text is not None:
                items.append(text_value(text, self.texts_field))
        tags = {tag: value for tag, field in self.tag_fields.items() if (value := fact(row, field)) is not None}
        meta = Meta(url=fact(row, self.url_field), language=fact(row, self.language_field), tags=tags)

        def lookup(name: str) -> Stored | None:
            return embedded.get(name) or found.pictures.get(name)

        return document_example(self, unit, key, provenance, items, lookup, self.pictures, meta)

    def _lists(self, row: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
        lists: list[list[Any]] = []
        for name in (self.images_field, self.texts_field):
            value = field_value(row, name)
            if value is None:
                raise BadRecord("missing_field", f"no {name!r}")
            if not isinstance(value, list):
                raise BadRecord("wrong_type", f"{name!r} is {type(value).__name__}, not a list")
            lists.append(value)
        images, texts = lists
        if len(images) != len(texts):
            raise BadRecord("lists_uneven", f"{len(images)} places of pictures and {len(texts)} of texts")
        return images, texts

    def _alts(self, row: Mapping[str, Any], count: int) -> list[str | None]:
        details = field_value(row, self.details_field) if self.details_field is not None else None
        if isinstance(details, str):
            details = parse_json(details)
        if details is None:
            return [None] * count
        if not isinstance(details, list) or len(details) != count:
            raise BadRecord("lists_uneven", f"{self.details_field!r} has no object for every place")
        found = (one.get("alt_text") if isinstance(one, Mapping) else None for one in details)
        return [" ".join(alt.split()) or None if isinstance(alt, str) else None for alt in found]


def _plain(value: Any) -> Any:
    """A row as JSON can hold it: bytes by their digest."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return blake3(value).hexdigest()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
