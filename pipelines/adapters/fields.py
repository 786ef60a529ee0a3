"""Values of annotation records: what must be there, checked as it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnimill.errors import BadRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said


def keyed(value: Any, field: str, kind: str) -> Row:
    """A row about the medium that a field names, by a text or a whole number; a fault where it does not or is one."""
    if isinstance(value, BadRecord):
        return Row(None, kind, value)
    name = value.get(field) if isinstance(value, dict) else None
    if isinstance(name, int | str) and not isinstance(name, bool) and name != "":
        return Row(str(name), kind, value)
    seen = f"{field!r} is {name!r}" if isinstance(value, dict) else f"it is {type(value).__name__}, not an object"
    return Row(None, kind, BadRecord("missing_field", f"a row of {kind}: {seen[:200]}"))


def first(said: Said, kind: str) -> Mapping[str, Any]:
    """The first row of a kind; BadRecord ``missing_field`` when there is none, ``wrong_type`` when it is no object."""
    values = said.get(kind)
    if not values:
        raise BadRecord("missing_field", f"nothing is said of its {kind}")
    if not isinstance(values[0], dict):
        raise BadRecord("wrong_type", f"its {kind} is {type(values[0]).__name__}, not an object")
    return values[0]


def whole_number(value: Any, field: str) -> int:
    """A whole number; also one that is written as a text, as CSV files have it. Raises BadRecord ``wrong_type``."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 19:
        return int(value)
    if type(value) is not int:
        raise BadRecord("wrong_type", f"{field!r} is {value!r}"[:200] + ", not a whole number")
    return value


def sequence(value: Any, field: str) -> list[Any]:
    """A list; raises BadRecord ``wrong_type``."""
    if not isinstance(value, list):
        raise BadRecord("wrong_type", f"{field!r} is {type(value).__name__}, not a list")
    return value


def objects(value: Any, field: str) -> list[dict[str, Any]]:
    """A list of objects; raises BadRecord ``wrong_type``."""
    for one in sequence(value, field):
        if not isinstance(one, dict):
            raise BadRecord("wrong_type", f"{field!r} holds {type(one).__name__}, not objects")
    return list(value)
