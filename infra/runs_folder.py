"""Where training runs are kept: a folder on this machine, or on a disk that all machines of a training share."""

from __future__ import annotations

import os
from pathlib import Path

from omnimill.errors import ConfigError
from omnimill.infra import storage

RUNS = "OMNIMILL_RUNS"


def runs_folder(root: str) -> Path:
    """``OMNIMILL_RUNS`` when set, otherwise ``<root>/runs``; it need not exist.

    Raises:
        ConfigError: that is no path on a file system.
    """
    runs = os.environ.get(RUNS) or storage.join(root, "runs")
    if not storage.is_local(runs):
        raise ConfigError(f"training writes its runs to a local or shared folder; found {runs!r}: name one in {RUNS}")
    return Path(storage.filesystem(runs)[1])
