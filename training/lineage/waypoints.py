"""Waypoints of a run: where its streams stood every so many steps, kept so that any step can be planned again soon.

``runs/<run>/waypoints/00001000.json.gz`` holds what a checkpoint's `plan` holds, as it stood before step 1,000.
Training writes them and never reads them; they can be deleted. One is used only where what decided the order of
examples before its step is what decided it in the run that is asked about, so those of steps that were taken back
mislead nobody.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from omnimill.config import canonical_json
from omnimill.infra import storage

# Planning that many steps of one stream again takes less than a second; of 512 streams a waypoint has some 0.5 MB.
EVERY = 1000
_FOLDER = "waypoints"
_NAME = re.compile(r"(\d{8,})\.json\.gz")


def due(done: int) -> bool:
    """Whether a waypoint is kept after `done` updates."""
    return done % EVERY == 0


def keep(run: Path, plan: Mapping[str, Any]) -> None:
    """Write a waypoint.

    Args:
        run: its folder.
        plan: the loader's state over all streams.
    """
    step = next(iter(plan["streams"].values()))["step"]
    data = gzip.compress(canonical_json(dict(plan)), mtime=0)
    storage.publish_bytes(str(run / _FOLDER / f"{step:08d}.json.gz"), data)


def steps(run: Path) -> list[int]:
    """Steps of a run's waypoints, in order."""
    found = (_NAME.fullmatch(path.name) for path in (run / _FOLDER).glob("*.json.gz"))
    return sorted(int(match[1]) for match in found if match)


def read(run: Path, step: int) -> dict[str, Any] | None:
    """The waypoint of a step; None when it cannot be read."""
    with suppress(OSError, ValueError, EOFError):
        plan: dict[str, Any] = json.loads(gzip.decompress((run / _FOLDER / f"{step:08d}.json.gz").read_bytes()))
        return plan
    return None
