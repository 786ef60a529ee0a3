"""Bins of numbers: their error, their edges, and camera poses relative to the first view."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimill import locations
from omnimill.errors import BadRecord
from omnimill.locations import Range

finite = st.floats(-1e6, 1e6)
ranges = st.tuples(finite, finite).map(lambda ends: Range(low=min(ends), high=max(ends)))


def test_bins_by_hand() -> None:
    assert [locations.to_bin(v, locations.UNIT) for v in (0.0, 0.25, 0.5, 0.99999, 1.0)] == [0, 249, 499, 998, 999]
    assert [locations.to_bin(v, locations.UNIT) for v in (-3.0, 7.0)] == [0, 999]
    assert locations.from_bin(999, locations.ANGLE) == math.pi
    assert locations.to_bin(5.0, Range(low=5.0, high=5.0)) == 0
    with pytest.raises(BadRecord) as caught:
        locations.to_bin(math.nan, locations.UNIT)
    assert caught.value.reason == "number_not_finite"
    with pytest.raises(ValueError, match="low to a high"):
        Range(low=1.0, high=0.0)


@given(ranges, st.floats(0, 1))
def test_quantisation_error_is_at_most_one_999th_downwards(within: Range, share: float) -> None:
    value = min(within.low + share * (within.high - within.low), within.high)
    back = locations.from_bin(locations.to_bin(value, within), within)
    slack = 1e-6 * max(abs(within.low), abs(within.high), 1e-300)
    assert -slack <= value - back <= within.error() + slack


@given(
    st.integers(0, 999), st.sampled_from([locations.UNIT, locations.ANGLE, locations.SINE, Range(low=-7.25, high=1e4)])
)
def test_a_decoded_value_keeps_its_bin(location_bin: int, within: Range) -> None:
    assert locations.to_bin(locations.from_bin(location_bin, within), within) == location_bin


def test_poses_are_relative_to_the_first_and_the_turn_wraps() -> None:
    first, second = locations.spherical_views([(1.0, 3.0, 2.0), (1.5, -3.0, 2.5)])
    assert first.bins == [499, 499, 999, 499]
    assert (second.sin_phi, second.cos_phi) == (math.sin(-3.0), math.cos(-3.0))
    turn = 2 * math.pi - 6
    told = (0.5, math.sin(turn), math.cos(turn), 0.5)
    back = [locations.from_bin(b, r) for b, r in zip(second.bins, locations.CAMERA, strict=True)]
    assert all(0 <= a - b + 1e-9 <= r.error() + 2e-9 for a, b, r in zip(told, back, locations.CAMERA, strict=True))
