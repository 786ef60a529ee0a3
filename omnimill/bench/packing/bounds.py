"""How many sequences no packing can do without.

For one budget: volume, and the dual feasible functions u^(k) of Fekete and Schepers ("New classes of fast lower bounds
for bin packing problems", 2001), under which k + 1 parts of a budget count as k.

For several budgets at once these are weak, since examples exclude each other in one budget or in the other. So budgets
are cut, one after the other: given a threshold t of a budget of L, an example of more than L - t has its sequence for
itself among all of at least t. Those count one each, the ones below t count nothing, and what remains between t and
L - t is bounded again, by any budget. (The last step alone is the bound L2 of Martello and Toth, 1990.) Every choice
of cuts gives a bound; the best that a search finds is taken.

For one budget there is a better one, of configurations (`omnimill.bench.packing.configurations`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omnimill.bench.packing.configurations import configuration_bound
from omnimill.rng import Int64s

_FUNCTIONS = range(1, 24)
_CUTS, _KEPT, _CANDIDATES, _ROUNDS = 3, 6, 24, 3
# What sums of floats may be off; far less than one sequence.
_ROUNDING = 1e-6

Cuts = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Different:
    """Different examples: costs int64 [budgets, n], how many there are of each int64 [n]."""

    costs: Int64s
    counts: Int64s
    limits: tuple[int, ...]

    def without(self, budget: int, least: int) -> tuple[int, _Different]:
        """A cut: how many examples have their sequence for themselves, and what remains."""
        own = self.costs[budget]
        rest = (own >= least) & (own <= self.limits[budget] - least)
        alone = int(self.counts[own > self.limits[budget] - least].sum())
        return alone, _Different(self.costs[:, rest], self.counts[rest], self.limits)

    def thresholds(self, budget: int) -> Int64s:
        """Where cuts of a budget make a difference."""
        limit, own = self.limits[budget], np.unique(self.costs[budget])
        found = np.concatenate([own[(own > 0) & (2 * own <= limit)], limit + 1 - own[2 * own > limit]])
        return np.unique(found[found <= limit // 2 + 1])

    def simple(self) -> float:
        """The best bound by one budget."""
        return max((self._simple(budget) for budget in range(len(self.limits))), default=0.0)

    def _simple(self, budget: int) -> float:
        limit, own = self.limits[budget], self.costs[budget]
        if not limit or not len(own):
            return 0.0
        best = float((own * self.counts).sum() / limit)
        for parts in _FUNCTIONS:
            scaled = (parts + 1) * own
            value = np.where(scaled % limit == 0, own / limit, scaled // limit / parts)
            best = max(best, float((value * self.counts).sum()))
        return best

    def value(self, cuts: Cuts) -> float:
        """The bound of some cuts."""
        left, alone = self, 0
        for budget, least in cuts:
            more, left = left.without(budget, least)
            alone += more
        return alone + left.simple()


def lower_bound(costs: Int64s, limits: Sequence[int]) -> int:
    """Sequences that examples (costs int64 [budgets, n]) need at least, whoever packs them."""
    different, counts = np.unique(costs, axis=1, return_counts=True)
    every = _Different(different, counts, tuple(limits))
    best: Cuts = ()
    kept: list[Cuts] = [()]
    for _ in range(_CUTS):
        tried = {
            (*cuts, (budget, int(least))): 0.0
            for cuts in kept
            for budget in range(len(limits))
            for least in _spread(every.thresholds(budget))
        }
        found = sorted(tried, key=lambda cuts: -every.value(cuts))
        kept = found[:_KEPT]
        best = max([best, *kept[:1]], key=every.value)
    bound = math.ceil(every.value(_refined(every, best)) - _ROUNDING)
    if len(limits) == 1:
        bound = math.ceil(configuration_bound(costs[0], limits[0], bound) - _ROUNDING)
    return bound


def _spread(values: Int64s) -> Int64s:
    """Some of the values, from the least to the largest."""
    return values if len(values) <= _CANDIDATES else values[np.linspace(0, len(values) - 1, _CANDIDATES).astype(int)]


def _refined(every: _Different, cuts: Cuts) -> Cuts:
    """Move one threshold at a time, in smaller and smaller steps, to where the bound is largest."""
    best = every.value(cuts)
    for reach in [_CANDIDATES**2 // 2**turn for turn in range(_ROUNDS + 6)]:
        for place, (budget, least) in enumerate(cuts):
            possible = every.thresholds(budget)
            at = int(np.searchsorted(possible, least))
            for other in _spread(possible[max(at - reach, 0) : at + reach + 1]):
                moved = (*cuts[:place], (budget, int(other)), *cuts[place + 1 :])
                if (value := every.value(moved)) > best:
                    best, cuts = value, moved
    return cuts
