"""One stream's packing, compiled: the loops behind `omnimill.training.packing.streams`, which says what they do.

A pool is two arrays of which the first `size` places count: which candidates are in it (members) and what they weigh
(weights), the heaviest first. units: int64 [2, budgets]; what a token (or picture, or clip) of each budget, and what a
half of it, weighs. loads: int64 [2, budgets]; means of what was drawn, by volume and by halves, in fixed point.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from omnimill.rng import Int64s

# A pool's size at first, and the draws of a stream after which it may have one place more.
_FIRST_POOL, _DRAWS_A_PLACE = 16, 4
# A whole budget in loads, in fixed point.
_WHOLE_BITS = 24
# Draws over which loads forget.
_MEMORY = 1024
# A budget whose load is a share x of the largest one's has the price x^12, the highest being 1.
_SHARE_BITS, _PRICE_BITS = 6, 16
# Of a weight: tokens of a budget of a million still weigh something.
_UNIT_BITS = 10
# Candidates of which it is looked at what would fit beside them.
_TRIED = 8
# Functions by which shares are rounded down.
_HALVES, _THIRDS = 2, 3
# A budget is scarce beside the scarcest one from this share of its price on, as a power of two.
_SCARCE_BITS = 4


@njit(cache=True)
def _rounded(cost: int, limit: int, parts: int) -> int:
    """u^(parts) of a share: how many of its `parts` steps, which are at 1, 2, … of `parts` + 1, it has reached."""
    steps = 0
    while steps < parts and (parts + 1) * cost >= (steps + 1) * limit:
        steps += 1
    return steps


@njit(cache=True)
def _learn(loads: Int64s, cost: Int64s, limits: Int64s, known: int) -> None:
    """Move means towards what an example takes, by one part in `known`."""
    for budget in range(len(limits)):
        limit = max(limits[budget], 1)
        loads[0, budget] += ((cost[budget] << _WHOLE_BITS) // limit - loads[0, budget]) // known
        loads[1, budget] += ((_rounded(cost[budget], limit, _HALVES) << (_WHOLE_BITS - 1)) - loads[1, budget]) // known


@njit("int64[:, ::1](int64[:, ::1], int64[::1])", cache=True)
def means(costs: Int64s, limits: Int64s) -> Int64s:
    """The loads of examples, all of the same weight; costs: int64 [C, budgets]."""
    loads = np.zeros((2, len(limits)), np.int64)
    for number in range(len(costs)):
        _learn(loads, costs[number], limits, number + 1)
    return loads


@njit(cache=True)
def _set_prices(prices: Int64s, loads: Int64s) -> bool:
    """Prices of budgets, int64 [budgets]; whether they are others than before."""
    highest = 1
    for budget in range(len(prices)):
        highest = max(highest, loads[0, budget], loads[1, budget])
    changed = False
    for budget in range(len(prices)):
        # Coarse, so that a pool is seldom weighed anew.
        share = (max(loads[0, budget], loads[1, budget]) << _SHARE_BITS) // highest << (_PRICE_BITS - _SHARE_BITS)
        price = share * share * share >> 2 * _PRICE_BITS
        for _ in range(2):
            price = price * price >> _PRICE_BITS
        changed |= price != prices[budget]
        prices[budget] = price
    return changed


@njit(cache=True)
def _set_units(units: Int64s, prices: Int64s, limits: Int64s) -> int:
    """Weigh a token (or picture, or clip) and a part of each budget; which parts, by whether several are scarce."""
    scarce = 0
    for budget in range(len(limits)):
        scarce += prices[budget] >= 1 << (_PRICE_BITS - _SCARCE_BITS)
    parts, of_part = (_HALVES, 2) if scarce > 1 else (_THIRDS, 4 * _THIRDS)
    for budget in range(len(limits)):
        units[0, budget] = (prices[budget] << _UNIT_BITS) // max(limits[budget], 1)
        units[1, budget] = (prices[budget] << _UNIT_BITS) // of_part
    return parts


@njit(cache=True)
def _weight(cost: Int64s, units: Int64s, limits: Int64s, parts: int) -> int:
    weight = 0
    for budget in range(len(limits)):
        if units[1, budget]:
            weight += cost[budget] * units[0, budget]
            weight += _rounded(cost[budget], limits[budget], parts) * units[1, budget]
    return weight


@njit(cache=True)
def _insert(members: Int64s, weights: Int64s, size: int, member: int, weight: int) -> None:
    """Put an example into a pool of `size`, which is sorted: the heaviest first, of equal ones the oldest."""
    place = size
    while place and (weights[place - 1] < weight or (weights[place - 1] == weight and members[place - 1] > member)):
        weights[place], members[place] = weights[place - 1], members[place - 1]
        place -= 1
    weights[place], members[place] = weight, member


@njit(cache=True)
def _sort(
    members: Int64s, weights: Int64s, size: int, costs: Int64s, limits: Int64s, units: Int64s, parts: int
) -> None:
    """Weigh a pool anew."""
    for number in range(size):
        _insert(members, weights, number, members[number], _weight(costs[members[number]], units, limits, parts))


@njit(cache=True)
def _places(drawn: int, pool: int) -> int:
    """A pool's places after so many draws of its stream."""
    return min(pool, max(_FIRST_POOL, drawn // _DRAWS_A_PLACE))


@njit(cache=True)
def _fill(
    members: Int64s,
    weights: Int64s,
    size: int,
    head: int,
    drawn: int,
    costs: Int64s,
    draws: Int64s,
    limits: Int64s,
    pool: int,
    units: Int64s,
    parts: int,
    loads: Int64s,
) -> tuple[int, int, int]:
    """Draw until the pool is full or nothing is left; what size, head and drawn are then."""
    while size < _places(drawn, pool) and head < len(draws):
        drawn = draws[head] + 1
        _learn(loads, costs[head], limits, min(drawn, _MEMORY))
        _insert(members, weights, size, head, _weight(costs[head], units, limits, parts))
        size, head = size + 1, head + 1
    return size, head, drawn


@njit(cache=True)
def _fits(costs: Int64s, member: int, left: Int64s) -> bool:
    for budget in range(len(left)):
        if costs[member, budget] > left[budget]:
            return False
    return True


@njit(cache=True)
def _heaviest(members: Int64s, size: int, costs: Int64s, left: Int64s, dearest: int) -> int:
    """The place in the pool of the heaviest example that fits; -1: nothing does."""
    for place in range(size):
        if costs[members[place], dearest] <= left[dearest] and _fits(costs, members[place], left):
            return place
    return -1


@njit(cache=True)
def _look_ahead(
    members: Int64s, weights: Int64s, size: int, costs: Int64s, left: Int64s, dearest: int, room: Int64s, dear: Int64s
) -> int:
    """As `_heaviest`, but together with the heaviest that would fit beside it. The last two arguments are scratch."""
    lightest = left[dearest] + 1
    for place in range(size):
        dear[place] = costs[members[place], dearest]
        lightest = min(lightest, dear[place])
    found, most, tried = -1, -1, 0
    for place in range(size):
        if dear[place] > left[dearest] or not _fits(costs, members[place], left):
            continue
        both = weights[place]
        for budget in range(len(left)):
            room[budget] = left[budget] - costs[members[place], budget]
        if room[dearest] >= lightest:
            for other in range(size):
                if dear[other] <= room[dearest] and other != place and _fits(costs, members[other], room):
                    both += weights[other]
                    break
        if both > most:
            found, most = place, both
        tried += 1
        if tried == _TRIED:
            break
    return found


@njit(
    "int64(int64[:, ::1], int64[::1], int64, int64, int64[::1], int64, int64, boolean, int64[:, ::1], int64[::1],"
    " int64[::1], int64[::1], int64[:, :, ::1])",
    cache=True,
    nogil=True,
)
def pack_stream(
    costs: Int64s,
    draws: Int64s,
    pending: int,
    drawn: int,
    limits: Int64s,
    pool: int,
    patience: int,
    to_the_last: bool,
    loads: Int64s,
    order: Int64s,
    ends: Int64s,
    heads: Int64s,
    learnt: Int64s,
) -> int:
    """Pack one stream; how many sequences are whole. Writes the last four arguments and changes `loads`.

    Args:
        costs: int64 [C, budgets]. The others are those of `omnimill.training.packing.streams.pack`, of one stream.
        to_the_last: the candidates are all there are: the pool has place for all, and is packed until it is empty.
    """
    members, weights = np.arange(pool), np.zeros(pool, np.int64)
    prices, units, left = np.zeros_like(limits), np.zeros_like(loads), np.empty_like(limits)
    room, dear = np.empty_like(limits), np.empty_like(members)
    size, head, placed, sequence, parts, dearest = pending, pending, 0, 0, _HALVES, 0
    while sequence < len(ends):
        # A sequence begins with the pool as the last one left it, and at first or where selections emptied places with
        # what fills it.
        size, head, drawn = _fill(members, weights, size, head, drawn, costs, draws, limits, pool, units, parts, loads)
        if not size or (size < _places(drawn, pool) and not to_the_last):
            return sequence
        if _set_prices(prices, loads):
            parts, dearest = _set_units(units, prices, limits), int(prices.argmax())
            _sort(members, weights, size, costs, limits, units, parts)
        oldest = members[:size].argmin()
        place = oldest if drawn - 1 - draws[members[oldest]] > patience else 0
        left[:] = limits
        while place >= 0:
            left -= costs[members[place]]
            order[placed] = members[place]
            placed, size = placed + 1, size - 1
            for later in range(place, size):
                members[later], weights[later] = members[later + 1], weights[later + 1]
            size, head, drawn = _fill(
                members, weights, size, head, drawn, costs, draws, limits, pool, units, parts, loads
            )
            if size < _places(drawn, pool) and not to_the_last:
                return sequence
            if parts == _THIRDS:
                place = _look_ahead(members, weights, size, costs, left, dearest, room, dear)
            else:
                place = _heaviest(members, size, costs, left, dearest)
        ends[sequence], heads[sequence], learnt[sequence] = placed, head, loads
        sequence += 1
    return sequence
