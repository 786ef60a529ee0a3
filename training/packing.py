"""Packing: which pending examples share the next sequence, under several budgets at once, for many streams at a time.

Lengths only. Nothing is lost or cut: what does not fit now stays in its stream's pool, and the pool outlives the
sequence.

The oldest pending example of a stream opens a sequence, so that each is placed at most as many sequences after the one
during which it was drawn as the pool has places. Then, while something fits, the one with the most tokens (encoder and
decoder together, the oldest on ties) joins. A freed place in the pool is refilled at once, so every choice is among a
full pool.

Streams do not wait for one another: in each round every stream places one example, in its current sequence where one
fits and else in its next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from omnimill.config import Config
from omnimill.errors import OmnimillError
from omnimill.rng import Int64s
from omnimill.training.lengths import Budgets

# Weighs tokens above the number of a candidate; there are fewer candidates than this.
_TOKEN = 1 << 32
# Kinds of what is kept of a candidate, behind its costs.
_WEIGHT, _NUMBER = -2, -1


class PackingSettings(Config):
    """budgets: room in one packed sequence. pool: pending examples of a stream to choose from."""

    budgets: Budgets = Budgets()
    pool: int = Field(default=16, ge=1)


@dataclass(frozen=True)
class Packed:
    """What the sequences of V streams hold.

    order: int64 [V, C]; candidates in the order in which they were placed. ends: int64 [V, S]; how many of these had
    been placed when a sequence was full. sequences: int64 [V]; how many of `ends` count, those of whole sequences.
    """

    order: Int64s
    ends: Int64s
    sequences: Int64s


def pack(costs: Int64s, available: Int64s, settings: PackingSettings, most: int) -> Packed:
    """Fill sequences of several streams until a stream's candidates or `most` sequences are through.

    Args:
        costs: int64 [budgets, V, C]; of each stream's pending examples, oldest first, then of those that it draws next.
        available: int64 [V]; how many of the C candidates a stream has.
        settings: budgets and size of the pool.
        most: sequences of a stream.

    Raises:
        OmnimillError: an example does not fit an empty sequence.
    """
    _, streams, columns = costs.shape
    ends = np.zeros((streams, min(most, columns) + 1), np.int64)
    order = np.full((streams, columns), -1, np.int64)
    sequences = np.zeros(streams, np.int64)
    pools = _Pools(costs, np.flatnonzero(available >= settings.pool), settings)
    # Every stream that is left has placed as many examples as there were rounds.
    for placed in range(columns):
        slot, through = pools.choose()
        if len(through):
            closed, number = pools.stream[through], pools.sequence[through]
            ends[closed, number] = placed
            sequences[closed] = number
            pools.open_next(through, slot)
            if most < columns and (done := pools.sequence > most).any():
                slot = pools.drop(done, slot)
        order[pools.stream, placed] = pools.place(slot)
        following = settings.pool + placed
        if following >= pools.shortest(available):
            slot = pools.drop(following >= available[pools.stream], slot)
        if not len(pools.stream):
            break
        pools.refill(slot, following)
    # The first end is that of no sequence.
    return Packed(order, ends[:, 1:], sequences)


class _Pools:
    """The streams that are still being packed, n of them; pools of P examples.

    stream, sequence: int64 [n]; which they are, and sequences begun.
    """

    def __init__(self, costs: Int64s, stream: Int64s, settings: PackingSettings) -> None:
        self._limits = np.array(settings.budgets.limits)[:, None]
        _check(costs, self._limits)
        # Of every candidate: its costs, what it weighs (tokens, the oldest on ties), its number.
        number = np.broadcast_to(np.arange(costs.shape[2]), costs.shape[1:])
        self._candidates = np.concatenate([costs, ((costs[0] + costs[1]) * _TOKEN - number)[None], number[None]])
        self.stream = stream
        self.sequence = np.zeros(len(stream), np.int64)
        self._pool = self._candidates[:, stream, : settings.pool]
        # Nothing fits before the first sequence is opened.
        self._left = np.full((len(costs), len(stream)), -1)
        self._row = np.arange(len(stream))
        self._shortest: int | None = None

    def choose(self) -> tuple[Int64s, Int64s]:
        """Places in the pools of the largest that fit (of all streams), and the streams in which none does."""
        fits = np.logical_and.reduce(self._pool[:_WEIGHT] <= self._left[:, :, None], axis=0)
        weight = np.where(fits, self._pool[_WEIGHT], -1)
        slot = weight.argmax(axis=1)
        return slot, (weight[self._row, slot] < 0).nonzero()[0]

    def open_next(self, through: Int64s, slot: Int64s) -> None:
        """Begin the next sequence of some streams; its first example is the oldest."""
        self.sequence[through] += 1
        self._left[:, through] = self._limits
        slot[through] = self._pool[_NUMBER, through].argmin(axis=1)

    def place(self, slot: Int64s) -> Int64s:
        """Take an example out of every pool; which candidates they are."""
        taken = self._pool[:, self._row, slot]
        self._left -= taken[:_WEIGHT]
        number: Int64s = taken[_NUMBER]
        return number

    def refill(self, slot: Int64s, following: int) -> None:
        """Put the next candidate, which has the same number in all streams, in every pool's freed place."""
        self._pool[:, self._row, slot] = self._candidates[:, self.stream, following]

    def shortest(self, available: Int64s) -> int:
        """Candidates of the stream that has fewest."""
        if self._shortest is None:
            self._shortest = int(available[self.stream].min(initial=available.max()))
        return self._shortest

    def drop(self, done: npt.NDArray[np.bool_], slot: Int64s) -> Int64s:
        """Go on without some streams; `slot` of the others."""
        kept = ~done
        self.stream, self.sequence = self.stream[kept], self.sequence[kept]
        self._pool, self._left = self._pool[:, kept], self._left[:, kept]
        self._row = np.arange(len(self.stream))
        self._shortest = None
        return slot[kept]


def _check(costs: Int64s, limits: Int64s) -> None:
    """Raise OmnimillError when a candidate does not fit an empty sequence."""
    too_large = (costs > limits[:, :, None]).any(axis=0)
    if too_large.any():
        found, budgets = tuple(costs[:, too_large][:, 0].tolist()), tuple(limits[:, 0].tolist())
        raise OmnimillError(f"an example takes {found} of the budgets {budgets}: it cannot be packed even alone")
