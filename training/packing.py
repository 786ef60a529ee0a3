"""Packing: which pending examples share the next sequence, under several budgets at once, for many streams at a time.

Lengths only. Nothing is lost or cut: what does not fit now stays in its stream's pool, and the pool outlives the
sequence.

An example weighs what it takes of each budget, times the budget's price: the scarcer a budget, the dearer it is. The
heaviest example of the pool opens a sequence; then, while something fits, another joins. A freed place in the pool is
refilled at once, so every choice is among a full pool. So that none waits for ever, the oldest opens the sequence when
more than `patience` draws were made after it.

How scarce budgets are, a stream learns from what it draws. By volume alone this would be misjudged: of examples that
take more than half of a budget, only one goes into a sequence, whatever room it leaves. So the load of a budget is the
larger of two means over what was drawn: of shares, and of shares rounded down to halves as the dual feasible function
u^(2) does (Fekete and Schepers, "New classes of fast lower bounds for bin packing problems", 2001): more than a third
counts as a half, more than two thirds as a whole.

Who joins depends on how many budgets are scarce:

* One: room is what matters. Of the eight heaviest that fit, that joins which weighs most together with the heaviest
  that would fit beside it, since of two that nearly fill a sequence the heavier may leave room that nothing else uses.
* Several: who excludes whom matters more than room. Halves are added to what examples weigh, and the heaviest joins.

On ties it is the heavier, then the older.

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

# Of the order in which examples are packed: to be raised whenever that changes.
VERSION = 3
# A whole budget in loads, in fixed point: sums of whole numbers are the same on every machine.
_WHOLE_BITS = 24
# Draws over which loads forget.
_MEMORY = 1024
# A budget whose load is a share x of the largest one's has the price x^(2^3), the highest being 1.
_SQUARINGS, _PRICE_BITS = 3, 16
# Of a weight: tokens of a budget of a million still weigh something.
_UNIT_BITS = 10
# Weighs more than the number of a candidate; there are fewer candidates than this.
_TIES = 1 << 32
# Candidates of which it is looked at what would fit beside them.
_TRIED = 8
# A budget is scarce beside the scarcest one from this share of its price on, as a power of two.
_SCARCE_BITS = 4
# Kinds of what is kept of a candidate, behind its costs.
_WEIGHT, _NUMBER = -2, -1
# Bits of a word that hold what is left of budgets.
_WORD_BITS = 62


class PackingSettings(Config):
    """budgets: room in one packed sequence. pool: pending examples of a stream to choose from.

    patience: an example that more draws were made after opens the next sequence, the oldest first.
    """

    budgets: Budgets = Budgets()
    pool: int = Field(default=128, ge=1)
    patience: int = Field(default=1024, ge=0)


@dataclass(frozen=True)
class Packed:
    """What the sequences of V streams hold.

    order: int64 [V, C]; candidates in the order in which they were placed. ends: int64 [V, S]; how many of these had
    been placed when a sequence was full. sequences: int64 [V]; how many of `ends` count, those of whole sequences.
    loads: int64 [2, budgets, V, S]; of the budgets, after each sequence, see :func:`no_loads`.
    """

    order: Int64s
    ends: Int64s
    sequences: Int64s
    loads: Int64s


def no_loads(streams: int) -> Int64s:
    """int64 [2, budgets, V]: what streams know of their draws at first; later means, by volume and by halves."""
    return np.zeros((2, len(Budgets.model_fields), streams), np.int64)


def pack(
    costs: Int64s,
    draws: Int64s,
    available: Int64s,
    settings: PackingSettings,
    most: int,
    loads: Int64s,
    to_the_last: bool = False,
) -> Packed:
    """Fill sequences of several streams until a stream's candidates or `most` sequences are through.

    Args:
        costs: int64 [budgets, V, C]; of each stream's pending examples, oldest first, then of those that it draws next.
        draws: int64 [V, C]; their numbers among the stream's draws, which grow.
        available: int64 [V]; how many of the C candidates a stream has.
        settings: budgets, size of the pool, and patience.
        most: sequences of a stream.
        loads: int64 [2, budgets, V]; after the sequences before these, or :func:`no_loads`.
        to_the_last: the candidates are all there are: go on with pools that are not full until they are empty.

    Raises:
        OmnimillError: an example does not fit an empty sequence.
    """
    budgets, streams, columns = costs.shape
    limits = np.array(settings.budgets.limits)
    _check(costs, limits)
    slots = min(most, columns) + 1
    ends, learnt = np.zeros((streams, slots), np.int64), np.zeros((2, budgets, streams, slots), np.int64)
    order = np.full((streams, columns), -1, np.int64)
    sequences = np.zeros(streams, np.int64)
    begun = available > 0 if to_the_last else available >= settings.pool
    if not begun.any():
        return Packed(order, ends[:, 1:], sequences, learnt[:, :, :, 1:])
    if to_the_last:
        costs, draws = _padded(costs, draws, available, settings)
    pools = _Pools(costs, draws, np.flatnonzero(begun), settings, limits, loads)
    # Every stream that is left has placed as many examples as there were rounds.
    for placed in range(columns):
        slot, through = pools.choose()
        if len(through):
            closed, number = pools.stream[through], pools.sequence[through]
            ends[closed, number] = placed
            sequences[closed] = number
            pools.open_next(through, slot, settings.pool + placed - 1)
            learnt[:, :, closed, number] = pools.loads[:, :, through]
            if most < columns and (done := pools.sequence > most).any():
                slot = pools.drop(done, slot)
        order[pools.stream, placed] = pools.place(slot)
        following = settings.pool + placed
        if to_the_last:
            if (last := available[pools.stream] == placed + 1).any():
                closed = pools.stream[last]
                ends[closed, pools.sequence[last]] = placed + 1
                sequences[closed] = pools.sequence[last]
                slot = pools.drop(last, slot)
        elif following >= pools.shortest(available):
            slot = pools.drop(following >= available[pools.stream], slot)
        if not len(pools.stream):
            break
        pools.refill(slot, following)
    # The first end is that of no sequence.
    return Packed(order, ends[:, 1:], sequences, learnt[:, :, :, 1:])


class _Words:
    """Amounts of all budgets in a few integers, so that one subtraction tells whether an example fits.

    Each budget has a field of bits with one more above it. That bit is set in what is left, and stays set when no more
    is taken away than there is.
    """

    def __init__(self, limits: Int64s) -> None:
        places: list[tuple[int, int]] = []
        taken = _WORD_BITS
        # What fits no sequence takes one more than there is.
        for bits in [int(limit + 1).bit_length() + 1 for limit in limits]:
            taken = bits if (full := taken + bits > _WORD_BITS) else taken + bits
            places.append((places[-1][0] + full if places else 0, taken))
        guards = np.zeros((places[-1][0] + 1, len(limits)), np.int64)
        for budget, (word, end) in enumerate(places):
            guards[word, budget] = 1 << (end - 1)
        widths = np.array([int(limit + 1).bit_length() for limit in limits])
        self._units = guards >> widths
        self.guards = guards.sum(axis=1)
        self.whole = self.of(limits) + self.guards

    def of(self, amounts: Int64s) -> Int64s:
        """Amounts (int64 [budgets, …]) as int64 [words, …]."""
        found: Int64s = np.tensordot(self._units, amounts, axes=1)
        return found

    def hold(self, left: Int64s) -> npt.NDArray[np.bool_]:
        """Whether nothing of what is left (int64 [words, …]) is below 0."""
        found: npt.NDArray[np.bool_] = left[0] & self.guards[0] == self.guards[0]
        for word, guard in zip(left[1:], self.guards[1:], strict=True):
            found &= word & guard == guard
        return found


class _Pools:
    """The streams that are still being packed, n of them; pools of P examples.

    stream, sequence: int64 [n]; which they are, and sequences begun. loads: int64 [2, budgets, n].
    """

    def __init__(
        self,
        costs: Int64s,
        draws: Int64s,
        stream: Int64s,
        settings: PackingSettings,
        limits: Int64s,
        loads: Int64s,
    ) -> None:
        self._limits = limits[:, None]
        self._patience = settings.patience
        self._words = _Words(limits)
        self._amounts = self._words.of(costs)
        self._shares, self._known = _shares(costs, limits), np.minimum(draws + 1, _MEMORY)
        # What units are multiplied with: costs, and halves.
        self._counts = np.concatenate([costs, self._shares[1] >> (_WHOLE_BITS - 1)])
        self._draws = draws
        self._kinds = len(self._counts)
        self.stream = stream
        self.sequence = np.zeros(len(stream), np.int64)
        first = slice(settings.pool)
        pending = [self._counts[:, stream, first], self._amounts[:, stream, first]]
        self._pool = np.concatenate([*pending, np.zeros((2, len(stream), settings.pool), np.int64)])
        self._pool[_NUMBER] = np.arange(settings.pool)
        self._left: Int64s | None = None
        known, shares = loads[:, :, stream], self._shares[:, :, stream, first]
        self.loads = np.where(known.any(axis=(0, 1)), known, shares.sum(axis=3) // settings.pool)
        # Of each budget, what a token (or picture, or clip) and what a half of it weighs.
        self._units = np.zeros((self._kinds, len(stream)), np.int64)
        # Streams in which one budget is scarce.
        self._one = np.zeros(len(stream), np.bool_)
        self._row = np.arange(len(stream))
        self._shortest: int | None = None

    def choose(self) -> tuple[Int64s, Int64s]:
        """Places in the pools of what joins (of all streams), and the streams in which nothing fits."""
        if self._left is None:
            self._left = np.zeros((len(self._words.guards), len(self._row)), np.int64)
            return np.zeros_like(self._row), self._row
        amounts = self._pool[self._kinds : _WEIGHT]
        weight = np.where(self._words.hold(self._left[:, :, None] - amounts), self._pool[_WEIGHT], -1)
        slot = weight.argmax(axis=1)
        open_ = weight[self._row, slot] >= 0
        if len(looking := (open_ & self._one).nonzero()[0]):
            slot[looking] = self._look_ahead(weight[looking], amounts[:, looking], self._left[:, looking])
        return slot, (~open_).nonzero()[0]

    def _look_ahead(self, weight: Int64s, amounts: Int64s, left: Int64s) -> Int64s:
        """Of the heaviest, that which weighs most with another beside it: places in the pools, int64 [m].

        Args:
            weight: int64 [m, P]; of some streams, below 0 where an example does not fit.
            amounts, left: int64 [words, m, P], int64 [words, m].
        """
        row = np.arange(len(weight))[:, None]
        if weight.shape[1] > _TRIED:
            tried = np.argpartition(weight, -_TRIED, axis=1)[:, -_TRIED:]
        else:
            tried = np.broadcast_to(np.arange(weight.shape[1]), weight.shape)
        first = weight[row, tried]
        beside = self._words.hold((left[:, :, None] - amounts[:, row, tried])[..., None] - amounts[:, :, None])
        beside[row, np.arange(tried.shape[1]), tried] = False
        second = np.where(beside, weight[:, None], 0).max(axis=2)
        # Numbers of candidates decide among equal ones only: they are not the same in the next block.
        both = np.where(first < 0, -1, first // _TIES + second // _TIES)
        best = np.where(both == both.max(axis=1)[:, None], first, -1).argmax(axis=1)
        found: Int64s = tried[row[:, 0], best]
        return found

    def open_next(self, through: Int64s, slot: Int64s, newest: int) -> None:
        """Begin the next sequence of some streams.

        Args:
            slot: int64 [n]; where the first example of each of these is put.
            newest: number of the candidate that came into the pools last.
        """
        self._units[:, through], self._one[through] = self._priced(self.loads[:, :, through].max(axis=0))
        # Mostly one or two budgets have a price at all.
        units = self._units[:, through]
        priced = np.flatnonzero(units.any(axis=1))
        counts = self._pool[np.concatenate([[0], priced])[:, None], through]
        number = self._pool[_NUMBER, through]
        weight = self._weights(counts[1:], units[priced], number)
        weight[counts[0] > self._limits[0]] = -1
        self._pool[_WEIGHT, through] = weight
        self.sequence[through] += 1
        assert self._left is not None
        self._left[:, through] = self._words.whole[:, None]
        oldest = number.argmin(axis=1)
        draws, at = self._draws[self.stream[through]], np.arange(len(through))
        waited = draws[:, newest] - draws[at, number[at, oldest]]
        slot[through] = np.where(waited > self._patience, oldest, weight.argmax(axis=1))

    def place(self, slot: Int64s) -> Int64s:
        """Take an example out of every pool; which candidates they are."""
        taken = self._pool[:, self._row, slot]
        assert self._left is not None
        self._left -= taken[self._kinds : _WEIGHT]
        number: Int64s = taken[_NUMBER]
        return number

    def refill(self, slot: Int64s, following: int) -> None:
        """Put the next candidate, which has the same number in all streams, in every pool's freed place."""
        self.loads += (self._shares[:, :, self.stream, following] - self.loads) // self._known[self.stream, following]
        counts = self._counts[:, self.stream, following]
        self._pool[: self._kinds, self._row, slot] = counts
        self._pool[self._kinds : _WEIGHT, self._row, slot] = self._amounts[:, self.stream, following]
        weight = self._weights(counts, self._units, following)
        self._pool[_WEIGHT, self._row, slot] = np.where(counts[0] > self._limits[0], -1, weight)
        self._pool[_NUMBER, self._row, slot] = following

    def shortest(self, available: Int64s) -> int:
        """Candidates of the stream that has fewest."""
        if self._shortest is None:
            self._shortest = int(available[self.stream].min(initial=available.max()))
        return self._shortest

    def drop(self, done: npt.NDArray[np.bool_], slot: Int64s) -> Int64s:
        """Go on without some streams; `slot` of the others."""
        kept = ~done
        self.stream, self.sequence = self.stream[kept], self.sequence[kept]
        assert self._left is not None
        self._pool, self._left = self._pool[:, kept], self._left[:, kept]
        self.loads, self._units = self.loads[:, :, kept], self._units[:, kept]
        self._one = self._one[kept]
        self._row = np.arange(len(self.stream))
        self._shortest = None
        return slot[kept]

    def _priced(self, loads: Int64s) -> tuple[Int64s, npt.NDArray[np.bool_]]:
        """What tokens of budgets weigh and then halves, int64 [2 * budgets, n], and whether one budget is scarce."""
        price = (loads << _PRICE_BITS) // np.maximum(loads.max(axis=0), 1)
        for _ in range(_SQUARINGS):
            price = price * price >> _PRICE_BITS
        one = (price >= 1 << (_PRICE_BITS - _SCARCE_BITS)).sum(axis=0) < 2
        units = (price << _UNIT_BITS) // np.maximum(self._limits, 1)
        return np.concatenate([units, np.where(one, 0, price << (_UNIT_BITS - 1))]), one

    def _weights(self, counts: Int64s, units: Int64s, number: Int64s | int) -> Int64s:
        """Counts (int64 [k, n, …]) times units (int64 [k, n]), the oldest first on ties."""
        weight: Int64s = np.einsum("kn...,kn->n...", counts, units) * _TIES + (_TIES - 1) - number
        return weight


def _shares(costs: Int64s, limits: Int64s) -> Int64s:
    """int64 [2, budgets, …]: what examples take of each budget, by volume and rounded down to halves.

    What fits no sequence fills places of the last pools and takes nothing.
    """
    limits = limits.reshape(-1, *[1] * (costs.ndim - 1))
    costs, whole = np.where(costs[0] > limits[0], 0, costs), np.maximum(limits, 1)
    return np.stack([(costs << _WHOLE_BITS) // whole, np.minimum(3 * costs // whole, 2) << (_WHOLE_BITS - 1)])


def _padded(costs: Int64s, draws: Int64s, available: Int64s, settings: PackingSettings) -> tuple[Int64s, Int64s]:
    """What pools are filled up with when there is nothing more to draw: candidates that fit no sequence."""
    never = np.array(settings.budgets.limits)[:, None, None] + 1
    there = np.arange(costs.shape[2]) < available[:, None]
    costs = np.where(there, costs, never)
    more = np.broadcast_to(never, (len(costs), len(available), settings.pool))
    draws = np.maximum.accumulate(np.where(there, draws, 0), axis=1)
    return np.concatenate([costs, more], axis=2), np.pad(draws, ((0, 0), (0, settings.pool)), mode="edge")


def _check(costs: Int64s, limits: Int64s) -> None:
    """Raise OmnimillError when a candidate does not fit an empty sequence."""
    too_large = (costs > limits[:, None, None]).any(axis=0)
    if too_large.any():
        found, budgets = tuple(costs[:, too_large][:, 0].tolist()), tuple(limits.tolist())
        raise OmnimillError(f"an example takes {found} of the budgets {budgets}: it cannot be packed even alone")
