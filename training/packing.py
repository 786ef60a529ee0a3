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
    state = _Pools(costs, available, settings)
    while len(state.stream):
        slot, through = state.choose()
        if len(through):
            closed = state.stream[through]
            ends[closed, state.sequence[through]] = state.placed[through]
            sequences[closed] = state.sequence[through]
            state.open_next(through, slot)
            if (done := state.sequence > most).any():
                slot = state.drop(done, slot)
        at = state.placed.copy()
        order[state.stream, at] = state.place(slot)
        if (empty := state.refill(slot)).any():
            state.drop(empty, slot)
    # The first end is that of no sequence.
    return Packed(order, ends[:, 1:], sequences)


class _Pools:
    """The streams that are still being packed, n of them; pools of P examples.

    stream: int64 [n]; which they are. sequence, placed: int64 [n]; sequences begun and candidates placed.
    """

    def __init__(self, costs: Int64s, available: Int64s, settings: PackingSettings) -> None:
        self._available = available
        self._limits = np.array(settings.budgets.limits)[:, None]
        _check(costs, self._limits)
        # Of every candidate: its costs, what it weighs (tokens, the oldest on ties), its number.
        number = np.broadcast_to(np.arange(costs.shape[2]), costs.shape[1:])
        self._candidates = np.concatenate([costs, ((costs[0] + costs[1]) * _TOKEN - number)[None], number[None]])
        self.stream: Int64s = np.flatnonzero(available >= settings.pool)
        streams = len(self.stream)
        self.sequence = np.zeros(streams, np.int64)
        self.placed = np.zeros(streams, np.int64)
        self._head = np.full(streams, settings.pool)
        self._pool = self._candidates[:, self.stream, : settings.pool]
        # Nothing fits before the first sequence is opened.
        self._left = np.full((len(costs), streams), -1)
        self._row = np.arange(streams)

    def choose(self) -> tuple[Int64s, Int64s]:
        """Places in the pools of the largest that fit (of all streams), and the streams in which none does."""
        fits = (self._pool[:_WEIGHT] <= self._left[:, :, None]).all(axis=0)
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
        self.placed += 1
        number: Int64s = taken[_NUMBER]
        return number

    def refill(self, slot: Int64s) -> npt.NDArray[np.bool_]:
        """Put the next candidate in every pool's freed place; where there is none."""
        empty: npt.NDArray[np.bool_] = self._head >= self._available[self.stream]
        following = np.minimum(self._head, self._candidates.shape[2] - 1)
        self._pool[:, self._row, slot] = self._candidates[:, self.stream, following]
        self._head += 1
        return empty

    def drop(self, done: npt.NDArray[np.bool_], slot: Int64s) -> Int64s:
        """Go on without some streams; `slot` of the others."""
        kept = ~done
        self.stream, self.sequence, self.placed = self.stream[kept], self.sequence[kept], self.placed[kept]
        self._head, self._pool, self._left = self._head[kept], self._pool[:, kept], self._left[:, kept]
        self._row = np.arange(len(self.stream))
        return slot[kept]


def _check(costs: Int64s, limits: Int64s) -> None:
    """Raise OmnimillError when a candidate does not fit an empty sequence."""
    too_large = (costs > limits[:, :, None]).any(axis=0)
    if too_large.any():
        found, budgets = tuple(costs[:, too_large][:, 0].tolist()), tuple(limits[:, 0].tolist())
        raise OmnimillError(f"an example takes {found} of the budgets {budgets}: it cannot be packed even alone")
