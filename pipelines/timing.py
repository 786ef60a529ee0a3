"""Where the time of a unit goes, step by step: read, decode, each operator, encode, write."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

# Steps besides the operators.
READ, DECODE, ENCODE, WRITE = "read", "decode", "encode", "write"


class Laps:
    """One thread's clock: each lap is what passed since the one before. A look costs a tenth of a microsecond."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def lap(self, step: str | None) -> None:
        """What passed since the last lap was `step`; nobody's time when None."""
        now = time.perf_counter()
        if step is not None:
            self.seconds[step] += now - self._last
        self._last = now


class StepTimes:
    """Seconds of every step of a unit, over all threads that work on it; threads that run at once count each."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, laps: Laps) -> None:
        """Take in what a thread measured."""
        with self._lock:
            for step, seconds in laps.seconds.items():
                self._seconds[step] += seconds

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a ``with`` block."""
        laps = Laps()
        try:
            yield
        finally:
            laps.lap(name)
            self.add(laps)

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """`items`; what it takes to get the next one is measured."""
        laps = Laps()
        try:
            for item in items:
                laps.lap(name)
                yield item
                laps.lap(None)
            laps.lap(name)
        finally:
            self.add(laps)

    def as_json(self) -> dict[str, float]:
        """Rounded, the longest first."""
        found = sorted(self._seconds.items(), key=lambda item: -item[1])
        return {step: round(seconds, 4) for step, seconds in found}
