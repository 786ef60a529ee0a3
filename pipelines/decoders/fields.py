"""Fields of records, by name or by path: what a row says about its text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import Any

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.text import parse_json, text_value


def top_field(path: str, present: Mapping[str, Any] | list[str]) -> str:
    """The field of a row that holds what `path` leads to: the path itself where a field has that name."""
    return path if path in present else path.partition(".")[0]


def field_value(row: Mapping[str, Any], path: str) -> Any:
    """What a field holds, None when it is not there; dots in `path` lead into objects, also into JSON in a text.

    Raises:
        BadRecord: ``wrong_type`` where the path leads into something else, ``invalid_json``.
    """
    if path in row:
        return row[path]
    head, dot, rest = path.partition(".")
    value = row.get(head)
    if not dot or value is None:
        return value
    if isinstance(value, str):
        value = parse_json(value)
    if not isinstance(value, Mapping):
        raise BadRecord("wrong_type", f"{head!r} is {type(value).__name__}, not an object with {rest!r}")
    return field_value(value, rest)


def fact_values(row: Mapping[str, Any], path: str) -> list[str]:
    """A field's values as texts: none when it is absent or empty, several when it is a list.

    Raises:
        BadRecord: ``wrong_type`` for an object, ``invalid_json``, ``invalid_utf8``.
    """
    value = field_value(row, path)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [_fact(item, path) for item in values if item is not None]


def fact(row: Mapping[str, Any], path: str | None) -> str | None:
    """A field as one text, a list with commas between; None when it is absent or empty. Raises as `fact_values`."""
    return None if path is None else ", ".join(fact_values(row, path)) or None


def number(row: Mapping[str, Any], path: str) -> float | None:
    """A field that must be a finite number when it is there.

    Raises:
        BadRecord: ``wrong_type``, ``invalid_json``.
    """
    value = field_value(row, path)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRecord("wrong_type", f"{path!r} is {value!r}, not a finite number")
    return float(value)


def _fact(value: Any, path: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, date):  # and datetime
        return value.isoformat()
    return text_value(value, path)
