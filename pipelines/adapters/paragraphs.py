"""Texts put together from the fields of a row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.fields import fact_values, top_field

_FIELD = re.compile(r"\{([^{}]+)\}")


def paragraph_fields(paragraphs: Iterable[str]) -> list[str]:
    """The fields in braces that paragraphs name, each once."""
    return list(dict.fromkeys(name for paragraph in paragraphs for name in _FIELD.findall(paragraph)))


def paragraphs_text(row: Mapping[str, Any], paragraphs: Sequence[str]) -> str:
    """Paragraphs with the fields of a row in their places, a blank line between; a list stands on lines of its own.

    A paragraph that names fields which are all empty or absent is left out. The text is empty when nothing is left.
    Lines end with a line feed, whatever they end with in the row.

    Raises:
        BadRecord: ``missing_field`` when the row has none of the fields at all, ``wrong_type``, ``invalid_json``,
            ``invalid_utf8``.
    """
    names = paragraph_fields(paragraphs)
    if names and not any(top_field(name, row) in row for name in names):
        raise BadRecord("missing_field", f"none of {', '.join(map(repr, names))}; the row has {', '.join(sorted(row))}")
    values = {name: "\n".join(fact_values(row, name)).replace("\r\n", "\n") for name in names}
    kept = [paragraph for paragraph in paragraphs if _says_something(paragraph, values)]
    return "\n\n".join(_FIELD.sub(lambda match: values[match[1]], paragraph).strip() for paragraph in kept).strip()


def _says_something(paragraph: str, values: Mapping[str, str]) -> bool:
    named = _FIELD.findall(paragraph)
    return not named or any(values[name].strip() for name in named)
