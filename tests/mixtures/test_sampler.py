from __future__ import annotations

import math
import pickle
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.inversion import draws_of, index_of, locate
from omnimill.mixtures.points import PHI
from omnimill.mixtures.sampler import Draw, Sampler, StreamState, deviation_bound
from omnimill.mixtures.shares import share_of

RATES = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**32)


@st.composite
def samplers(draw: st.DrawFn, most_rows: int = 60, most_streams: int = 12) -> Sampler:
    rates = draw(RATES)
    sizes = draw(st.lists(st.integers(1, most_rows), min_size=len(rates), max_size=len(rates)))
    streams, window = draw(st.integers(1, most_streams)), draw(st.integers(1, 20))
    return Sampler(rates, sizes, streams, draw(SEEDS), window=window)


def drawn(sampler: Sampler, stream: int, count: int, state: StreamState | None = None) -> list[Draw]:
    state = state or sampler.start(stream)
    result = []
    for _ in range(count):
        draw, state = sampler.next(stream, state)
        result.append(draw)
    return result


def test_the_order_is_the_same_on_every_platform_and_in_every_version() -> None:
    mixture = Mixture.model_validate(
        {
            "datasets": ("tokens",),
            "seed": 11,
            "window": 4,
            "tasks": [
                {"name": "a", "rate": 0.5, "sources": ["x"], "target": "image"},
                {"name": "b", "rate": 0.3, "sources": ["x"], "target": "image"},
                {"name": "c", "rate": 0.2, "sources": ["x"], "target": "image"},
            ],
        }
    )
    draws = drawn(Sampler.of(mixture, [10**12, 100, 2], 4), 2, 8)
    assert [(draw.task, draw.row, draw.epoch) for draw in draws] == [
        (0, 455714743829, 0),
        (2, 0, 0),
        (1, 24, 0),
        (0, 455714743830, 0),
        (1, 0, 0),
        (0, 455714743832, 0),
        (0, 455714743831, 0),
        (1, 23, 0),
    ]


@given(sampler=samplers(), workers=st.sampled_from([1, 2, 3, 4, 6, 12]))
@settings(max_examples=25)
def test_any_number_of_workers_makes_the_same_draws(sampler: Sampler, workers: int) -> None:
    alone = {stream: drawn(sampler, stream, 12) for stream in range(sampler.streams)}
    served: dict[int, list[Draw]] = {stream: [] for stream in range(sampler.streams)}
    for worker in range(workers):
        # A process of its own, going round its streams draw by draw.
        copy = pickle.loads(pickle.dumps(sampler))
        states = {stream: copy.start(stream) for stream in range(worker, copy.streams, workers)}
        for _ in range(12):
            for stream in list(states):
                draw, states[stream] = copy.next(stream, states[stream])
                served[stream].append(draw)
    assert served == alone


@given(rates=RATES, streams=st.integers(1, 300), seed=SEEDS, first=st.integers(0, 2**40))
@settings(max_examples=60)
def test_every_round_holds_every_task_within_one_of_its_rate(
    rates: list[float], streams: int, seed: int, first: int
) -> None:
    sampler = Sampler(rates, [1] * len(rates), streams, seed)
    tasks = np.stack([sampler.tasks(stream, first, 30) for stream in range(streams)])
    for task, rate in enumerate(rates):
        deviation = np.abs((tasks == task).sum(axis=0) - streams * rate / math.fsum(rates))
        assert deviation.max() < 1 + 1e-9


@given(rates=RATES, seed=SEEDS, data=st.data())
@settings(max_examples=30)
def test_every_stream_keeps_its_rates_within_the_stated_bound(
    rates: list[float], seed: int, data: st.DataObject
) -> None:
    sampler = Sampler(rates, [1] * len(rates), 16, seed)
    tasks = sampler.tasks(data.draw(st.integers(0, 15)), 0, 20_000)
    numbers = np.arange(1, 20_001)
    bounds = np.array([deviation_bound(n) for n in (*range(1, 200), 20_000)])
    for task, rate in enumerate(rates):
        deviation = np.abs(np.cumsum(tasks == task) - numbers * rate / math.fsum(rates))
        assert (deviation[:199] <= bounds[:-1]).all()
        assert deviation.max() <= bounds[-1]


def test_the_bound_holds_for_every_stretch_of_the_circle_at_once() -> None:
    # The largest deviation of n points over all arcs, exactly; the sums of every fourth Fibonacci number are the worst.
    fibonacci = [1, 2]
    while len(fibonacci) < 29:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    worst = np.concatenate([np.cumsum(fibonacci[start::4]) for start in range(4)])
    for n in (*range(1, 500), *worst[worst < 10**6].tolist()):
        points = np.sort(np.arange(n, dtype=np.uint64) * np.uint64(PHI)).astype(np.float64) / 2**64
        above = np.arange(n) - n * points
        assert above.max() - above.min() + 1 < deviation_bound(n)


@given(sampler=samplers(), data=st.data())
@settings(max_examples=40)
def test_each_row_is_drawn_exactly_once_per_epoch(sampler: Sampler, data: st.DataObject) -> None:
    task = data.draw(st.integers(0, len(sampler.sizes) - 1))
    size, passes = sampler.sizes[task], 2
    seen: Counter[tuple[int, int]] = Counter()
    share = max(-(-size // sampler.streams), 1)
    for stream in range(sampler.streams):
        # k-th draws of the task, straight from the share: enough of them for two passes over the largest share.
        rows, epochs = share_of(sampler.layouts[task], stream).read_many(0, passes * share)
        seen.update(zip(rows.tolist(), epochs.tolist(), strict=True))
    assert max(seen.values()) == 1
    assert {(row, epoch) for row in range(size) for epoch in range(passes)} <= set(seen)


@given(sampler=samplers(), data=st.data())
@settings(max_examples=40)
def test_a_draw_can_be_found_from_its_row(sampler: Sampler, data: st.DataObject) -> None:
    stream = data.draw(st.integers(0, sampler.streams - 1))
    first = data.draw(st.sampled_from([0, 1000, 10**9]))
    taken = list(sampler.start(stream, first).taken)
    for draw in drawn(sampler, stream, 25, sampler.start(stream, first)):
        k = taken[draw.task]
        assert locate(sampler, draw.task, draw.row, draw.epoch) == (stream, k)
        assert index_of(sampler, stream, draw.task, k) == draw.index
        taken[draw.task] += 1
    assert sampler.start(stream, first + 25).taken == tuple(taken)


@given(sampler=samplers(most_rows=15), data=st.data())
@settings(max_examples=25)
def test_all_draws_of_a_row_are_found(sampler: Sampler, data: st.DataObject) -> None:
    made = [data.draw(st.integers(0, 40)) for _ in range(sampler.streams)]
    everything = [draw for stream, count in enumerate(made) for draw in drawn(sampler, stream, count)]
    task = data.draw(st.integers(0, len(sampler.sizes) - 1))
    for row in range(sampler.sizes[task]):
        expected = {draw for draw in everything if (draw.task, draw.row) == (task, row)}
        found = list(draws_of(sampler, task, row, made))
        assert set(found) == expected
        assert len(found) == len(expected)


@given(sampler=samplers(), stop=st.integers(0, 60), data=st.data())
@settings(max_examples=30)
def test_going_on_from_a_state_equals_no_interruption(sampler: Sampler, stop: int, data: st.DataObject) -> None:
    stream = data.draw(st.integers(0, sampler.streams - 1))
    whole = drawn(sampler, stream, 80)
    _, saved = sampler.next_many(stream, sampler.start(stream), stop)
    assert saved == sampler.start(stream, stop)
    assert drawn(pickle.loads(pickle.dumps(sampler)), stream, 80 - stop, saved) == whole[stop:]


@given(sampler=samplers(), data=st.data())
@settings(max_examples=30)
def test_many_draws_at_once_are_the_same_draws(sampler: Sampler, data: st.DataObject) -> None:
    stream = data.draw(st.integers(0, sampler.streams - 1))
    single = drawn(sampler, stream, 90)
    state, many = sampler.start(stream), []
    for count in (1, 0, 60, 29):
        draws, state = sampler.next_many(stream, state, count)
        indices = range(draws.first, draws.first + count)
        many += [
            Draw(stream, *values)
            for values in zip(indices, draws.task.tolist(), draws.row.tolist(), draws.epoch.tolist(), strict=True)
        ]
    assert many == single


def test_epochs_seeds_and_streams_differ_in_order() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = Sampler([1.0], [400], 2, seed, window=16)
        rows, epochs = share_of(sampler.layouts[0], 0).read_many(0, 400)
        return rows[epochs == epoch].tolist()

    assert sorted(order(1, 0)) == sorted(order(1, 1))
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    sampler = Sampler([1.0], [400], 2, 1)
    assert not {d.row for d in drawn(sampler, 0, 200)} & {d.row for d in drawn(sampler, 1, 200)}


def test_a_share_is_read_window_by_window() -> None:
    sampler = Sampler([1.0], [10**9], 10, 0, window=64)
    rows = [draw.row for draw in drawn(sampler, 3, 640)]
    for start in range(0, 640, 64):
        assert max(rows[start : start + 64]) - min(rows[start : start + 64]) == 63


def test_other_tasks_do_not_change_the_order_of_a_tasks_rows() -> None:
    small = Sampler([1, 1], [1000, 1000], 4, 5, ["a", "b"])
    large = Sampler([3, 1, 2], [50, 1000, 1000], 4, 5, ["new", "b", "a"])
    in_small = [draw.row for draw in drawn(small, 1, 200) if draw.task == 0]
    in_large = [draw.row for draw in drawn(large, 1, 200) if draw.task == 2]
    assert in_small[: len(in_large)] == in_large[: len(in_small)]


def test_memory_does_not_depend_on_the_number_of_rows() -> None:
    def peak(rows: int) -> int:
        tracemalloc.start()
        sampler = Sampler([1.0, 2.0], [rows, rows // 2], 512, 0)
        for stream in range(0, 512, 37):
            drawn(sampler, stream, 20)
            index_of(sampler, *locate(sampler, 0, rows - 1, 3)[:1], 0, 10**7)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10**4)  # what is allocated once, by whoever comes first
    assert peak(8_500_000_000) < max(1.5 * peak(10**4), 1 << 20)


def test_the_far_future_is_as_near_as_the_start() -> None:
    sampler = Sampler([0.1, 1e-6, 0.9], [10, 8_500_000_000, 2**63], 64, 1)
    index = index_of(sampler, 9, 1, 123_456)
    state = sampler.start(9, index)
    draw, after = sampler.next(9, state)
    assert (draw.task, draw.index, state.taken[1]) == (1, index, 123_456)
    assert after == sampler.start(9, index + 1)
    assert locate(sampler, 1, draw.row, draw.epoch) == (9, 123_456)


def test_with_fewer_rows_than_streams_rows_are_shared_and_their_epochs_dealt_out() -> None:
    sampler = Sampler([1.0], [3], 8, 0)
    seen = [(draw.row, draw.epoch) for stream in range(8) for draw in drawn(sampler, stream, 6)]
    assert len(set(seen)) == len(seen) == 48
    for row in range(3):
        epochs = sorted(epoch for r, epoch in seen if r == row)
        assert epochs == list(range(len(epochs)))
        assert len(epochs) in (12, 18)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], 1, 0), "needs tasks"),
        (([1.0], [1, 2], 1, 0), "1 rates, 2 sizes"),
        (([1.0], [5], 0, 0), "streams: found 0"),
        (([-1.0], [5], 1, 0), "rate: found -1.0"),
        (([0.0], [5], 1, 0), "all are 0"),
        (([1.0], [0], 1, 0), "number of rows: found 0"),
        (([1e-30, 1.0], [1, 1], 1, 0, ["rare", "b"]), "'rare'.*below the resolution"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampler(*arguments)  # type: ignore[arg-type]


def test_streams_and_rows_outside_are_refused() -> None:
    sampler = Sampler([1.0], [5], 2, 0)
    with pytest.raises(IndexError, match="asked for stream 2"):
        sampler.next(2, StreamState(0, (0,)))
    with pytest.raises(IndexError, match="asked for row 5"):
        locate(sampler, 0, 5, 0)
