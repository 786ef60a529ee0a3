"""Draws depend on their keys alone, and look uniform."""

import numpy as np

from omnimill import rng


def test_known_values_hold_on_every_platform() -> None:
    assert rng.digest64("seed", 1) == 3300773109080522583


def test_types_and_boundaries_of_keys_matter() -> None:
    draws = {rng.digest64(*keys) for keys in [("a", "b"), ("ab",), ("a", "b", ""), (1,), ("1",), (12, 3), (1, 23)]}
    assert len(draws) == 7


def test_uniform_and_generator() -> None:
    draws = np.array([rng.uniform("x", i) for i in range(4000)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.02
    first, again, other = (rng.generator("k", key).integers(0, 1 << 60, 8) for key in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
