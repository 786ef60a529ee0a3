"""Temporary folders that are gone after use, also those of a process that was killed: the next one clears them away."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from omnimill.errors import IntegrityError

_PREFIX = "omnimill-fetch-"
_LOCK = "in-use"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A fresh folder in TMPDIR, removed with its content when the block is left.

    Raises:
        IntegrityError: none can be made. An `OSError` would be held against the data that are read.
    """
    with ExitStack() as stack:
        try:
            _clear_abandoned()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX)))
            # The lock ends with this process, however that ends.
            lock = stack.enter_context((folder / _LOCK).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as fault:
            raise IntegrityError(f"no temporary folder can be made (see TMPDIR): {fault}") from fault
        yield folder


def _clear_abandoned() -> None:
    """Remove the folders whose process is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            lock = (folder / _LOCK).open("r+")
        except OSError:
            continue  # just made and not locked yet, just removed, or another user's
        with lock:
            if os.fstat(lock.fileno()).st_uid != os.getuid():
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            shutil.rmtree(folder, ignore_errors=True)
