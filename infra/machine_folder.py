"""Folders for what a machine makes once for all of this user's processes: sorted copies, indexes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from omnimill.errors import ConfigError


def machine_folder(name: str) -> Path:
    """A folder of this user's below the machine's temporary one; made if it is not there.

    Raises:
        ConfigError: it belongs to somebody else.
    """
    home = Path(tempfile.gettempdir()) / f"omnimill-{name}-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_uid != os.getuid() or home.is_symlink():
        raise ConfigError(f"{home} belongs to somebody else")
    return home
