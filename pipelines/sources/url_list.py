"""Pictures of the web, fetched from lists of their URLs and captions (LAION, CC12M, RedCaps, …).

Needs the optional extra ``fetch``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, ClassVar, Literal

from blake3 import blake3
from pydantic import Field, model_validator

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, VolatileSource
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.text import text_value
from omnimill.pipelines.fetching.engine import Fetched, fetched, require_extra
from omnimill.pipelines.fetching.settings import FetchSettings
from omnimill.pipelines.fetching.urls import parse_url
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.pipelines.sources.list_files import NAMES, ListFormat, Row
from omnimill.schema import Example, Meta, Provenance, Text


class UrlListSource(VolatileSource):
    """Rows with a URL and a caption; a record is a row, a unit is a slice of a list, fetched as one.

    A unit is fetched into a temporary folder, and what came is then read as pictures. What was kept or
    dropped in a committed unit is never fetched again; a replay fetches what was quarantined. A row is turned down by
    its own columns before anything is fetched. The digest of an example's provenance is that of the bytes that the
    server sent, its uri the URL; its key says list and row.

    path: a list, or a folder of lists: ``.parquet``, ``.tsv``, ``.csv`` (a row is a line), ``.jsonl``, or ``.json``
        with an object that has the rows as a list.
    columns: names of the columns of TSV and CSV files whose first line does not have them.
    rows_field: the key of the list in a ``.json`` file.
    url_field, caption_field, licence_field, language_field: columns.
    scores, tags: from a column to the name of a score (a number) or tag (a text) of the example.
    min_score, max_score: of a score by its name; rows beyond are dropped as ``score_too_low`` and ``score_too_high``,
        rows without it as ``score_missing``.
    exclude_tags: values of a tag, by its name, that drop a row as ``tag_excluded``.
    require_caption: drop a row without caption as ``no_caption``.
    urls_per_unit: rows of a Parquet unit. bytes_per_unit: of the list, for units of the other kinds.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "urls_per_unit", "bytes_per_unit", "fetch")

    type: Literal["url_list"]
    path: str
    include: tuple[str, ...] = NAMES
    exclude: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    rows_field: str = "annotations"
    url_field: str = "url"
    caption_field: str | None = "caption"
    licence_field: str | None = None
    language_field: str | None = None
    scores: dict[str, str] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    min_score: dict[str, float] = Field(default_factory=dict)
    max_score: dict[str, float] = Field(default_factory=dict)
    exclude_tags: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    require_caption: bool = False
    urls_per_unit: int = Field(5000, gt=0, le=1_000_000)
    bytes_per_unit: int = Field(1 << 20, gt=0)
    images: ImageSettings = ImageSettings()
    fetch: FetchSettings = FetchSettings()

    @model_validator(mode="after")
    def _rules_name_what_there_is(self) -> UrlListSource:
        for rules, there in (
            ({*self.min_score, *self.max_score}, {*self.scores.values()}),
            ({*self.exclude_tags}, {*self.tags.values()}),
        ):
            if unknown := sorted(rules - there):
                raise ValueError(f"no column is named {', '.join(unknown)} here; there are: {', '.join(sorted(there))}")
        return self

    def units(self) -> Iterator[Unit]:
        require_extra()
        for url in files.find(self.path, self.include, self.exclude):
            for options in self._format().slices(url):
                yield Unit(source=self.name, files=(url,), options=options)

    def inputs(self, unit: Unit) -> list[InputRef]:
        """The unit's rows, by what is in the columns that are read; a file that cannot be read counts as a whole."""
        hasher, size = blake3(), 0
        try:
            for row in self._rows(unit):
                content = [
                    None if isinstance(row.values, BadRecord) else row.values.get(name) for name in self._fields()
                ]
                line = repr([row.place, content]).encode()
                hasher.update(line)
                size += len(line)
        except BadRecord:
            return super().inputs(unit)
        return [InputRef(uri=unit.files[0], digest=hasher.hexdigest(), bytes=size)]

    def read(self, unit: Unit, settled: AbstractSet[str] = frozenset()) -> Iterator[Record]:
        rows = list(self._rows(unit))
        wanted = [None if self._key(unit, row) in settled else self._wanted(row) for row in rows]
        urls = [url for url in wanted if isinstance(url, str)]
        with fetched(urls, self.fetch) as bodies:
            for row, url in zip(rows, wanted, strict=True):
                yield self._record(unit, row, next(bodies) if isinstance(url, str) else url)

    def _format(self) -> ListFormat:
        return ListFormat(self.columns, self.rows_field, self.urls_per_unit, self.bytes_per_unit)

    def _fields(self) -> list[str]:
        """The columns that are read."""
        named = (self.url_field, self.caption_field, self.licence_field, self.language_field)
        return list(dict.fromkeys([*filter(None, named), *self.scores, *self.tags]))

    def _rows(self, unit: Unit) -> Iterator[Row]:
        return self._format().rows(unit.files[0], unit.options, self._fields())

    def _wanted(self, row: Row) -> str | BadRecord | RecordDropped:
        """The URL to fetch for a row; or why there is nothing to fetch."""
        try:
            if isinstance(row.values, BadRecord):
                return row.values
            self._facts(row.values)
            return parse_url(text_value(row.values.get(self.url_field), self.url_field)).url
        except (BadRecord, RecordDropped) as verdict:
            return verdict

    def _key(self, unit: Unit, row: Row) -> str:
        return f"{files.relative(unit.files[0], self.path)}:{row.place}"

    def _record(self, unit: Unit, row: Row, body: Fetched | None) -> Record:
        """The record of a row; of one that is not read where there is no body."""
        key = self._key(unit, row)
        written = row.values.get(self.url_field) if isinstance(row.values, dict) else None
        uri = written.strip() if isinstance(written, str) and written.strip() else unit.files[0]
        if body is None:
            return Record(key, Provenance(uri=_storable(uri), digest=""), list)
        if not isinstance(body, bytes):
            return Record(key, Provenance(uri=_storable(uri), digest=""), refusal(body))
        provenance = Provenance(uri=_storable(uri), digest=blake3(body).hexdigest(), length=len(body))
        small = body if len(body) <= files.SMALL_BYTES else None
        assert isinstance(row.values, dict)
        return Record(key, provenance, partial(self._decode, unit, key, provenance, row.values, body), small)

    def _decode(
        self, unit: Unit, key: str, provenance: Provenance, values: Mapping[str, Any], body: bytes
    ) -> Sequence[Example]:
        image = decode_image(body, self.images, provenance.uri)
        caption, meta = self._facts(values)
        text = [Text(role="caption", text=caption, image=0)] if caption else []
        meta.url = provenance.uri
        return [make_example(self, unit, key, provenance, text=text, images=[image], meta=meta)]

    def _facts(self, values: Mapping[str, Any]) -> tuple[str | None, Meta]:
        """A row's caption and facts, when its rules let it pass.

        Raises:
            RecordDropped: ``no_caption``, ``score_too_low``, ``score_too_high``, ``score_missing``, ``tag_excluded``.
            BadRecord: ``wrong_type``, ``invalid_utf8``.
        """
        caption = _text(values, self.caption_field)
        if self.require_caption and not caption:
            raise RecordDropped("no_caption")
        scores = {name: value for column, name in self.scores.items() if (value := _number(values, column)) is not None}
        if {*self.min_score, *self.max_score} - set(scores):
            raise RecordDropped("score_missing")
        if any(scores[name] < bound for name, bound in self.min_score.items()):
            raise RecordDropped("score_too_low")
        if any(scores[name] > bound for name, bound in self.max_score.items()):
            raise RecordDropped("score_too_high")
        tags = {name: text for column, name in self.tags.items() if (text := _text(values, column))}
        if any(tags.get(name) in unwanted for name, unwanted in self.exclude_tags.items()):
            raise RecordDropped("tag_excluded")
        licence, language = _text(values, self.licence_field), _text(values, self.language_field)
        return caption, Meta(licence=licence, language=language, scores=scores, tags=tags)


def _text(values: Mapping[str, Any], column: str | None) -> str | None:
    value = values.get(column) if column is not None else None
    if isinstance(value, bool | int | float):
        value = str(value)
    return None if value is None or column is None else text_value(value, column).strip() or None


def _number(values: Mapping[str, Any], column: str) -> float | None:
    """A finite number, also from its text; None where there is none."""
    value = values.get(column)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadRecord("wrong_type", f"{column!r} holds {str(value)[:40]!r}, not a number") from None
    return number if math.isfinite(number) else None


def _storable(uri: str) -> str:
    return uri.encode("utf-8", "backslashreplace").decode()
