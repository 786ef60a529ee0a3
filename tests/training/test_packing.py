"""Packing: budgets hold, nothing is lost, nobody waits for ever."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_packing import PlainPacker

from omnimill.errors import OmnimillError
from omnimill.rng import generator
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.packing.streams import no_loads, pack
from omnimill.training.packing.window import pack_window
from omnimill.training.planning.lengths import Budgets, Lengths

BUDGETS = Budgets(encoder=100, decoder=80, images=3, image_history=4, audio=2)


@dataclass(frozen=True)
class Item:
    number: int
    costs: tuple[int, ...]

    @property
    def drawn(self) -> int:
        return self.number


def run(
    costs: list[tuple[int, ...]], pool_size: int, steps: int, budgets: Budgets = BUDGETS, patience: int = 40
) -> tuple[list[list[Item]], list[Item]]:
    """Some steps of a stream that draws items 0, 1, 2, …, going round the given costs; and its pool after them."""
    setting = PackingSettings(budgets=budgets, pool=pool_size, patience=patience)
    # No example takes less than one token, or a thousandth of a large budget.
    count = pool_size + steps * min(budgets.encoder, 1000)
    every = np.array([costs[number % len(costs)] for number in range(count)]).T[:, None]
    none = np.zeros(1, np.int64)
    packed = pack(every, np.arange(count)[None], np.array([count]), none, none, setting, steps, no_loads(1))
    assert packed.sequences.tolist() == [steps]
    items = [Item(number, costs[number % len(costs)]) for number in range(count)]
    ends, order, head = packed.ends[0].tolist(), packed.order[0].tolist(), int(packed.heads[0, -1])
    sequences = [[items[i] for i in order[begin:end]] for begin, end in zip([0, *ends], ends, strict=False)]
    placed = {item.number for sequence in sequences for item in sequence}
    return sequences, [item for item in items[:head] if item.number not in placed]


COSTS = st.lists(
    st.tuples(st.integers(1, 100), st.integers(1, 80), st.integers(0, 3), st.integers(0, 4), st.integers(0, 2)),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60)
@given(costs=COSTS, pool_size=st.integers(1, 30), patience=st.integers(0, 20))
def test_budgets_hold_every_draw_is_placed_once_and_none_waits_long(
    costs: list[tuple[int, ...]], pool_size: int, patience: int
) -> None:
    sequences, pool = run(costs, pool_size, 60, patience=patience)
    drawn_before, placed = 0, []
    for step, sequence in enumerate(sequences):
        assert sequence
        for used, limit in zip(zip(*(item.costs for item in sequence), strict=True), BUDGETS.limits, strict=True):
            assert sum(used) <= limit
        placed += [item.number for item in sequence]
        # Every sequence places a draw, so that what was drawn by the end of this step is overdue in `patience` steps;
        # then it is the turn of one that is overdue in every step, and no more of them than the pool has places.
        drawn_before = len(placed) + min(pool_size, 16)
        late = step + patience + pool_size
        if late < len(sequences):
            by_then = {item.number for later in sequences[: late + 1] for item in later}
            assert set(range(drawn_before)) <= by_then
    assert sorted([*placed, *(item.number for item in pool)]) == list(range(len(placed) + len(pool)))
    assert (sequences, pool) == run(costs, pool_size, 60, patience=patience)


def test_the_heaviest_opens_and_the_heaviest_that_fits_joins() -> None:
    costs = [(30, 10, 0, 0, 0), (60, 10, 0, 0, 0), (10, 10, 0, 0, 0), (30, 10, 0, 0, 0), (50, 10, 0, 0, 0)]
    (chosen,), _ = run([*costs, (100, 8, 0, 0, 0)], 5, 1)
    assert [item.number for item in chosen] == [1, 0, 2]


def test_the_oldest_opens_when_it_has_waited_too_long() -> None:
    costs = [(10, 10, 0, 0, 0), *[(95, 10, 0, 0, 0)] * 99]
    sequences, _ = run(costs, 4, 30, patience=12)
    # With three others in the pool, more than twelve draws after it means ten sequences.
    assert [item.number for item in sequences[10]] == [0]


def test_what_is_scarce_weighs_most() -> None:
    """The decoder's budget is hardly used, so that its largest example is not the heaviest."""
    costs = [(55, 1, 0, 0, 0), (45, 1, 0, 0, 0), (30, 44, 0, 0, 0)] * 40
    sequences, _ = run(costs, 9, 20, Budgets(encoder=100, decoder=200))
    assert [item.costs[0] for item in sequences[0]] == [55, 45]


def test_every_budget_can_be_the_one_that_stops() -> None:
    small = {"encoder": 10, "decoder": 8, "images": 0, "image_history": 0, "audio": 0}
    for name, heavy in (("encoder", 60), ("decoder", 50), ("images", 2), ("image_history", 3), ("audio", 2)):
        cost = tuple({**small, name: heavy}.values())
        sequences, _ = run([cost], 4, 3)
        assert [len(sequence) for sequence in sequences] == [1, 1, 1]
    assert len(run([tuple(small.values())], 4, 1)[0][0]) == 10


def test_sequences_are_well_filled() -> None:
    """On a mix of text, captions and images like the reference's, more than 78 % of both sides is used."""
    budgets = Budgets(images=8)
    rng = generator("mix")
    kinds = [
        lambda: (int(rng.integers(20, 400)), int(rng.integers(20, 300)), 0, 0, 0),
        lambda: (288 + int(rng.integers(5, 20)), int(rng.integers(8, 40)), 1, 0, 0),
        lambda: (int(rng.integers(10, 60)), 1024, 0, 0, 0),
    ]
    costs = [kinds[int(rng.choice(3, p=[0.6, 0.2, 0.2]))]() for _ in range(1000)]
    sequences, _ = run(costs, 16, 200, budgets)
    encoder = sum(item.costs[0] for sequence in sequences for item in sequence) / (200 * budgets.encoder)
    decoder = sum(item.costs[1] for sequence in sequences for item in sequence) / (200 * budgets.decoder)
    assert encoder > 0.78
    assert decoder > 0.78


def test_an_example_that_can_never_fit_is_an_error() -> None:
    with pytest.raises(OmnimillError, match="cannot be packed even alone"):
        run([(101, 1, 0, 0, 0)], 2, 1)


@settings(max_examples=40)
@given(streams=st.lists(COSTS, min_size=1, max_size=4), pool_size=st.integers(1, 30), most=st.integers(1, 12))
def test_many_streams_are_packed_as_each_one(streams: list[list[tuple[int, ...]]], pool_size: int, most: int) -> None:
    setting = PackingSettings(budgets=BUDGETS, pool=pool_size, patience=15)
    costs = np.zeros((5, len(streams), max(map(len, streams))), np.int64)
    for stream, own in enumerate(streams):
        costs[:, stream, : len(own)] = np.array(own).T
    draws = np.broadcast_to(np.arange(costs.shape[2]), costs.shape[1:])
    available, none = np.array(list(map(len, streams))), np.zeros(len(streams), np.int64)
    found = pack(costs, draws, available, none, none, setting, most, no_loads(len(streams)))
    for stream, own in enumerate(streams):
        draw = iter([Item(number, cost) for number, cost in enumerate(own)]).__next__
        packer = PlainPacker(draw, setting)
        sequences: list[list[int]] = []
        try:
            while len(sequences) < most:
                sequences.append([item.number for item in packer.next_sequence()])
        except StopIteration:
            pass  # the candidates ended within a sequence, which does not count then
        ends = found.ends[stream, : found.sequences[stream]].tolist()
        order = found.order[stream].tolist()
        assert [order[begin:end] for begin, end in zip([0, *ends], ends, strict=False)] == sequences


def test_budgets_of_any_size_are_kept() -> None:
    """Amounts that do not fit one machine word together."""
    budgets = Budgets(encoder=2**28, decoder=2**27, images=2**20, image_history=4, audio=2**18)
    rng = generator("large")
    costs = [tuple(int(rng.integers(1, limit // 2 + 1)) for limit in budgets.limits) for _ in range(100)]
    sequences, _ = run(costs, 16, 20, budgets)
    draw = iter([Item(number, costs[number % 100]) for number in range(1000)]).__next__
    packer = PlainPacker(draw, PackingSettings(budgets=budgets, pool=16, patience=40))
    assert sequences == [packer.next_sequence() for _ in range(20)]


TOKENS = st.lists(st.integers(1, 100).map(lambda tokens: (tokens, 0, 0, 0, 0)), min_size=1, max_size=60)


@settings(max_examples=60)
@given(costs=COSTS | TOKENS)
def test_a_window_is_packed_to_its_last_example(costs: list[tuple[int, ...]]) -> None:
    found = pack_window(np.array(costs).T, BUDGETS)
    ends, order = found.ends.tolist(), found.order.tolist()
    assert ends[-1] == len(costs)
    assert sorted(order) == list(range(len(costs)))
    for begin, end in zip([0, *ends], ends, strict=False):
        used = np.array([costs[number] for number in order[begin:end]]).sum(axis=0)
        assert begin < end
        assert (used <= BUDGETS.limits).all()


def test_a_window_of_one_budget_is_packed_as_well_as_can_be() -> None:
    """Forty sequences can be made full, but not by taking the largest that fits: that makes 44 of them."""
    full = [(43, 21, 36), (38, 34, 28), (32, 37, 31), (35, 37, 28)]
    costs = np.zeros((5, 120), np.int64)
    costs[0] = generator("window").permutation(np.repeat(np.array(full).ravel(), 10))
    assert len(pack_window(costs, BUDGETS).ends) == 40


def test_lengths_know_their_costs() -> None:
    lengths = Lengths(
        text=5,
        image=7,
        image_history=64,
        audio=3,
        audio_history=16,
        target_text=9,
        images=1,
        earlier_images=2,
        clips=1,
        earlier_clips=1,
    )
    assert lengths.costs == (95, 9, 1, 2, 2)
