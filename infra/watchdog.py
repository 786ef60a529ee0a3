"""Says which work is waiting when nothing has moved for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from omnimill.progress import console

SILENCE_SECONDS = 60.0


@contextmanager
def watchdog(
    label: str, waiting: Callable[[], Sequence[str]], seconds: float = SILENCE_SECONDS
) -> Iterator[Callable[[], None]]:
    """Print a line to stderr each time `seconds` pass without a call of the yielded function.

    Args:
        label: what is running.
        waiting: names of what is not done yet, the longest waiting first.
    """
    last = time.monotonic()
    stop = threading.Event()

    def moved() -> None:
        nonlocal last
        last = time.monotonic()

    def watch() -> None:
        while not stop.wait(seconds):
            silence = time.monotonic() - last
            names = waiting()
            if silence >= seconds and names:
                console.print(f"{label}: nothing finished for {silence:.0f} s; {len(names)} waiting, first {names[0]}")

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield moved
    finally:
        stop.set()
        thread.join()
