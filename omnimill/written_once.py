"""Folders of made input that are written once, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


def written_once(folder: Path, write: Callable[[Path], None]) -> bool:
    """Have `write` fill a folder, unless it is there already: it is made aside and renamed.

    Returns:
        Whether anything was written.
    """
    if folder.exists():
        return False
    work = folder.with_name(folder.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    write(work)
    work.rename(folder)
    return True
