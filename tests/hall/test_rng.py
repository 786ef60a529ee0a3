"""Draws depend on their keys alone, and look uniform."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

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


WORDS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20)


@settings(max_examples=60)
@given(keys=WORDS, parts=st.lists(st.integers(0, 2**64 - 1), max_size=3), options=st.integers(1, 2**32 - 1))
def test_one_and_many_keys_are_derived_alike(keys: list[int], parts: list[int], options: int) -> None:
    many = rng.subkey_many(np.array(keys, np.uint64), *parts)
    one = [rng.subkey(key, *parts) for key in keys]
    assert many.tolist() == one
    assert rng.unit_many(many).tolist() == [rng.unit(key) for key in one]
    chosen = rng.choose_many(many, np.full(len(keys), options)).tolist()
    assert chosen == [rng.choose(key, options) for key in one]
    assert all(0 <= choice < options for choice in chosen)


def test_derived_choices_are_even_whatever_is_counted() -> None:
    for name, keys in (
        ("parts", rng.subkey_many(7, np.arange(70_000, dtype=np.uint64))),
        ("keys", rng.subkey_many(np.arange(70_000, dtype=np.uint64), 7)),
    ):
        counts = np.bincount(rng.choose_many(keys, np.full(70_000, 7)), minlength=7)
        assert np.abs(counts - 10_000).max() < 500, name
