"""Packing a window: all of its examples at once, to the last one, in as few sequences as can be found.

At first as streams are packed, with all of the window as the pool. Where that may be improved on, and tokens of one
budget are all that the examples take, sequences are filled one after the other with what is worth most together: the
largest example that is left opens, and a knapsack over sizes joins it. What a size is worth is corrected as sequences
show it, towards its length times what was left empty beside it, and the whole window is packed again: sequential value
correction (Belov and Scheithauer, "Setup and open-stacks minimization in one-dimensional stock cutting", 2007). Values
begin near the dual feasible function u^(k), see `omnimill.training.packing.streams`, that makes the window need most
sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from omnimill.rng import Int64s
from omnimill.training.packing.kernel import means, pack_stream
from omnimill.training.packing.streams import check_fit
from omnimill.training.planning.lengths import Budgets

Floats = npt.NDArray[np.float64]

# How often values are corrected at most, by which share, and how much of the first values is length.
_PASSES, _CORRECTION, _LENGTH = 25, 0.1, 0.1
# Not more than so much above what the window needs is good enough.
_GOOD = 1e-3
_FUNCTIONS = range(1, 7)


@dataclass(frozen=True)
class PackedWindow:
    """order: int64 [C]; the examples in the order of their sequences. ends: int64 [S]; where each sequence ends."""

    order: Int64s
    ends: Int64s


def pack_window(costs: Int64s, budgets: Budgets) -> PackedWindow:
    """Sequences of examples (costs: int64 [budgets, C]).

    Raises:
        OmnimillError: an example does not fit an empty sequence.
    """
    limits = np.array(budgets.limits)
    check_fit(costs, limits)
    best = _greedy(np.array(costs.T, order="C"), limits)
    used = np.flatnonzero(costs.any(axis=1))
    if len(used) == 1:
        sizes, limit = costs[used[0]], int(limits[used[0]])
        needed, values = _first_values(sizes, limit)
        for _ in range(_PASSES):
            if len(best.ends) <= needed * (1 + _GOOD):
                break
            order, ends = np.empty_like(sizes), np.empty_like(sizes)
            numbers, counts = np.argsort(sizes, kind="stable"), np.bincount(sizes, minlength=limit + 1)
            sequences = _fill_all(numbers, counts, values, order, ends)
            if sequences < len(best.ends):
                best = PackedWindow(order, ends[:sequences])
    return best


def _greedy(costs: Int64s, limits: Int64s) -> PackedWindow:
    count = len(costs)
    order, ends, heads = np.empty((3, count), np.int64)
    learnt = np.empty((count, 2, len(limits)), np.int64)
    every = (np.arange(count), count, count, limits, count, count, True, means(costs, limits))
    return PackedWindow(order, ends[: pack_stream(costs, *every, order, ends, heads, learnt)])


def _first_values(sizes: Int64s, limit: int) -> tuple[int, Floats]:
    """Sequences that the window needs at least, and what an example of each size is worth: float64 [limit + 1]."""
    lengths = np.arange(limit + 1)
    # Whole numbers: rounding must not make a bound of what is none.
    steps = {parts: np.where((parts + 1) * lengths % limit, (parts + 1) * lengths // limit, -1) for parts in _FUNCTIONS}
    worth = {parts: np.where(own < 0, lengths / limit, own / parts) for parts, own in steps.items()}
    needs = {parts: float(values[sizes].sum()) for parts, values in worth.items()}
    most = max(needs, key=needs.__getitem__)
    needed = max(-(-int(sizes.sum()) // limit), int(np.ceil(needs[most] - 1e-6)))
    return needed, (worth[most] + _LENGTH * lengths / limit) / (1 + _LENGTH)


@njit(cache=True)
def _knapsack(sizes: Int64s, values: Floats, room: int, chosen: Int64s) -> int:
    """How many of some sizes (int64 [n]) are worth most together in `room`; writes which into `chosen`."""
    worth, joins = np.zeros(room + 1), np.zeros((len(sizes), room + 1), np.bool_)
    for number in range(len(sizes)):
        size = sizes[number]
        for used in range(room, size - 1, -1):
            if worth[used - size] + values[size] > worth[used]:
                worth[used], joins[number, used] = worth[used - size] + values[size], True
    found = 0
    for number in range(len(sizes) - 1, -1, -1):
        if joins[number, room]:
            chosen[found] = sizes[number]
            room, found = room - sizes[number], found + 1
    return found


@njit("int64(int64[::1], int64[::1], float64[::1], int64[::1], int64[::1])", cache=True, nogil=True)
def _fill_all(numbers: Int64s, counts: Int64s, values: Floats, order: Int64s, ends: Int64s) -> int:
    """Pack a window once; how many sequences. Writes the last two arguments, and changes counts and values.

    Args:
        numbers: int64 [C]; the examples, the smallest first. counts: int64 [limit + 1]; how many there are of a size.
    """
    limit, largest = len(counts) - 1, len(counts) - 1
    after = np.cumsum(counts)
    sizes, chosen = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.int64)
    placed, sequences = 0, 0
    while placed < len(numbers):
        while not counts[largest]:
            largest -= 1
        counts[largest] -= 1
        chosen[0], room, offered = largest, limit - largest, 0
        for size in range(min(room, largest), 0, -1):
            for _ in range(min(counts[size], room // size)):
                sizes[offered] = size
                offered += 1
        together = 1 + _knapsack(sizes[:offered], values, room, chosen[1:])
        filled = chosen[:together].sum()
        for place in range(together):
            size = chosen[place]
            counts[size] -= place > 0
            after[size] -= 1
            order[placed + place] = numbers[after[size]]
            # Nothing but what every machine rounds alike.
            shown = size / limit * np.sqrt(size / limit) * limit / max(filled, 1)
            values[size] += _CORRECTION * (shown - values[size])
        placed += together
        ends[sequences] = placed
        sequences += 1
    return sequences
