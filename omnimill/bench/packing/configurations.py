"""The bound of configurations: how many sequences of one budget no packing can do without.

A configuration is a set of examples that fit one sequence. If values are given to sizes such that no configuration is
worth more than 1, all examples together are worth no more than the sequences that hold them, whatever the packing. The
best such values are the dual of the linear programme over all configurations (Gilmore and Gomory, "A linear programming
approach to the cutting-stock problem", 1961), which is found by adding configurations that are worth too much, each
found as a knapsack. Values that are not there yet become valid ones when they are divided by the largest worth of a
configuration (Farley, "A note on bounding a class of linear programming problems", 1990), so that every result is a
bound, however early the search ends.

Values may grow with size, since a configuration stays one when an example is replaced by a smaller one; this keeps the
search from wandering. Sizes are rounded down into classes at first, which can only make a bound smaller. What results
are few steps; these are then moved, size by size, to where exact sizes allow them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import linprog

from omnimill import rng
from omnimill.rng import Int64s

Floats = npt.NDArray[np.float64]

# Units that a budget is divided into for the linear programme, and configurations by how far from proportional values
# it begins with.
_UNITS, _FIRST, _SPREAD = 512, 8, 0.03
_ROUNDS, _SMOOTHING, _SAME = 60, 0.7, 1e-7
# Steps are moved by up to this many units; two at a time where there are few.
_REACH, _FEW, _SWEEPS = 2, 12, 6


def configuration_bound(sizes: Int64s, limit: int, known: float) -> float:
    """Sequences of `limit` tokens that examples (tokens, int64 [n]) need at least; `known` where that is no more."""
    unit = -(-limit // _UNITS)
    coarse, counts = np.unique(sizes // unit, return_counts=True)
    coarse, counts = coarse[coarse > 0], counts[coarse > 0]
    if not len(coarse):
        return known
    values = _values(coarse, counts, limit // unit, known)
    if values is None:
        return known
    rises = np.flatnonzero(np.diff(values, prepend=0.0) > _SAME)
    steps = _Steps(coarse[rises] * unit, values[rises], limit)
    different, counts = np.unique(sizes, return_counts=True)
    return _moved(steps, different, counts, _REACH * unit)


def _values(sizes: Int64s, counts: Int64s, limit: int, known: float) -> Floats | None:
    """Of each size, growing, the value that makes the whole worth most, float64 [n]; None if not above `known`."""
    kinds = len(sizes)
    ones = np.eye(kinds - 1, kinds)
    grows = sparse.csr_matrix(ones - np.eye(kinds - 1, kinds, 1))
    draws = rng.generator("first configurations")
    found = [np.diag(np.minimum(counts, limit // sizes))]
    found += [
        _best(sizes, counts, sizes / limit * (1 + draws.normal(0, _SPREAD, kinds)), limit)[1] for _ in range(_FIRST)
    ]
    every = np.unique(np.concatenate(found), axis=0)
    best, centre = 0.0, np.zeros(kinds)
    for _ in range(_ROUNDS):
        limits = np.concatenate([np.ones(len(every)), np.zeros(kinds - 1)])
        rows = sparse.vstack([sparse.csr_matrix(every.astype(float)), grows]).tocsc()
        master = linprog(-counts, A_ub=rows, b_ub=limits, bounds=(0, 1), method="highs")
        if -master.fun <= known:
            return None
        share, new = _SMOOTHING if best else 0.0, every[:0]
        # Between the best values so far and the master's; nearer to these while nothing is found that is worth more.
        while not len(new):
            tried = share * centre + (1 - share) * master.x
            worth, configurations = _best(sizes, counts, tried, limit)
            bound = float(counts @ tried) / max(worth, 1.0)
            if bound > best:
                best, centre = bound, tried / max(worth, 1.0)
            new = configurations[configurations @ master.x > 1 + _SAME]
            if not share:
                break
            share = share / 2 if share > 1 - _SMOOTHING else 0.0
        if not len(new) or best >= -master.fun - _SAME:
            break
        every = np.unique(np.concatenate([every, new]), axis=0)
    return centre


def _best(sizes: Int64s, counts: Int64s, values: Floats, limit: int) -> tuple[float, Int64s]:
    """The largest worth of a configuration; and, for every size, the worthiest with it: int64 [n, n].

    Those that would take more examples of a size than there are (by one) are left out.
    """
    kind, copies = _powers(np.minimum(counts, limit // sizes))
    weights = sizes[kind] * copies
    reach, taken = _knapsack(weights, values[kind] * copies, limit)
    room = np.append(limit - sizes, limit)
    found = np.zeros((len(room), len(sizes)), np.int64)
    for one in range(len(kind) - 1, -1, -1):
        has = taken[one, room]
        found[has, kind[one]] += copies[one]
        room = room - has * weights[one]
    found[np.arange(len(sizes)), np.arange(len(sizes))] += 1
    return float(reach[limit]), np.unique(found[(found <= counts).all(axis=1)], axis=0)


def _powers(most: Int64s) -> tuple[Int64s, Int64s]:
    """Each kind several times over, with numbers of copies that add up to any number up to `most`."""
    pairs = []
    for kind, every in enumerate(most.tolist()):
        copies, left = 1, every
        while left:
            pairs.append((kind, min(copies, left)))
            left -= min(copies, left)
            copies *= 2
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _knapsack(weights: Int64s, values: Floats, limit: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The most that fits each room up to `limit` (float64 [limit + 1]), and whether an item was taken for it."""
    reach = np.zeros(limit + 1)
    taken = np.zeros((len(weights), limit + 1), np.bool_)
    for one, (weight, value) in enumerate(zip(weights.tolist(), values.tolist(), strict=True)):
        more = reach[: limit + 1 - weight] + value
        np.greater(more, reach[weight:], out=taken[one, weight:])
        np.maximum(more, reach[weight:], out=reach[weight:])
    return reach, taken


@dataclass(frozen=True)
class _Steps:
    """Values that grow in steps: from size `least` on (int64 [k], growing) they are `values` (float64 [k], growing)."""

    least: Int64s
    values: Floats
    limit: int

    def bound(self, sizes: Int64s, counts: Int64s) -> float:
        """What examples are worth, divided by the most that fits a sequence."""
        value = np.append(0.0, self.values)[np.searchsorted(self.least, sizes, side="right")]
        return float(counts @ value) / max(self.worth(), 1.0)

    def worth(self) -> float:
        """The most that fits a sequence; of all examples of a step the smallest stands for the others."""
        kind, copies = _powers(self.limit // self.least)
        reach, _ = _knapsack(self.least[kind] * copies, self.values[kind] * copies, self.limit)
        return float(reach[self.limit])

    def moved(self, one: int, by: int) -> _Steps | None:
        """With one step elsewhere, where that keeps their order."""
        least = self.least.copy()
        least[one] += by
        return replace(self, least=least) if (np.diff(least, prepend=0) > 0).all() else None


def _moved(steps: _Steps, sizes: Int64s, counts: Int64s, reach: int) -> float:
    """The best bound of steps that are moved by up to `reach`: where one goes up, others may go down for it."""
    places = range(len(steps.values))
    steps = _lowered(steps, places, sizes, counts, reach)
    best = steps.bound(sizes, counts)
    for _ in range(_SWEEPS if len(places) <= _FEW else 0):
        before = best
        for one in places:
            for up in range(1, reach + 1):
                if (raised := steps.moved(one, up)) is None:
                    break
                for order in (places, places[::-1]):
                    found = _lowered(raised, [other for other in order if other != one], sizes, counts, reach)
                    if (bound := found.bound(sizes, counts)) > best:
                        best, steps, raised = bound, found, found
        if best <= before:
            break
    return best


def _lowered(steps: _Steps, places: Iterable[int], sizes: Int64s, counts: Int64s, reach: int) -> _Steps:
    """Each step in turn as low as is best for the bound."""
    for one in places:
        lower = (steps.moved(one, -down) for down in range(1, reach + 1))
        steps = max([steps, *filter(None, lower)], key=lambda tried: tried.bound(sizes, counts))
    return steps
