"""Which example each virtual stream draws at its n-th draw: a pure function of the mixture and the seed.

There are V virtual streams; the number of workers that serve them does not enter. Nothing is stored per row, so memory
does not depend on the size of the corpus, and every step can be inverted (`omnimill.mixtures.inversion`).

**Which task?** The point of stream v at draw n is ``frac(place(v) / V + n * phi + offset)``, phi the golden ratio's
fraction, `place` a keyed permutation of the streams, and the task is the one whose stretch of the rates' cumulative sum
holds the point (`omnimill.mixtures.points`). At fixed n the V points are equally spaced: every task is drawn by floor
or ceiling of rate x V streams. Along n, each stream's number of draws of a task stays within `deviation_bound(n)` of
rate x n.

**Which row?** The task's rows are shared out to the streams, and each reads its share over and over, each pass in
another order (`omnimill.mixtures.shares`): every row is drawn once per epoch.

**Caps.** When a stream has drawn all that a task's `max_epochs` lets it, the task's stretch goes to the others in
proportion, for this stream from its next draw on.

Rows are keyed by the task's name, not by its place in the mixture: adding or removing other tasks, and other rates, do
not change the order of a task's rows. What changes in mid-run is the business of `omnimill.mixtures.timeline`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from omnimill.errors import ConfigError, OmnimillError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.permutation import LARGEST
from omnimill.mixtures.points import ONE, PHI, Circle, deviation_bound
from omnimill.mixtures.shares import Layout, Share, place_of, share_of
from omnimill.rng import digest64

__all__ = ["Draw", "Draws", "Sampler", "StreamState", "deviation_bound"]

Int64s = npt.NDArray[np.int64]


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
    """Where a stream is.

    draws: made so far. taken: how many of them went to each task. joined: of each task with additions that the stream
    has met, the passes with which they came into its share; empty when there was no addition.
    """

    draws: int
    taken: tuple[int, ...]
    joined: tuple[tuple[int, ...], ...] = ()

    def as_json(self) -> dict[str, Any]:
        joined = {"joined": [list(passes) for passes in self.joined]} if self.joined else {}
        return {"draws": self.draws, "taken": list(self.taken), **joined}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        return cls(state["draws"], tuple(state["taken"]), tuple(map(tuple, state.get("joined", ()))))


class Sampler:
    """The draws of `streams` virtual streams.

    Args:
        rates: of the tasks, in any unit; only their ratios count. A task of rate 0 is not drawn.
        sizes: rows of each task, 1 … 2^63 in all; of one that was added to, the rows of each stretch.
        streams: number of virtual streams, 1 … 2^31.
        seed: of every choice.
        names: of the tasks, keys of their rows' order; their numbers when not given.
        window: consecutive rows that are read together; see `WindowedOrder`.
        max_epochs: how often each task's rows are drawn at most; None: no limit.

    Raises:
        ConfigError: a number is outside its range, or a rate is below the resolution.
    """

    def __init__(
        self,
        rates: Sequence[float],
        sizes: Sequence[int | Sequence[int]],
        streams: int,
        seed: int,
        names: Sequence[str] | None = None,
        window: int = 256,
        max_epochs: Sequence[float | None] | None = None,
    ) -> None:
        names = [str(number) for number in range(len(rates))] if names is None else list(names)
        caps = [None] * len(rates) if max_epochs is None else list(max_epochs)
        stretches = [(size,) if isinstance(size, int) else tuple(size) for size in sizes]
        self.sizes = [sum(one) for one in stretches]
        _check(rates, self.sizes, streams, names, window)
        self.streams = streams
        self.layouts = [
            Layout(stretch, streams, digest64("sampler", seed, "task", name), window, cap)
            for stretch, name, cap in zip(stretches, names, caps, strict=True)
        ]
        self._origin = digest64("sampler", seed, "offset"), digest64("sampler", seed, "places")
        self._capped = [task for task, cap in enumerate(caps) if cap is not None]
        self._set_rates(rates)
        for task, (name, rate) in enumerate(zip(names, rates, strict=True)):
            if rate and not self.circle.width(task):
                raise ConfigError(f"task {name!r}: its share of the rates is below the resolution of 2^-64")

    @classmethod
    def of(cls, mixture: Mixture, sizes: Sequence[int], streams: int) -> Self:
        """The sampler of a mixture's first phase over tasks of the given numbers of rows."""
        if mixture.rate_unit == "tokens":
            raise ConfigError("rates of tokens cannot be drawn; `omnimill.mixtures.config.in_examples` converts them")
        names, caps = [task.name for task in mixture.tasks], [task.max_epochs for task in mixture.tasks]
        return cls(mixture.rates, sizes, streams, mixture.seed, names, mixture.window, caps)

    def at_rates(self, rates: Sequence[float]) -> Self:
        """The same rows at other rates; a rate below the resolution counts as 0."""
        other = copy(self)
        other._set_rates(rates)
        return other

    def start(self, stream: int, draws: int = 0) -> StreamState:
        """The state of a stream after its first `draws` draws, computed without making them."""
        nothing = StreamState(0, (0,) * len(self.layouts))
        return self.advance(stream, self.carry(stream, nothing), draws)

    def next(self, stream: int, state: StreamState) -> tuple[Draw, StreamState]:
        """The draw that follows `state`, and the state after it."""
        task = self._circle(stream, state).task(self.point(stream, state.draws))
        taken = state.taken
        row, epoch = self.share(stream, task, state).read(taken[task])
        after = StreamState(state.draws + 1, (*taken[:task], taken[task] + 1, *taken[task + 1 :]), state.joined)
        return Draw(stream, state.draws, task, row, epoch), after

    def next_many(self, stream: int, state: StreamState, count: int) -> tuple[Draws, StreamState]:
        """The next `count` draws at once, the same as :meth:`next` gives one by one."""
        tasks = self._tasks(stream, state, count)
        rows, epochs = np.empty_like(tasks), np.empty_like(tasks)
        numbers = np.bincount(tasks, minlength=len(self.layouts))
        order, end = np.argsort(tasks, kind="stable"), 0
        for task in np.flatnonzero(numbers).tolist():
            begin, end = end, end + int(numbers[task])
            drawn = order[begin:end]
            rows[drawn], epochs[drawn] = self.share(stream, task, state).read_many(state.taken[task], end - begin)
        taken = tuple(before + number for before, number in zip(state.taken, numbers.tolist(), strict=True))
        return Draws(stream, state.draws, tasks, rows, epochs), StreamState(state.draws + count, taken, state.joined)

    def advance(self, stream: int, state: StreamState, draws: int) -> StreamState:
        """The state `draws` draws after `state`, computed without making them."""
        for begin, circle, length in self.spans(stream, state, draws):
            state = self._skip(stream, begin, circle, length or 0)
        return state

    def carry(self, stream: int, state: StreamState) -> StreamState:
        """A state from before additions or further tasks, as this sampler goes on from it; others stay as they are."""
        if len(state.taken) > len(self.layouts):
            return state
        taken = (*state.taken, *[0] * (len(self.layouts) - len(state.taken)))
        if not any(len(layout.stretches) > 1 for layout in self.layouts):
            return StreamState(state.draws, taken, state.joined)
        met = (*state.joined, *[()] * (len(self.layouts) - len(state.joined)))
        joined = []
        for layout, passes, k in zip(self.layouts, met, taken, strict=True):
            came = list(passes)
            while len(came) < len(layout.stretches) - 1:
                came.append(share_of(layout, stream, tuple(came)).next_pass(k))
            joined.append(tuple(came))
        return StreamState(state.draws, taken, tuple(joined))

    def tasks(self, stream: int, first: int, count: int) -> Int64s:
        """The tasks of a stream's draws `first` … `first + count - 1`, as long as no task has reached its cap."""
        return self.circle.tasks(self.point(stream, first), count)

    def point(self, stream: int, draw: int) -> int:
        """The stream's point at a draw, in units of 2^-64."""
        if not 0 <= stream < self.streams:
            raise IndexError(f"there are {self.streams} streams, asked for stream {stream}")
        offset, key = self._origin
        return (place_of(self.streams, stream, key) * ONE // self.streams + offset + draw * PHI) % ONE

    def share(self, stream: int, task: int, state: StreamState) -> Share:
        """A stream's rows of a task, with the additions that it has met."""
        return share_of(self.layouts[task], stream, state.joined[task] if state.joined else ())

    def spans(
        self, stream: int, state: StreamState, draws: int | None
    ) -> Iterator[tuple[StreamState, Circle, int | None]]:
        """The next `draws` draws (None: all), cut where a task reaches its cap: (state before, circle, length)."""
        while draws is None or draws:
            circle = self._circle(stream, state)
            length = self._until_cap(stream, state, circle)
            length = draws if length is None else length if draws is None else min(length, draws)
            yield state, circle, length
            if length is None:
                return
            state = self._skip(stream, state, circle, length)
            draws = None if draws is None else draws - length

    def _set_rates(self, rates: Sequence[float]) -> None:
        self.circle = Circle(rates)
        self._rates = tuple(rates)
        # Circles by the tasks that have reached their cap.
        self._left: dict[frozenset[int], Circle] = {frozenset(): self.circle}

    def _circle(self, stream: int, state: StreamState) -> Circle:
        """The circle of the tasks that have not reached their cap."""
        if not self._capped:
            return self.circle
        through = frozenset(
            task for task in self._capped if state.taken[task] >= (self.share(stream, task, state).limit or 0)
        )
        if through not in self._left:
            rates = [0 if task in through else rate for task, rate in enumerate(self._rates)]
            if not any(rates):
                raise OmnimillError(
                    f"stream {stream} has drawn all that max_epochs allows of every task, after {state.draws} draws: "
                    "train for fewer steps, allow more epochs or add examples"
                )
            self._left[through] = Circle(rates)
        return self._left[through]

    def _until_cap(self, stream: int, state: StreamState, circle: Circle) -> int | None:
        """Draws after which another task has reached its cap; None when none ever does."""
        left = {
            task: (self.share(stream, task, state).limit or 0) - state.taken[task]
            for task in self._capped
            if circle.width(task)
        }
        nearest, point = None, self.point(stream, state.draws)
        for task in sorted(left, key=lambda task: circle.earliest(task, left[task] - 1)):
            if nearest is not None and circle.earliest(task, left[task] - 1) >= nearest:
                break
            reached = circle.index_of(point, task, left[task] - 1) + 1
            nearest = reached if nearest is None else min(nearest, reached)
        return nearest

    def _skip(self, stream: int, state: StreamState, circle: Circle, length: int) -> StreamState:
        """The state after `length` draws on one circle."""
        point = self.point(stream, state.draws)
        taken = tuple(before + circle.count(point, task, length) for task, before in enumerate(state.taken))
        return StreamState(state.draws + length, taken, state.joined)

    def _tasks(self, stream: int, state: StreamState, count: int) -> Int64s:
        """The tasks of the next `count` draws."""
        if not self._capped:
            return self.circle.tasks(self.point(stream, state.draws), count)
        found = [
            circle.tasks(self.point(stream, begin.draws), length or 0)
            for begin, circle, length in self.spans(stream, state, count)
        ]
        return np.concatenate(found) if found else np.empty(0, np.int64)


def _check(rates: Sequence[float], sizes: Sequence[int], streams: int, names: Sequence[str], window: int) -> None:
    if not rates or not len(rates) == len(sizes) == len(names):
        raise ConfigError(f"a sampler needs tasks: found {len(rates)} rates, {len(sizes)} sizes, {len(names)} names")
    if not 1 <= streams <= 1 << 31:
        raise ConfigError(f"number of streams: found {streams}, allowed: 1 to 2^31")
    if window < 1:
        raise ConfigError(f"window: found {window}, allowed: 1 or more rows")
    for name, rate, size in zip(names, rates, sizes, strict=True):
        if not 0 <= rate < float("inf"):
            raise ConfigError(f"task {name!r}: rate: found {rate}, allowed: 0 or more")
        if not 1 <= size <= LARGEST:
            raise ConfigError(f"task {name!r}: number of rows: found {size}, allowed: 1 to 2^63")
    if not any(rates):
        raise ConfigError("rates: all are 0, allowed: at least one above")
