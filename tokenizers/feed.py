"""Batches to train on, each a pure function of (seed, step) whatever the number of workers.

Every place of a batch draws a number of an item by keyed hash, anew when that item is held out or cannot be decoded.
Decoded items are kept as long as there is room for them; what is kept changes no batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from omnimill.errors import BadRecord, OmnimillError
from omnimill.progress import console
from omnimill.rng import digest64
from omnimill.tokenizers.corpus import MediaItems, Split
from omnimill.tokenizers.views import Array, Views, stacked

# Draws for one place of a batch, before the items are given up as unusable.
_DRAWS = 1000
# Batches that are made ahead of the one in use.
_AHEAD = 2
_KEPT_BYTES = 512 << 20


class Feed:
    """What one worker learns from.

    Args:
        items: to draw from.
        views: how they are read and what of them is shown.
        split: what is not to be drawn.
        seed: of the draws.
        threads: that read ahead.
    """

    def __init__(self, items: MediaItems, views: Views, split: Split, seed: int, threads: int = 1) -> None:
        self._items = items
        self._views = views
        self._split = split
        self._seed = seed
        self._threads = threads
        self._kept: dict[int, Array] = {}
        self._room = _KEPT_BYTES
        self._bad: set[int] = set()

    def batches(self, first: int, last: int, places: range) -> Iterator[Tensor]:
        """The batches of steps `first` to `last` (not included), of each only the given places."""
        with ThreadPoolExecutor(self._threads) as pool:
            ahead: deque[list[Future[Array]]] = deque()
            try:
                for step in range(first, last + _AHEAD):
                    if step < last:
                        ahead.append([pool.submit(self.shown, step, place) for place in places])
                    if step >= first + _AHEAD:
                        yield stacked([future.result() for future in ahead.popleft()])
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def shown(self, step: int, place: int) -> Array:
        """What stands at a place of a step's batch.

        Raises:
            OmnimillError: hardly any item can be used.
        """
        for attempt in range(_DRAWS):
            number = digest64("draw", self._seed, step, place, attempt) % len(self._items)
            read = self._read(number)
            if read is not None:
                return self._views.part(read, "part", self._seed, step, place)
        raise OmnimillError(
            f"{_DRAWS} draws of {len(self._items)} {self._views.column} found none to learn from: they cannot be "
            "decoded, or nearly all are held out (training.held_out)"
        )

    def _read(self, number: int) -> Array | None:
        """An item as views keep it; None when it is not to be learnt from or cannot be."""
        if number in self._kept:
            return self._kept[number]
        if number in self._bad:
            return None
        example = self._items.example(number)
        if not self._split.learns(example):
            return None
        try:
            read = self._views.read(self._items.data(number))
        except BadRecord as bad:
            if number not in self._bad:
                self._bad.add(number)
                console.print(f"not learned from: example {example}: {bad.reason}: {bad.message}")
            return None
        if read.nbytes <= self._room and number not in self._kept:
            self._room -= read.nbytes
            self._kept[number] = read
        return read
