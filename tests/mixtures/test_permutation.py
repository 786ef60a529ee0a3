from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.mixtures.order import WindowedOrder
from omnimill.mixtures.permutation import LARGEST, Permutation
from omnimill.rng import subkey, subkey_many

KEYS = st.integers(0, 2**64 - 1)


@given(n=st.integers(1, 2000), key=KEYS)
@settings(max_examples=60)
def test_every_element_comes_exactly_once_and_can_be_found_back(n: int, key: int) -> None:
    permutation = Permutation(n)
    order = permutation.forward_many(np.arange(n, dtype=np.uint64), key)
    assert np.array_equal(np.sort(order), np.arange(n))
    assert np.array_equal(permutation.inverse_many(order, key), np.arange(n))


@given(n=st.one_of(st.integers(1, 70), st.integers(1, LARGEST)), key=KEYS, data=st.data())
@settings(max_examples=200)
def test_one_by_one_and_many_agree_at_any_size(n: int, key: int, data: st.DataObject) -> None:
    permutation = Permutation(n)
    index = data.draw(st.integers(0, n - 1))
    element = permutation.forward(index, key)
    assert 0 <= element < n
    assert permutation.inverse(element, key) == index
    assert permutation.forward_many(np.array([index], np.uint64), key).tolist() == [element]
    assert permutation.inverse_many(np.array([element], np.uint64), key).tolist() == [index]


@given(key=KEYS, parts=st.lists(st.integers(0, 2**63), max_size=3))
@settings(max_examples=50)
def test_subkeys_agree(key: int, parts: list[int]) -> None:
    assert subkey_many(key, *parts).tolist() == [subkey(key, *parts)]


@pytest.mark.parametrize("n", [0, -1, LARGEST + 1])
def test_sizes_that_are_no_range_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"found {n}"):
        Permutation(n)


def test_indices_outside_are_refused() -> None:
    for outside in (-1, 5):
        with pytest.raises(IndexError, match="outside range"):
            Permutation(5).forward(outside, 1)
    with pytest.raises(IndexError, match="outside range"):
        Permutation(5).forward_many(np.array([0, 5], np.uint64), 1)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_orders_of_a_few_elements_are_about_equally_likely(n: int) -> None:
    trials, permutation = 24_000, Permutation(n)
    keys = subkey_many(1, np.arange(trials, dtype=np.uint64))
    columns = [permutation.forward_many(np.full(trials, i, np.uint64), keys) for i in range(n)]
    seen = Counter(zip(*(column.tolist() for column in columns), strict=True))
    expected = trials / len(list(permutations(range(n))))
    # 5 standard deviations of a binomial count.
    assert all(abs(seen[order] - expected) < 5 * expected**0.5 for order in permutations(range(n)))


@pytest.mark.parametrize("n", [100, 257])
def test_neighbours_end_up_anywhere(n: int) -> None:
    trials, permutation = 60_000, Permutation(n)
    keys = subkey_many(2, np.arange(trials, dtype=np.uint64))
    first, second = (permutation.forward_many(np.full(trials, i, np.uint64), keys).astype(np.int64) for i in (0, 1))
    for places in (np.bincount(first, minlength=n), np.bincount((second - first) % n, minlength=n)[1:]):
        expected = trials / len(places)
        chi_square = ((places - expected) ** 2 / expected).sum()
        degrees = len(places) - 1
        assert abs(chi_square - degrees) < 5 * (2 * degrees) ** 0.5


@given(size=st.integers(1, 400), window=st.integers(1, 500), key=KEYS)
@settings(max_examples=80)
def test_a_windowed_order_holds_every_row_once_and_inverts(size: int, window: int, key: int) -> None:
    order = WindowedOrder(size, window)
    rows = [order.forward(position, key) for position in range(size)]
    assert sorted(rows) == list(range(size))
    assert [order.inverse(row, key) for row in rows] == list(range(size))
    positions = np.arange(size, dtype=np.uint64)
    assert order.forward_many(positions, np.full(size, key, np.uint64)).tolist() == rows


@given(windows=st.integers(2, 30), window=st.integers(2, 40), rest=st.integers(0, 39), key=KEYS)
@settings(max_examples=40)
def test_a_window_is_finished_before_the_next_one_is_read(windows: int, window: int, rest: int, key: int) -> None:
    size = windows * window + rest % window
    order = WindowedOrder(size, window)
    for slot in range(windows):
        rows = sorted(order.forward(slot * window + i, key) for i in range(window))
        gaps = [(after - before) % size for before, after in zip(rows, rows[1:] + rows[:1], strict=True)]
        # Consecutive rows, but for one gap: from the window's end around to its start.
        assert sorted(gaps)[:-1] == [1] * (window - 1)


def test_epochs_differ_in_the_order_of_windows_and_of_rows_and_in_where_windows_are_cut() -> None:
    order = WindowedOrder(1000, 50)
    first, second = ([order.forward(i, subkey(3, epoch)) for i in range(1000)] for epoch in (0, 1))
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 20
    windows = [{frozenset(rows[i : i + 50]) for i in range(0, 1000, 50)} for rows in (first, second)]
    assert not windows[0] & windows[1]
