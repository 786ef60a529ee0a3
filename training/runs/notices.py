"""What workers are told between two steps: to stop, or that a machine of theirs will be taken away."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

# While this file is in a run's folder, the run ends after the next step, with a checkpoint.
STOP = "stop"


@contextmanager
def stopped_by_signal(run: Path) -> Iterator[None]:
    """For the length of a ``with`` block, SIGTERM lets the run end in good order; a second one does what it did before.

    What was asked of an earlier launch is forgotten.
    """
    file = run / STOP
    file.unlink(missing_ok=True)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)

    def stop(*_: object) -> None:
        run.mkdir(parents=True, exist_ok=True)
        file.touch()
        signal.signal(signal.SIGTERM, before)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        file.unlink(missing_ok=True)


class Notice(IntEnum):
    """NONE: nothing. ASK: see whether a machine will be taken away. STOP: end after this step, with a checkpoint."""

    NONE = 0
    ASK = 1
    STOP = 2


class Notices:
    """Worker 0's look-out; what it sees holds for all workers, since all must do the same after the same step.

    Args:
        run: the run's folder.
        every: seconds between looks, so that short steps do not ask a shared disk each time.
    """

    def __init__(self, run: Path, every: float = 2.0) -> None:
        self._stop, self._every = run / STOP, every
        self._next = 0.0

    def look(self) -> Notice:
        """What there is now."""
        now = time.monotonic()
        if now < self._next:
            return Notice.NONE
        self._next = now + self._every
        return Notice.STOP if self._stop.exists() else Notice.ASK
