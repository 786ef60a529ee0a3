"""What sources of text records share: which fields hold what, and the example that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.text import text_value
from omnimill.pipelines.sources.examples import make_example
from omnimill.schema import Example, Meta, Provenance, Text


class TextRows(Source):
    """Base of sources whose records are rows with named fields.

    path: a file, or a folder of files chosen by `include` and `exclude`.
    text_field: the text; `role` is what it is to the example.
    id_field: unique in its file; without it a record is named by its place.
    url_field, language_field, licence_field: facts about the text; a record need not have them.
    """

    path: str
    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    role: str = "body"
    text_field: str = "text"
    id_field: str | None = None
    url_field: str | None = None
    language_field: str | None = None
    licence_field: str | None = None

    def fields(self) -> list[str]:
        """The names of all fields that are read."""
        names = (self.text_field, self.id_field, self.url_field, self.language_field, self.licence_field)
        return [name for name in names if name is not None]

    def key(self, file: str, row: Mapping[str, Any], place: str | int) -> str:
        """The key of a row: its file, and its id or else its place in the file."""
        given = row.get(self.id_field) if self.id_field is not None else None
        return f"{file}:{place if given is None else given}".encode("utf-8", "backslashreplace").decode()

    def example(self, unit: Unit, key: str, provenance: Provenance, row: Mapping[str, Any]) -> Sequence[Example]:
        """The example of a row.

        Raises:
            BadRecord: ``missing_field``, ``wrong_type``, ``invalid_utf8``.
        """
        text = Text(role=self.role, text=text_value(row.get(self.text_field), self.text_field))
        meta = Meta(
            url=_optional(row, self.url_field),
            language=_optional(row, self.language_field),
            licence=_optional(row, self.licence_field),
        )
        return [make_example(self, unit, key, provenance, text=[text], meta=meta)]


def _optional(row: Mapping[str, Any], field: str | None) -> str | None:
    value = row.get(field) if field is not None else None
    return None if value is None or field is None else text_value(value, field)
