"""The packing benchmark: bounds that hold, peers that pack as recorded, and our share of the bound."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.bench.packing import cases, ours, ours_in_a_window, peers
from omnimill.bench.packing.baselines import next_fit, reference_pairs
from omnimill.bench.packing.bounds import lower_bound
from omnimill.bench.packing.configurations import configuration_bound
from omnimill.bench.packing.recorded import EXAMPLES, NAMES, budgets_of, load

LIMITS = (10, 12)


def bound(examples: list[tuple[int, ...]], limits: tuple[int, ...] = LIMITS) -> int:
    return lower_bound(np.array(examples).T, limits)


def fewest(examples: list[tuple[int, ...]]) -> int:
    """The least number of sequences, by trying all assignments."""
    for count in range(1, len(examples) + 1):
        for places in product(range(count), repeat=len(examples)):
            used = np.zeros((count, 2), int)
            np.add.at(used, list(places), np.array(examples))
            if (used <= LIMITS).all():
                return count
    raise AssertionError


def test_bounds_by_hand() -> None:
    assert bound([(5, 5)] * 4) == 2
    assert bound([(6, 1), (6, 1), (4, 1)]) == 2
    # Three of four tenths do not fit in one.
    assert bound([(4, 1)] * 6) == 3
    # Three that exclude each other by one budget, and two that exclude each other and these by the other.
    assert bound([(6, 7), (6, 7), (6, 7), (1, 7), (1, 7)]) == 5
    assert bound([(1, 11), (1, 11), (6, 3), (6, 3), (6, 3)]) == 5


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 12)), min_size=1, max_size=5))
def test_no_packing_is_better_than_the_bound(examples: list[tuple[int, ...]]) -> None:
    assert bound(examples) <= fewest(examples)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=5))
def test_no_packing_is_better_than_the_bound_of_configurations(sizes: list[int]) -> None:
    assert configuration_bound(np.array(sizes), LIMITS[0], 0.0) <= fewest([(size, 1) for size in sizes]) + 1e-6


def test_configurations_bound_what_no_function_of_one_size_does() -> None:
    # Three of 6 and six of 4 fill three sequences and need a fourth: 6 and 4, 6 and 4, 6 and 4, and two of 4.
    sizes = np.array([6] * 3 + [4] * 6)
    assert configuration_bound(sizes, 10, 0.0) == pytest.approx(4.5)
    # Sizes are rounded down to classes of four at first: one of 1481 takes one of 561, and three of 681 share.
    sizes = np.array([1481] * 6 + [681] * 9 + [561] * 6)
    assert configuration_bound(sizes, 2048, 0.0) == pytest.approx(9.0)


def test_recorded_lengths_fit_their_budgets() -> None:
    for name in NAMES:
        found = load(name)
        assert found.shape == (5, EXAMPLES)
        assert (found <= np.array(budgets_of(name).limits)[:, None]).all()


def test_next_fit_by_hand() -> None:
    assert next_fit([(6, 1), (6, 1), (4, 1), (1, 12)], LIMITS) == 3


def test_golden_pairs(parity: Path) -> None:
    """Pairs are those that the reference's own program emitted."""
    # Worked out by its rules: two fit, and of two that fit the larger is taken.
    assert reference_pairs([(3, 2), (2, 1)], (5, 5), 2) == ([(1, 0)], [])
    assert reference_pairs([(3, 2), (5, 5), (2, 4), (2, 3)], (5, 5), 2) == ([(1, -1), (3, 0)], [2])
    file = parity / "11_packing.json"
    recorded = json.loads(file.read_text(encoding="utf-8"))["pair_examples"] if file.exists() else []
    for case in recorded:
        limits = (case["max_encoder_len"], case["max_decoder_len"])
        pairs, left = reference_pairs([tuple(one) for one in case["examples"]], limits, case["pool_size"])
        assert [list(pair) for pair in pairs] == case["pairs"], case["name"]
        assert sorted(left) == sorted(case["left_in_pool"]), case["name"]


def test_ours_comes_nearer_to_the_bound_than_the_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIMILL_PEERS_PYTHON", "false")  # grain is left out
    by_name = {case.name: case for case in cases(of_stream=600, window=1000)}
    for name in ("instruct, 1024/1280", "text_heavy, 4096"):
        found = ours(by_name[name]).share
        assert found > 0.97
        assert ours_in_a_window(by_name[name]).share > 0.99
        assert found > max(peer.share for peer in peers(by_name[name]).values())
