"""What sources of text records share: which fields hold what, and the examples that they make."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field, field_validator

from omnimill.errors import RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.cutting import CutSettings, cut
from omnimill.pipelines.decoders.fields import fact, fact_values, field_value, number
from omnimill.pipelines.decoders.text import text_value
from omnimill.pipelines.sources.examples import make_example
from omnimill.schema import Example, Meta, Provenance, Text


class TextRows(Source):
    """Base of sources whose records are rows with named fields.

    A field is a name, or a path with dots into objects (``meta.language``), which may be JSON in a text. Where a fact
    is a list, its values are put together with commas.

    path: a file, or a folder of files chosen by `include` and `exclude`.
    text_field: the text; `role` is what it is to the example.
    title_field: a text that comes before it as a paragraph of its own; a record need not have one.
    id_field: unique in its file; without it a record is named by its place.
    url_field, language_field, licence_field: facts about the text; a record need not have them.
    tag_fields, score_fields: further facts and numbers, as tag or score -> field; a record need not have them.
    language_from_name, tags_from_name: regular expressions with one group, searched in a file's path below `path`, for
        what the file's name says about its records; a field that says it too comes first.
    where: field -> values; a record stays if it has some and all are among them. where_not: it stays if none is.
        Others are dropped as ``field_value``.
    cut: long texts become parts, an example each with the tags ``part`` (from 0) and ``parts``.
    """

    path: str
    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    role: str = "body"
    text_field: str = "text"
    title_field: str | None = None
    id_field: str | None = None
    url_field: str | None = None
    language_field: str | None = None
    licence_field: str | None = None
    tag_fields: dict[str, str] = Field(default_factory=dict)
    score_fields: dict[str, str] = Field(default_factory=dict)
    language_from_name: str | None = None
    tags_from_name: dict[str, str] = Field(default_factory=dict)
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    where_not: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    cut: CutSettings | None = None

    @field_validator("language_from_name", "tags_from_name")
    @classmethod
    def _one_group(cls, given: str | dict[str, str] | None) -> str | dict[str, str] | None:
        patterns = given.values() if isinstance(given, dict) else [] if given is None else [given]
        for pattern in patterns:
            try:
                count = re.compile(pattern).groups
            except re.error as fault:
                raise ValueError(f"{pattern!r} is no regular expression: {fault}") from None
            if count != 1:
                raise ValueError(f"{pattern!r} has {count} groups; it needs one, around what is wanted")
        return given

    def fields(self) -> list[str]:
        """All fields that are read, each once."""
        one = (self.text_field, self.title_field, self.id_field, self.url_field, self.language_field)
        many = (*self.tag_fields.values(), *self.score_fields.values(), *self.where, *self.where_not)
        return list(dict.fromkeys(name for name in (*one, self.licence_field, *many) if name is not None))

    def key(self, file: str, row: Mapping[str, Any], place: str | int) -> str:
        """The key of a row: its file, and its id or else its place in the file.

        Raises:
            BadRecord: ``wrong_type``, ``invalid_json``.
        """
        given = field_value(row, self.id_field) if self.id_field is not None else None
        return f"{file}:{place if given is None else given}".encode("utf-8", "backslashreplace").decode()

    def example(self, unit: Unit, key: str, provenance: Provenance, row: Mapping[str, Any]) -> Sequence[Example]:
        """The example of a row, or those of its parts.

        Raises:
            BadRecord: ``missing_field``, ``wrong_type``, ``invalid_utf8``, ``invalid_json``.
            RecordDropped: ``field_value``.
        """
        self._check_values(row)
        text = text_value(field_value(row, self.text_field), self.text_field)
        title = fact(row, self.title_field)
        if title is not None and title.strip():
            text = f"{title.strip()}\n\n{text}"
        meta = self._meta(row, files.relative(provenance.uri, self.path))
        if self.cut is None:
            return [make_example(self, unit, key, provenance, text=[Text(role=self.role, text=text)], meta=meta)]
        parts = [part.strip() for part in cut(text, self.cut.max_bytes) if part.strip()]
        return [
            make_example(
                self,
                unit,
                f"{key}/{i}",
                provenance,
                text=[Text(role=self.role, text=part)],
                meta=replace(
                    meta, scores=dict(meta.scores), tags={**meta.tags, "part": str(i), "parts": str(len(parts))}
                ),
            )
            for i, part in enumerate(parts)
        ]

    def _check_values(self, row: Mapping[str, Any]) -> None:
        for field, allowed in self.where.items():
            values = fact_values(row, field)
            if not values or not set(values) <= set(allowed):
                raise RecordDropped("field_value")
        for field, unwanted in self.where_not.items():
            if not set(fact_values(row, field)).isdisjoint(unwanted):
                raise RecordDropped("field_value")

    def _meta(self, row: Mapping[str, Any], file: str) -> Meta:
        scores = {score: number(row, field) for score, field in self.score_fields.items()}
        return Meta(
            url=fact(row, self.url_field),
            language=fact(row, self.language_field) or _named(self.language_from_name, file),
            licence=fact(row, self.licence_field),
            scores={score: value for score, value in scores.items() if value is not None},
            tags=dict(self._tags(row, file)),
        )

    def _tags(self, row: Mapping[str, Any], file: str) -> Iterator[tuple[str, str]]:
        for tag, pattern in self.tags_from_name.items():
            if (named := _named(pattern, file)) is not None:
                yield tag, named
        for tag, field in self.tag_fields.items():
            if (value := fact(row, field)) is not None:
                yield tag, value


def _named(pattern: str | None, file: str) -> str | None:
    match = re.search(pattern, file) if pattern is not None else None
    return match[1] if match is not None else None
