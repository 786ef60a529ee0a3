"""The demo's input: photographs, code and documentation from installed packages; films, a robot and 3-D made here."""

from __future__ import annotations

from pathlib import Path

from omnimill.demo import films, photos, robot, shapes, texts
from omnimill.written_once import written_once

SEED = 20


def make_inputs(folder: Path) -> bool:
    """Write all input files below `folder`, unless they are there already; whether anything was written."""
    return written_once(folder, _write)


def _write(work: Path) -> None:
    photos.write_photos(work / "photos")
    photos.write_details(work / "details", SEED)
    texts.write_code(work / "code")
    texts.write_docs(work / "docs")
    texts.write_docstrings(work / "docstrings")
    films.write_films(work / "films")
    robot.write_robot(work / "robot", SEED)
    shapes.write_shapes(work / "shapes3d")
