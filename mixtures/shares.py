"""Which row a draw is: the share of a task's rows that a stream reads, pass by pass.

A task's rows come in stretches: those that were there when it was first drawn, then each addition. Of a stretch of N
rows, stream v owns the contiguous part ``[floor(s*N/V), floor((s+1)*N/V))``, where s is a keyed permutation of v per
task and stretch; with many shards that is a run of whole shards, with few a part of one. A stream's share is its parts
of all stretches. It reads its share over and over, each pass in another windowed order over all of it
(`omnimill.mixtures.order`).

With N >= V every row has exactly one owner and is read once in each of its owner's passes. With N < V several streams
own the same single row: its epochs are dealt out to them in turn, epoch e to the owner whose rank is e modulo their
number, so that (row, epoch) still happens exactly once; they just do not happen in the order of their numbers.

An addition joins a stream's share with the first pass that the stream has not begun: the pass in progress keeps its
rows and their order. Epochs of an added row are counted from there.

With a cap of E epochs, a part is left out of the passes after its E-th; of a cap that is not whole, the last epoch has
that fraction of each part's rows, the first ones.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from math import floor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from omnimill.mixtures.order import WindowedOrder
from omnimill.mixtures.permutation import Permutation
from omnimill.rng import subkey, subkey_many

Int64s = npt.NDArray[np.int64]

_SHARES, ORDERS = 0, 1


class Layout(NamedTuple):
    """How a task's rows are shared out.

    stretches: rows of each stretch, in the order of their numbers. key: of the task. window: see `WindowedOrder`.
    max_epochs: how often a row is read at most.
    """

    stretches: tuple[int, ...]
    streams: int
    key: int
    window: int
    max_epochs: float | None = None


class Part(NamedTuple):
    """A stream's rows of one stretch: `size` rows from `first`; it is number `rank` of the `owners` that share them.

    joined: the pass of the stream's share with which they came in, which is their epoch 0.
    """

    first: int
    size: int
    owners: int
    rank: int
    joined: int


class Share:
    """A stream's rows of a task, in the order in which it reads them: k = 0, 1, …

    Args:
        parts: the first joined with pass 0.
        window, max_epochs: see `Layout`.
        key: of the orders.
    """

    def __init__(self, parts: Sequence[Part], window: int, max_epochs: float | None, key: int) -> None:
        self.parts = tuple(parts)
        self._window, self._key = window, key
        self._whole = None if max_epochs is None else floor(max_epochs)
        self._rest = 0.0 if max_epochs is None else max_epochs - floor(max_epochs)
        self._order = WindowedOrder(self.parts[0].size, window)
        # A single part of which every pass reads all: everything is a division away.
        self._plain = len(self.parts) == 1 and self._whole is None

    @property
    def limit(self) -> int | None:
        """How many reads there are in all; None without a cap."""
        if self._whole is None:
            return None
        return sum(self._reads(part, part.joined + self._whole + 1) for part in self.parts)

    def before(self, number: int) -> int:
        """Reads before pass `number`."""
        return sum(self._reads(part, number) for part in self.parts)

    def next_pass(self, k: int) -> int:
        """The first pass that has not begun when k reads are done."""
        return bisect_left(range(self._last_pass(k) + 2), k, key=self.before)

    def read(self, k: int) -> tuple[int, int]:
        """Row and epoch of the k-th read."""
        if self._plain:
            part = self.parts[0]
            passes, position = divmod(k, part.size)
            number = passes * part.owners + part.rank
            return part.first + self._order.forward(position, subkey(self._key, number)), number
        number = self._pass_of(k)
        sizes = self._sizes(number)
        place = self._pass_order(sizes).forward(k - self.before(number), subkey(self._key, number))
        for part, size in zip(self.parts, sizes, strict=True):
            if place < size:
                return part.first + place, number - part.joined
            place -= size
        raise AssertionError("a pass ends where its parts do")

    def read_many(self, k: int, count: int) -> tuple[Int64s, Int64s]:
        """:meth:`read` of k … k + count - 1."""
        if self._plain:
            return self._read_plain(k, count)
        rows, epochs = np.empty(count, np.int64), np.empty(count, np.int64)
        done, number = 0, self._pass_of(k)
        while done < count:
            sizes, position = self._sizes(number), k + done - self.before(number)
            until = min(sum(sizes) - position, count - done)
            if until > 0:
                self._read_pass(number, sizes, position, rows[done : done + until], epochs[done : done + until])
                done += until
            number += 1
        return rows, epochs

    def position(self, row: int, epoch: int) -> int:
        """Which read is a row's `epoch`-th, both from 0; :meth:`read` inverted.

        Raises:
            IndexError: the row is not in this share, or the epoch another owner's or beyond the cap.
        """
        held = [place for place, part in enumerate(self.parts) if part.first <= row < part.first + part.size]
        if not held:
            raise IndexError(f"row {row} is not of this share")
        place, part = held[0], self.parts[held[0]]
        number = part.joined + epoch
        sizes = self._sizes(number)
        if row - part.first >= sizes[place]:
            raise IndexError(f"row {row} is not read for the {epoch}-th time in this share")
        inside = sum(sizes[:place]) + row - part.first
        return self.before(number) + self._pass_order(sizes).inverse(inside, subkey(self._key, number))

    def _reads(self, part: Part, number: int) -> int:
        """Reads of a part before pass `number`."""
        epochs = number - part.joined
        if epochs <= 0:
            return 0
        whole = epochs if self._whole is None else min(epochs, self._whole)
        if part.owners > 1:
            return max(-(-(whole - part.rank) // part.owners), 0)
        return part.size * whole + (floor(self._rest * part.size) if whole < epochs else 0)

    def _sizes(self, number: int) -> tuple[int, ...]:
        """Rows of each part that pass `number` reads."""
        return tuple(self._reads(part, number + 1) - self._reads(part, number) for part in self.parts)

    def _pass_order(self, sizes: Sequence[int]) -> WindowedOrder:
        size = sum(sizes)
        return self._order if size == self._order.size else WindowedOrder(size, self._window)

    def _last_pass(self, k: int) -> int:
        """A pass that read k is not after, where there is one; else that which no read is after."""
        first = self.parts[0]
        if self._whole is None:
            return k // first.size if first.owners == 1 else k * first.owners + first.rank
        return max(part.joined for part in self.parts) + self._whole

    def _pass_of(self, k: int) -> int:
        return bisect_right(range(self._last_pass(k)), k, key=lambda number: self.before(number + 1))

    def _read_plain(self, k: int, count: int) -> tuple[Int64s, Int64s]:
        part = self.parts[0]
        passes, positions = np.divmod(np.arange(k, k + count, dtype=np.uint64), np.uint64(part.size))
        numbers = passes * np.uint64(part.owners) + np.uint64(part.rank)
        rows = self._order.forward_many(positions, subkey_many(self._key, numbers)) + np.uint64(part.first)
        return rows.astype(np.int64), numbers.astype(np.int64)

    def _read_pass(self, number: int, sizes: Sequence[int], position: int, rows: Int64s, epochs: Int64s) -> None:
        """Reads of one pass from `position` on, as many as there are places in `rows` and `epochs`, written to them."""
        positions = np.arange(position, position + rows.size, dtype=np.uint64)
        keys = np.full(rows.size, subkey(self._key, number), dtype=np.uint64)
        places = self._pass_order(sizes).forward_many(positions, keys).astype(np.int64)
        ends = np.cumsum(sizes)
        which = np.searchsorted(ends, places, side="right")
        rows[:] = places + np.array([part.first for part in self.parts])[which] - (ends - np.array(sizes))[which]
        epochs[:] = number - np.array([part.joined for part in self.parts])[which]


@lru_cache(maxsize=1 << 16)
def share_of(layout: Layout, stream: int, joined: tuple[int, ...] = ()) -> Share:
    """The share of a stream; `joined`: the passes with which the additions that it has met came in."""
    parts, first = [], 0
    for number, (size, came) in enumerate(zip(layout.stretches, (0, *joined), strict=False)):
        parts.append(_part(layout, number, first, size, stream, came))
        first += size
    key = subkey(layout.key, ORDERS, place_of(layout.streams, stream, places_key(layout, 0)))
    return Share(parts, layout.window, layout.max_epochs, key)


def owner(layout: Layout, row: int, epoch: int) -> tuple[int, int]:
    """The stream that reads a row for the `epoch`-th time, and the number of streams that share the row."""
    number, first = 0, 0
    while row >= first + layout.stretches[number]:
        first += layout.stretches[number]
        number += 1
    size, owners = layout.stretches[number], 1
    if size < layout.streams:
        place, owners = _owners(size, layout.streams, row - first)
        place += epoch % owners
    else:
        place = ((row - first + 1) * layout.streams - 1) // size
    return Permutation(layout.streams).inverse(place, places_key(layout, number)), owners


@lru_cache(maxsize=1 << 16)
def place_of(streams: int, stream: int, key: int) -> int:
    """The place of a stream among all in the order that `key` chooses."""
    return Permutation(streams).forward(stream, key)


def _part(layout: Layout, number: int, start: int, size: int, stream: int, joined: int) -> Part:
    place = place_of(layout.streams, stream, places_key(layout, number))
    first, end = place * size // layout.streams, (place + 1) * size // layout.streams
    if size >= layout.streams:
        return Part(start + first, end - first, 1, 0, joined)
    first_owner, owners = _owners(size, layout.streams, first)
    return Part(start + first, 1, owners, place - first_owner, joined)


def places_key(layout: Layout, number: int) -> int:
    """What deals out a stretch to the streams; another one for each, so that those that get more rows change."""
    return subkey(layout.key, _SHARES, number) if number else subkey(layout.key, _SHARES)


def _owners(size: int, streams: int, row: int) -> tuple[int, int]:
    """Of fewer rows than streams: the first place whose stream owns a row, and how many do."""
    first = -(-row * streams // size)
    return first, -(-(row + 1) * streams // size) - first
