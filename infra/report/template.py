"""Pages of the house: templates that share one style, one script and macros."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

_FOLDER = Path(__file__).parent


def page_template(path: Path) -> Template:
    """A template of a file; it may include ``style.css`` and ``report.js`` and import ``macros.html``.

    It may use the filters ``bytes``, ``count`` and ``share``.
    """
    return _environment(path.parent).get_template(path.name)


def macro(name: str, *values: Any) -> str:
    """What a macro of ``macros.html`` makes of some values."""
    return str(getattr(page_template(_FOLDER / "macros.html").module, name)(*values))


def fragment(name: str, **values: Any) -> str:
    """One of the report's own templates, filled."""
    return page_template(_FOLDER / name).render(**values)


@cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([folder, _FOLDER]), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"bytes": human_bytes, "count": "{:,}".format, "share": "{:.1%}".format}
    return environment


def human_bytes(count: int) -> str:
    """Bytes in the largest unit of which there is at least one."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.1f} {unit}"
