"""Rates over steps: piecewise constant, with ramps as staircases."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction

from omnimill.mixtures.language import Rated

Levels = list[tuple[int, Fraction]]  # (first step, rate), in order of steps, the first from step 0


def levels(rated: Rated, ramp_levels: int) -> Levels | None:
    """The rate of a task or group from which step on; None if it has none of its own.

    A ramp of n steps is a staircase of min(n, ramp_levels) levels of equal length (to within a step), each at the
    height that the straight line has in its middle: never off by more than half a level.
    """
    if rated.rate is None and not rated.schedule:
        return None
    before = Fraction(rated.rate or 0)
    found: Levels = [(0, before)]
    if rated.warm_in:
        found = _ramp(0, rated.warm_in, Fraction(0), before, ramp_levels)
    for change in rated.schedule:
        after = Fraction(change.rate)
        rise = [(change.step, after)]
        if change.until is not None:
            rise = _ramp(change.step, change.until, before, after, ramp_levels)
        # A change at step 0 takes the place of the rate that it changes.
        found = [level for level in found if level[0] < change.step] + rise
        before = after
    return found


def at(found: Levels, step: int) -> Fraction:
    """The rate that holds at a step."""
    return found[bisect_right(found, step, key=lambda level: level[0]) - 1][1]


def _ramp(first: int, end: int, before: Fraction, after: Fraction, most: int) -> Levels:
    count = min(most, end - first)
    rise = [
        (first + number * (end - first) // count, before + (after - before) * Fraction(2 * number + 1, 2 * count))
        for number in range(count)
    ]
    return [*rise, (end, after)]
