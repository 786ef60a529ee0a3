"""Politeness: how many fetches a host sees at once, and how long it is left alone when it asks for that."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from omnimill.errors import BadRecord

# A host that wants to be left alone for longer is not waited for.
MAX_WAIT_SECONDS = 30.0


class Hosts:
    """What is known about the hosts of one unit. Used by many threads."""

    def __init__(self, max_per_host: int, ends: float) -> None:
        """`ends`: when waiting ends at the latest, on the monotonic clock."""
        self._ends = ends
        self._lock = threading.Lock()
        self._slots: defaultdict[str, threading.BoundedSemaphore] = defaultdict(
            lambda: threading.BoundedSemaphore(max_per_host)
        )
        self._closed_until: dict[str, float] = {}

    @contextmanager
    def slot(self, host: str) -> Iterator[None]:
        """One of the host's slots, once there is one and the host may be asked again.

        Raises:
            BadRecord: ``http_rate_limited``, the host asked for a long pause; ``fetch_budget_spent``.
        """
        with self._lock:
            slots = self._slots[host]
        if not slots.acquire(timeout=max(0.0, self._ends - time.monotonic())):
            raise budget_spent("seconds")
        try:
            self._await(host)
            yield
        finally:
            slots.release()

    def pause(self, host: str, seconds: float) -> None:
        """The host asked to be left alone for so long."""
        with self._lock:
            until = time.monotonic() + seconds
            self._closed_until[host] = max(until, self._closed_until.get(host, until))

    def _await(self, host: str) -> None:
        while (wait := self._closed_until.get(host, 0.0) - time.monotonic()) > 0:
            if wait > MAX_WAIT_SECONDS:
                raise BadRecord("http_rate_limited", f"{host} asked for a pause of more than {MAX_WAIT_SECONDS:g} s")
            if time.monotonic() + wait > self._ends:
                raise budget_spent("seconds")
            time.sleep(wait)


def budget_spent(what: str) -> BadRecord:
    """The verdict on a URL whose turn did not come."""
    return BadRecord("fetch_budget_spent", f"the unit's {what} were spent before its turn came")
