"""Draws of many streams at once are those of each stream, wherever they stand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.mixtures.draw_blocks import next_block
from omnimill.mixtures.sampler import Sampler

SIZES = st.integers(1, 5000) | st.integers(1, 20) | st.just(8_500_000_000) | st.just((1 << 62) - 5)


@settings(max_examples=60)
@given(data=st.data(), sizes=st.lists(SIZES, min_size=1, max_size=6), streams=st.integers(1, 40))
def test_a_block_is_the_draws_of_each_stream(data: st.DataObject, sizes: list[int], streams: int) -> None:
    rates = data.draw(st.lists(st.floats(0.01, 9), min_size=len(sizes), max_size=len(sizes)))
    cap = st.sampled_from([None, 1000.0, 1.0, 2.5])
    caps = data.draw(
        st.none() | st.lists(cap, min_size=len(sizes) - 1, max_size=len(sizes) - 1).map(lambda c: [*c, None])
    )
    sampler = Sampler(rates, sizes, streams, 3, window=data.draw(st.integers(1, 300)), max_epochs=caps)
    chosen = data.draw(st.lists(st.integers(0, streams - 1), min_size=1, max_size=5, unique=True))
    states = [sampler.start(stream, data.draw(st.integers(0, 10**6))) for stream in chosen]
    counts = [data.draw(st.integers(0, 300)) for _ in chosen]
    draws, after = next_block(sampler, chosen, states, counts)
    for one, left, stream, state, count in zip(draws, after, chosen, states, counts, strict=True):
        wanted, last = sampler.next_many(stream, state, count)
        assert left == last
        assert (one.stream, one.first) == (wanted.stream, wanted.first)
        for name in ("task", "row", "epoch"):
            assert getattr(one, name).tolist() == getattr(wanted, name).tolist()


def test_additions_are_drawn_as_each_stream_draws_them() -> None:
    sampler = Sampler([1, 2], [(50, 30), 20], 4, 3)
    states = [sampler.start(stream) for stream in range(4)]
    draws, _ = next_block(sampler, range(4), states, [200] * 4)
    assert [one.row.tolist() for one in draws] == [
        sampler.next_many(stream, state, 200)[0].row.tolist() for stream, state in enumerate(states)
    ]


def test_a_draw_of_no_stream_is_refused() -> None:
    sampler = Sampler([1], [50], 4, 3)
    with pytest.raises(IndexError, match="asked for stream 4"):
        next_block(sampler, [4], [sampler.start(3)], [1])


def test_a_cap_that_is_just_reached_changes_the_draws_behind_it() -> None:
    # Every stream may draw the second task's only row once at most.
    sampler = Sampler([1] * 6, [10**9, 1, 10**9, 10**9, 10**9, 1], 9, 3, max_epochs=[None, 1.0, None, None, None, None])
    states = [sampler.start(stream) for stream in range(9)]
    draws, _ = next_block(sampler, range(9), states, [3] * 9)
    assert [one.task.tolist() for one in draws] == [
        sampler.next_many(stream, state, 3)[0].task.tolist() for stream, state in enumerate(states)
    ]
