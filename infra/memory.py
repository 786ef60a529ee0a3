"""The memory of a process, and a limit that ends the process instead of the machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

_LOOK_SECONDS = 0.1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | None = None) -> int:
    """Memory that a process holds besides files and shared memory that it maps; 0 when it is gone.

    Args:
        pid: of the process; this one when None.
    """
    try:
        _, resident, shared, *_ = Path("/proc", str(pid or "self"), "statm").read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * _PAGE_BYTES


class MemoryLimit:
    """Kills this process once it holds more than so much, so that one input cannot take the machine down.

    What follows is a worker's death like any other: the unit is tried again, then done with care. The limit is looked
    at ten times a second.
    """

    _bytes: int | None = None

    @classmethod
    def set(cls, limit_bytes: int) -> None:
        """Set or change the limit of this process."""
        started, cls._bytes = cls._bytes is not None, limit_bytes
        if not started:
            threading.Thread(target=cls._watch, name="memory-limit", daemon=True).start()

    @classmethod
    def _watch(cls) -> None:
        while True:
            if resident_bytes() > (cls._bytes or 0):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(_LOOK_SECONDS)
