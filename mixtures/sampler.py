"""Which example each virtual stream draws at its n-th draw: a pure function of the mixture and the seed.

There are V virtual streams; the number of workers that serve them does not enter. Nothing is stored per row, so memory
does not depend on the size of the corpus, and every step can be inverted, from an example back to its draw.

**Which task?** The point of stream v at draw n is ``frac(place(v) / V + n * phi + offset)``, phi the golden ratio's
fraction, `place` a keyed permutation of the streams, and the task is the one whose stretch of the rates' cumulative sum
holds the point. At fixed n the V points are equally spaced: every task is drawn by floor or ceiling of rate x V
streams. Along n, each stream's number of draws of a task stays within `deviation_bound(n)` of rate x n.

Points and stretches are 64-bit fixed-point numbers, so that no platform's floating point matters: the resolution of
rates and points is 2^-64.

**Which row?** Of a task's N rows, stream v owns the contiguous share ``[floor(s*N/V), floor((s+1)*N/V))``, where s is a
keyed permutation of v per task; with many shards that is a run of whole shards, with few a part of one. A stream reads
its share over and over, each pass (epoch) in another order (`omnimill.mixtures.order`). With N >= V every row has
exactly one owner and is drawn once per epoch of its owner. With N < V several streams own the same single row: its
epochs are dealt out to them in turn, so that (row, epoch) still happens exactly once; they just do not happen in the
order of their numbers.

Rows are keyed by the task's name, not by its place in the mixture: adding or removing other tasks does not change the
order of a task's rows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import log
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.order import WindowedOrder
from omnimill.mixtures.permutation import LARGEST, Permutation
from omnimill.rng import digest64, subkey, subkey_many

Int64s = npt.NDArray[np.int64]

ONE = 1 << 64
PHI = 0x9E3779B97F4A7C15  # the golden ratio's fraction, in units of 2^-64
_SHARES, _ORDERS = 0, 1


@dataclass(frozen=True, slots=True)
class Draw:
    """One draw: stream `stream` takes, as its `index`-th draw, row `row` of task `task` for the `epoch`-th time."""

    stream: int
    index: int
    task: int
    row: int
    epoch: int


class Draws(NamedTuple):
    """Consecutive draws of one stream: int64 arrays of equal length; `first` is the index of the first."""

    stream: int
    first: int
    task: Int64s
    row: Int64s
    epoch: Int64s


@dataclass(frozen=True, slots=True)
class StreamState:
    """Where a stream is. draws: made so far. taken: how many of them went to each task."""

    draws: int
    taken: tuple[int, ...]


class _Share(NamedTuple):
    """A stream's rows of a task: `size` rows from `first`; it is number `rank` of the `owners` that share them.

    order: of the rows, a choice per epoch; key: of those choices.
    """

    first: int
    size: int
    owners: int
    rank: int
    order: WindowedOrder
    key: int


def deviation_bound(draws: int) -> float:
    """How far a stream's count of any task can be from rate x draws: 1 + 0.42 ln(draws + 1).

    Multiples of the golden ratio deviate by a constant times ln n at most, over all stretches of the circle at once
    (Kuipers and Niederreiter, "Uniform Distribution of Sequences", 1974, chapter 2). The constant is measured: exactly
    for every n up to 3,000 and for the worst n up to 4.6 million, (deviation - 1) / ln(n + 1) stays below 0.413.
    """
    return 1 + 0.42 * log(draws + 1)


class Sampler:
    """The draws of `streams` virtual streams.

    Args:
        rates: of the tasks, in any unit; only their ratios count.
        sizes: rows of each task, 1 … 2^63.
        streams: number of virtual streams, 1 … 2^31.
        seed: of every choice.
        names: of the tasks, keys of their rows' order; their numbers when not given.
        window: consecutive rows that are read together; see `WindowedOrder`.

    Raises:
        ConfigError: a number is outside its range, or a rate is below the resolution.
    """

    def __init__(
        self,
        rates: Sequence[float],
        sizes: Sequence[int],
        streams: int,
        seed: int,
        names: Sequence[str] | None = None,
        window: int = 256,
    ) -> None:
        names = [str(number) for number in range(len(rates))] if names is None else list(names)
        _check(rates, sizes, streams, names, window)
        self.sizes = list(sizes)
        self.streams = streams
        self.window = window
        whole = sum(map(Fraction, rates))
        # Stretch t of the unit circle is [edges[t], edges[t + 1]).
        self._edges = [round(ONE * sum(map(Fraction, rates[:t])) / whole) for t in range(len(rates) + 1)]
        for name, low, high in zip(names, self._edges, self._edges[1:], strict=False):
            if low == high:
                raise ConfigError(f"task {name!r}: its share of the rates is below the resolution of 2^-64")
        self._lower = np.array(self._edges[:-1], dtype=np.uint64)
        self._offset = digest64("sampler", seed, "offset")
        self._places_key = digest64("sampler", seed, "places")
        self._task_keys = [digest64("sampler", seed, "task", name) for name in names]
        self._permutation = Permutation(streams)

    @classmethod
    def of(cls, mixture: Mixture, sizes: Sequence[int], streams: int) -> Self:
        """The sampler of a mixture over tasks of the given numbers of rows."""
        names = [task.name for task in mixture.tasks]
        return cls(mixture.rates, sizes, streams, mixture.seed, names, mixture.window)

    def start(self, stream: int, draws: int = 0) -> StreamState:
        """The state of a stream after its first `draws` draws, computed without making them."""
        return StreamState(draws, tuple(self.count(stream, task, draws) for task in range(len(self.sizes))))

    def next(self, stream: int, state: StreamState) -> tuple[Draw, StreamState]:
        """The draw that follows `state`, and the state after it."""
        task = bisect_right(self._edges, (self._point(stream) + state.draws * PHI) % ONE) - 1
        taken = state.taken
        row, epoch = self._take(task, stream, taken[task])
        after = StreamState(state.draws + 1, (*taken[:task], taken[task] + 1, *taken[task + 1 :]))
        return Draw(stream, state.draws, task, row, epoch), after

    def next_many(self, stream: int, state: StreamState, count: int) -> tuple[Draws, StreamState]:
        """The next `count` draws at once, the same as :meth:`next` gives one by one."""
        tasks = self.tasks(stream, state.draws, count)
        rows, epochs = np.empty_like(tasks), np.empty_like(tasks)
        numbers = np.bincount(tasks, minlength=len(self.sizes)).tolist()
        for task, number in enumerate(numbers):
            if number:
                drawn = tasks == task
                rows[drawn], epochs[drawn] = self._take_many(task, stream, state.taken[task], number)
        taken = tuple(before + number for before, number in zip(state.taken, numbers, strict=True))
        return Draws(stream, state.draws, tasks, rows, epochs), StreamState(state.draws + count, taken)

    def tasks(self, stream: int, first: int, count: int) -> Int64s:
        """The tasks of a stream's draws `first` … `first + count - 1`."""
        start = np.uint64((self._point(stream) + first * PHI) % ONE)
        points = start + np.arange(count, dtype=np.uint64) * np.uint64(PHI)
        return np.searchsorted(self._lower, points, side="right").astype(np.int64) - 1

    def count(self, stream: int, task: int, draws: int) -> int:
        """How many of a stream's first `draws` draws go to a task; the work grows with the digits of `draws` only."""
        # x mod 1 lies in [low, high) exactly when floor(x - low) - floor(x - high) is 1, else it is 0.
        point, low, high = self._point(stream), self._edges[task], self._edges[task + 1]
        return _floor_sum(draws, ONE, PHI, point - low) - _floor_sum(draws, ONE, PHI, point - high)

    def index_of(self, stream: int, task: int, k: int) -> int:
        """Which of a stream's draws is its k-th (from 0) of a task."""
        width = self._edges[task + 1] - self._edges[task]
        # No stream is further than this from its rate within 2^64 draws (see `deviation_bound`).
        slack = int(deviation_bound(ONE)) + 1
        low = max(k - slack, 0) * ONE // width
        high = (k + 1 + slack) * ONE // width + 1
        return low + bisect_left(range(low, high), k + 1, key=lambda index: self.count(stream, task, index + 1))

    def locate(self, task: int, row: int, epoch: int) -> tuple[int, int]:
        """Who draws a row of a task for the `epoch`-th time (from 0).

        Returns:
            The stream, and k: it is the stream's k-th draw (from 0) of that task.
        """
        size = self.sizes[task]
        if not 0 <= row < size:
            raise IndexError(f"task {task} has {size} rows, asked for row {row}")
        if size < self.streams:
            first, owners = _owners(size, self.streams, row)
            passes, rank = divmod(epoch, owners)
            place = first + rank
        else:
            passes, place = epoch, ((row + 1) * self.streams - 1) // size
        stream = self._permutation.inverse(place, subkey(self._task_keys[task], _SHARES))
        share = self._share(task, stream)
        return stream, passes * share.size + share.order.inverse(row - share.first, subkey(share.key, epoch))

    def draws_of(self, task: int, row: int, draws: Sequence[int]) -> Iterator[Draw]:
        """Every draw of a row while stream v makes its first ``draws[v]`` draws, by epoch."""
        size = self.sizes[task]
        owners = 1 if size >= self.streams else _owners(size, self.streams, row)[1]
        epoch, out = 0, 0
        # Owners of a shared row need not be equally far: stop when each of them has run out.
        while out < owners:
            stream, k = self.locate(task, row, epoch)
            index = self.index_of(stream, task, k)
            out = out + 1 if index >= draws[stream] else 0
            if not out:
                yield Draw(stream, index, task, row, epoch)
            epoch += 1

    def _point(self, stream: int) -> int:
        """The stream's point at draw 0, in units of 2^-64."""
        if not 0 <= stream < self.streams:
            raise IndexError(f"there are {self.streams} streams, asked for stream {stream}")
        return _place(self.streams, stream, self._places_key) * ONE // self.streams + self._offset

    def _share(self, task: int, stream: int) -> _Share:
        return _share(self.sizes[task], self.streams, stream, self._task_keys[task], self.window)

    def _take(self, task: int, stream: int, k: int) -> tuple[int, int]:
        """Row and epoch of a stream's k-th draw of a task."""
        share = self._share(task, stream)
        passes, position = divmod(k, share.size)
        epoch = passes * share.owners + share.rank
        return share.first + share.order.forward(position, subkey(share.key, epoch)), epoch

    def _take_many(self, task: int, stream: int, k: int, count: int) -> tuple[Int64s, Int64s]:
        """:meth:`_take` of k … k + count - 1."""
        share = self._share(task, stream)
        passes, positions = np.divmod(np.arange(k, k + count, dtype=np.uint64), np.uint64(share.size))
        epochs = passes * np.uint64(share.owners) + np.uint64(share.rank)
        rows = share.order.forward_many(positions, subkey_many(share.key, epochs)) + np.uint64(share.first)
        return rows.astype(np.int64), epochs.astype(np.int64)


def _check(rates: Sequence[float], sizes: Sequence[int], streams: int, names: Sequence[str], window: int) -> None:
    if not rates or not len(rates) == len(sizes) == len(names):
        raise ConfigError(f"a sampler needs tasks: found {len(rates)} rates, {len(sizes)} sizes, {len(names)} names")
    if not 1 <= streams <= 1 << 31:
        raise ConfigError(f"number of streams: found {streams}, allowed: 1 to 2^31")
    if window < 1:
        raise ConfigError(f"window: found {window}, allowed: 1 or more rows")
    for name, rate, size in zip(names, rates, sizes, strict=True):
        if not 0 < rate < float("inf"):
            raise ConfigError(f"task {name!r}: rate: found {rate}, allowed: above 0")
        if not 1 <= size <= LARGEST:
            raise ConfigError(f"task {name!r}: number of rows: found {size}, allowed: 1 to 2^63")


@lru_cache(maxsize=1 << 16)
def _place(streams: int, stream: int, key: int) -> int:
    """The place of a stream among all in the order that `key` chooses."""
    return Permutation(streams).forward(stream, key)


@lru_cache(maxsize=1 << 16)
def _share(size: int, streams: int, stream: int, task_key: int, window: int) -> _Share:
    place = _place(streams, stream, subkey(task_key, _SHARES))
    first, end = place * size // streams, (place + 1) * size // streams
    key = subkey(task_key, _ORDERS, place)
    if size >= streams:
        return _Share(first, end - first, 1, 0, WindowedOrder(end - first, window), key)
    first_owner, owners = _owners(size, streams, first)
    return _Share(first, 1, owners, place - first_owner, WindowedOrder(1, window), key)


def _owners(size: int, streams: int, row: int) -> tuple[int, int]:
    """Of fewer rows than streams: the first place whose stream owns a row, and how many do."""
    first = -(-row * streams // size)
    return first, -(-(row + 1) * streams // size) - first


def _floor_sum(n: int, m: int, a: int, b: int) -> int:
    """Sum of floor((a*i + b) / m) for i in range(n): lattice points under a line, in O(log m) steps like Euclid's."""
    total = 0
    while True:
        total += n * (n - 1) // 2 * (a // m) + n * (b // m)
        a, b = a % m, b % m
        n, b = divmod(a * n + b, m)
        if not n:
            return total
        m, a = a, m
