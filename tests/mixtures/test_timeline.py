"""Draws through changes of rates, tasks, rows and selections: nothing is skipped, nothing repeated."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import OmnimillError
from omnimill.mixtures.inversion import index_of, locate
from omnimill.mixtures.points import deviation_bound
from omnimill.mixtures.sampler import Draw, Sampler, StreamState
from omnimill.mixtures.shares import Layout, owner, share_of
from omnimill.mixtures.timeline import Era, Timeline

SEEDS = st.integers(0, 2**32)


def walk(timeline: Timeline, stream: int, steps: Sequence[int], state: StreamState | None = None) -> list[Draw]:
    """The draws of a stream that makes ``steps[s]`` of them at step s, one by one."""
    state = state or timeline.start(stream)
    made = []
    for step, count in enumerate(steps):
        state = timeline.carry(stream, state, step)
        for _ in range(count):
            draw, state = timeline.sampler(step).next(stream, state)
            made.append(draw)
    return made


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    stretches = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)))
    streams, window = draw(st.integers(1, 9)), draw(st.integers(1, 12))
    cap = draw(st.none() | st.integers(1, 4) | st.floats(0.3, 4))
    return Layout(stretches, streams, draw(SEEDS), window, cap)


@given(layout=layouts(), data=st.data())
@settings(max_examples=30)
def test_added_rows_are_read_once_per_epoch_from_the_next_pass_on(layout: Layout, data: st.DataObject) -> None:
    seen: Counter[tuple[int, int]] = Counter()
    first_row = np.cumsum([0, *layout.stretches])
    for stream in range(layout.streams):
        joined: tuple[int, ...] = ()
        k = 0
        for known in range(1, len(layout.stretches) + 1):
            part = layout._replace(stretches=layout.stretches[:known])
            share = share_of(part, stream, joined)
            limit = share.limit
            more = data.draw(st.integers(0, 60))
            more = more if limit is None else min(more, max(limit - k, 0))
            rows, epochs = share.read_many(k, more)
            assert [share.read(k + i) for i in range(more)] == list(zip(rows.tolist(), epochs.tolist(), strict=True))
            for i, (row, epoch) in enumerate(zip(rows.tolist(), epochs.tolist(), strict=True)):
                assert share.position(row, epoch) == k + i
                assert owner(part, row, epoch)[0] == stream
                assert row < first_row[known]
            seen.update(zip(rows.tolist(), epochs.tolist(), strict=True))
            k += more
            if known < len(layout.stretches):
                came = share.next_pass(k)
                # The pass in progress ends as it began.
                whole = share.before(came)
                grown = share_of(layout._replace(stretches=layout.stretches[: known + 1]), stream, (*joined, came))
                assert whole >= k
                assert [grown.read(i) for i in range(k, whole)] == [share.read(i) for i in range(k, whole)]
                joined = (*joined, came)
        # To the end of the pass in progress and the two after it: every row of the share once in each.
        share = share_of(layout, stream, joined)
        begin = share.next_pass(k)
        until = share.before(begin + 2)
        rows, epochs = share.read_many(k, until - k)
        seen.update(zip(rows.tolist(), epochs.tolist(), strict=True))
        for number in (begin, begin + 1):
            read = [share.read(i)[0] for i in range(share.before(number), share.before(number + 1))]
            assert len(set(read)) == len(read)
            if layout.max_epochs is None and all(part.owners == 1 for part in share.parts):
                assert len(read) == sum(part.size for part in share.parts)
    assert not seen or max(seen.values()) == 1
    by_row: dict[int, list[int]] = defaultdict(list)
    for row, epoch in seen:
        by_row[row].append(epoch)
        assert layout.max_epochs is None or epoch < math.ceil(layout.max_epochs)
    for row, epochs_of_row in by_row.items():
        if owner(layout, row, 0)[1] == 1:
            assert sorted(epochs_of_row) == list(range(len(epochs_of_row)))


@given(
    rates=st.lists(st.floats(0.05, 20), min_size=2, max_size=5),
    caps=st.lists(st.none() | st.integers(1, 3), min_size=5, max_size=5),
    streams=st.integers(1, 5),
    seed=SEEDS,
    data=st.data(),
)
@settings(max_examples=25)
def test_a_task_that_reached_its_cap_leaves_its_draws_to_the_others_in_proportion(
    rates: list[float], caps: list[float | None], streams: int, seed: int, data: st.DataObject
) -> None:
    caps = [*caps[: len(rates) - 1], None]
    sizes = data.draw(st.lists(st.integers(1, 30), min_size=len(rates), max_size=len(rates)))
    sampler = Sampler(rates, sizes, streams, seed, window=4, max_epochs=caps)
    stream = data.draw(st.integers(0, streams - 1))
    state, single = sampler.start(stream), []
    states = [state]
    for _ in range(150):
        draw, state = sampler.next(stream, state)
        single.append(draw)
        states.append(state)
    # At once, from anywhere, and back.
    cut = data.draw(st.integers(0, 150))
    many, after = sampler.next_many(stream, states[cut], 150 - cut)
    assert list(zip(many.task.tolist(), many.row.tolist(), many.epoch.tolist(), strict=True)) == [
        (draw.task, draw.row, draw.epoch) for draw in single[cut:]
    ]
    assert after == states[150] == sampler.start(stream, 150) == sampler.advance(stream, states[cut], 150 - cut)
    for draw in single[::7]:
        k = states[draw.index].taken[draw.task]
        assert index_of(sampler, stream, draw.task, k) == draw.index
        assert locate(sampler, draw.task, draw.row, draw.epoch) == (stream, k)
    limits = [share_of(layout, stream).limit for layout in sampler.layouts]
    for task, limit in enumerate(limits):
        if limit is not None:
            assert state.taken[task] <= limit
            assert index_of(sampler, stream, task, limit) is None
    # Between two moments at which tasks drop out, the others are drawn in proportion.
    open_before = [tuple(t for t, limit in enumerate(limits) if limit is None or s.taken[t] < limit) for s in states]
    begin = max(i for i in range(151) if open_before[i] != open_before[0] or i == 0)
    begin = next(i for i in range(151) if open_before[i] == open_before[150]) if begin else 0
    left = open_before[150]
    whole = math.fsum(rates[task] for task in left)
    for task in left:
        drawn = states[150].taken[task] - states[begin].taken[task]
        assert abs(drawn - (150 - begin) * rates[task] / whole) <= deviation_bound(150 - begin)


def test_a_stream_that_has_drawn_everything_says_so() -> None:
    sampler = Sampler([1, 2], [4, 6], 2, 0, max_epochs=[1, 2])
    with pytest.raises(OmnimillError, match="stream 1 has drawn all that max_epochs allows"):
        sampler.next_many(1, sampler.start(1), 100)
    drawn, state = sampler.next_many(1, sampler.start(1), 8)
    assert state.taken == (2, 6)
    assert sorted(drawn.row[drawn.task == 1].tolist()) == sorted(2 * sorted(set(drawn.row[drawn.task == 1].tolist())))


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Several eras: tasks come, rows are added, caps rise, rates change with eras, phases and weights."""
    streams, seed, window = draw(st.integers(1, 6)), draw(SEEDS), draw(st.integers(1, 8))
    stretches: list[tuple[int, ...]] = []
    caps: list[float | None] = []
    eras = []
    step = 0
    for number in range(draw(st.integers(1, 4))):
        for task in range(len(stretches)):
            cap = caps[task]
            if cap is not None:
                caps[task] = draw(st.sampled_from([cap, cap, cap + 1, None]))
            elif task % 2 == 0 and draw(st.booleans()):
                stretches[task] = (*stretches[task], draw(st.integers(1, 30)))
        for _ in range(draw(st.integers(0 if number else 1, 2))):
            # Tasks of odd numbers have a cap at first, and are not added to.
            caps.append(draw(st.integers(1, 2)) if len(stretches) % 2 else None)
            stretches.append((draw(st.integers(1, 30)),))
        count = len(stretches)
        phases = []
        for first in sorted({0, *draw(st.lists(st.integers(1, 40), max_size=2))}):
            rates = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=count, max_size=count))
            phases.append((first, (rates[0] or 0.5, *rates[1:])))
        sampler = Sampler(phases[0][1], stretches, streams, seed, [f"t{i}" for i in range(count)], window, caps)
        eras.append(Era(step, sampler, tuple(phases), weighed=True))
        step += draw(st.integers(1, 12))
    timeline = Timeline(eras)
    for at in draw(st.lists(st.integers(1, 40), max_size=3)):
        timeline.weigh(at, [draw(st.floats(0.1, 10)) for _ in stretches])
    return timeline


@given(timeline=timelines(), data=st.data())
@settings(max_examples=25)
def test_nothing_is_skipped_or_repeated_through_any_changes(timeline: Timeline, data: st.DataObject) -> None:
    """Whatever changes and however far each stream has drawn ahead when it does."""
    everything: Counter[tuple[int, int, int]] = Counter()
    streams = timeline.sampler(0).streams
    for stream in range(streams):
        steps = data.draw(st.lists(st.integers(0, 12), min_size=30, max_size=30))
        made = walk(timeline, stream, steps)
        assert [draw.index for draw in made] == list(range(len(made)))
        everything.update((draw.task, draw.row, draw.epoch) for draw in made)
        # Of each task, its share is read on and on: the inverse of every read is the number of those before it.
        state = timeline.start(stream)
        taken: Counter[int] = Counter()
        left = iter(made)
        for step, count in enumerate(steps):
            state = timeline.carry(stream, state, step)
            assert timeline.carry(stream, state, step) == state
            for _ in range(count):
                draw = next(left)
                joined = state.joined[draw.task] if state.joined else ()
                share = share_of(timeline.sampler(step).layouts[draw.task], stream, joined)
                assert share.position(draw.row, draw.epoch) == taken[draw.task]
                taken[draw.task] += 1
            many, state = timeline.sampler(step).next_many(stream, state, count)
            assert len(many.task) == count
        assert state.taken == tuple(taken[task] for task in range(len(state.taken)))
        # Stopped anywhere, stored as JSON and gone on with: the same.
        stop = data.draw(st.integers(0, 29))
        before = StreamState.from_json(json.loads(json.dumps(state_after(timeline, stream, steps[:stop]).as_json())))
        again = before
        rest = []
        for step in range(stop, 30):
            again = timeline.carry(stream, again, step)
            for _ in range(steps[step]):
                draw, again = timeline.sampler(step).next(stream, again)
                rest.append(draw)
        assert rest == made[sum(steps[:stop]) :]
        assert again == state
    assert not everything or max(everything.values()) == 1


def state_after(timeline: Timeline, stream: int, steps: Sequence[int]) -> StreamState:
    state = timeline.start(stream)
    for step, count in enumerate(steps):
        state = timeline.carry(stream, state, step)
        _, state = timeline.sampler(step).next_many(stream, state, count)
    return state


@given(seed=SEEDS, streams=st.integers(1, 6), data=st.data())
@settings(max_examples=20)
def test_rows_that_become_void_move_nobody_else(seed: int, streams: int, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(2, 40), min_size=2, max_size=3))
    sampler = Sampler([1.0] * len(sizes), sizes, streams, seed, window=5)
    phases = ((0, (1.0,) * len(sizes)),)
    out = tuple(
        np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), max_size=size - 1))), np.int64) for size in sizes
    )
    whole = Timeline([Era(0, sampler, phases)])
    erased = Timeline([Era(0, sampler, phases), Era(3, sampler, phases, out)])
    for stream in range(streams):
        draws = walk(whole, stream, [20] * 6)
        assert walk(erased, stream, [20] * 6) == draws
        for step in range(6):
            own = draws[20 * step : 20 * step + 20]
            tasks, rows = (np.array([getattr(draw, name) for draw in own]) for name in ("task", "row"))
            kept = erased.kept(step, tasks, rows)
            single = [not erased.is_void(step, draw.task, draw.row) for draw in own]
            removed = [step >= 3 and draw.row in set(out[draw.task].tolist()) for draw in own]
            assert single == [not gone for gone in removed]
            assert kept is None or kept.tolist() == single


def test_rates_that_are_not_decided_yet_are_not_guessed() -> None:
    sampler = Sampler([1, 1], [5, 5], 2, 0)
    timeline = Timeline([Era(0, sampler, ((0, (1.0, 1.0)), (4, (1.0, 3.0))), weighed=True)])
    timeline.horizon = 10
    assert timeline.sampler(4) is timeline.sampler(9)
    assert timeline.sampler(3) is not timeline.sampler(4)
    with pytest.raises(OmnimillError, match="rates of step 10 are not decided yet"):
        timeline.sampler(10)
    assert [timeline.holds_until(step) for step in (0, 4, 9)] == [4, 10, 10]
    timeline.weigh(10, [3.0, 1.0])
    timeline.horizon = None
    # What was to hold later gives way to what is decided later.
    timeline.weigh(30, [1.0, 7.0])
    timeline.weigh(20, [3.0, 1.0])
    assert timeline.sampler(40) is timeline.sampler(12)
    assert timeline.sampler(12).circle.width(0) == timeline.sampler(12).circle.width(1)
    assert timeline.sampler(9).circle.width(1) == 3 * timeline.sampler(9).circle.width(0)


def test_a_streams_state_is_small() -> None:
    """After a billion draws of the 43 families of the published instruction mixture, some of them added to."""
    sampler = Sampler(
        [1 / (i + 2) for i in range(43)], [(10**8, 10**6) if i % 7 == 0 else 10**8 for i in range(43)], 512, 3
    )
    state = sampler.start(17, 10**7)
    assert len(json.dumps(state.as_json(), separators=(",", ":"))) < 500
    pretraining = Sampler([1 / (i + 2) for i in range(30)], [10**9] * 30, 512, 3)
    assert len(json.dumps(pretraining.start(17, 10**7).as_json(), separators=(",", ":"))) < 300
