"""Folders for what a machine makes once for all of this user's processes: sorted copies, indexes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def made_once(name: str, own: str, state: str, make: Callable[[Path], None]) -> Iterator[Path]:
    """The folder of something as it is now, made by one of this machine's processes while the others wait.

    Args:
        name: as of :func:`machine_folder`.
        own: what it is of. state: what that is like now; the folder of what it was like before is removed, so what is
            in the folder is to be opened within the ``with`` block.
        make: fills a new folder.
    """
    home = machine_folder(name)
    folder, partial = home / f"{own}-{state}", home / f"{own}.partial"
    with (home / f"{own}.lock").open("w") as lock:
        # Free again when the process that makes it dies.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            for old in (partial, *home.glob(f"{own}-*")):
                shutil.rmtree(old, ignore_errors=True)
            partial.mkdir()
            make(partial)
            partial.rename(folder)
        yield folder
