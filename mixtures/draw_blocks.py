"""Draws of many streams at once, the same as `Sampler.next_many` gives for each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import floor

import numpy as np

from omnimill.mixtures.order import WindowedOrder
from omnimill.mixtures.permutation import Permutation
from omnimill.mixtures.sampler import Draws, Sampler, StreamState
from omnimill.mixtures.shares import ORDERS, Layout, places_key
from omnimill.rng import Int64s, subkey, subkey_many

# Layouts whose shares are kept: 40 bytes for each stream.
_LAYOUTS = 512
_LARGEST = (1 << 63) - 1


def next_block(
    sampler: Sampler, streams: Sequence[int], states: Sequence[StreamState], counts: Sequence[int]
) -> tuple[list[Draws], list[StreamState]]:
    """The next draws of several streams, and the states after them.

    Args:
        streams: different ones. counts: how many draws each makes.
    """
    if any(len(layout.stretches) > 1 for layout in sampler.layouts):
        # Additions make shares that have to be read pass by pass.
        return _one_by_one(sampler, streams, states, counts)
    parts = [sampler.tasks(*one) for one in zip(streams, (state.draws for state in states), counts, strict=True)]
    tasks, which = np.concatenate(parts), np.repeat(np.arange(len(parts)), counts)
    rows, epochs = np.empty_like(tasks), np.empty_like(tasks)
    taken, numbers = np.array([state.taken for state in states]), np.array(streams)
    after = taken.copy()
    if _near_a_cap(sampler.layouts, numbers, taken, np.bincount(which * taken.shape[1] + tasks, minlength=taken.size)):
        # From its cap on a stream draws its other tasks at other rates.
        return _one_by_one(sampler, streams, states, counts)
    # Sixteen bits are sorted by counting.
    order, ends = np.argsort(tasks.astype(np.uint16), kind="stable"), np.cumsum(np.bincount(tasks, minlength=1))
    begin = 0
    for task, end in enumerate(ends.tolist()):
        if begin < end:
            drawn = order[begin:end]
            stream = which[drawn]
            count = np.bincount(stream, minlength=len(parts))
            k = np.arange(end - begin) + (taken[:, task] - (np.cumsum(count) - count))[stream]
            rows[drawn], epochs[drawn] = _shares(sampler.layouts[task]._replace(max_epochs=None)).read(
                numbers[stream], k
            )
            after[:, task] += count
            begin = end
    cuts = np.cumsum([0, *counts]).tolist()
    draws = [
        Draws(stream, state.draws, tasks[a:b], rows[a:b], epochs[a:b])
        for stream, state, a, b in zip(streams, states, cuts, cuts[1:], strict=False)
    ]
    left = [
        StreamState(state.draws + count, tuple(made), state.joined)
        for state, count, made in zip(states, counts, after.tolist(), strict=True)
    ]
    return draws, left


def _near_a_cap(layouts: Sequence[Layout], streams: Int64s, taken: Int64s, made: Int64s) -> bool:
    """Whether a stream is at the cap of a task, or gets there with the draws that it makes now.

    Args:
        taken: int64 [V, tasks]. made: as many numbers.
    """
    after = taken + made.reshape(taken.shape)
    for task, layout in enumerate(layouts):
        if layout.max_epochs is not None:
            whole = _shares(layout._replace(max_epochs=None)).whole(streams, floor(layout.max_epochs))
            if (after[:, task] >= whole).any():
                return True
    return False


def _one_by_one(
    sampler: Sampler, streams: Sequence[int], states: Sequence[StreamState], counts: Sequence[int]
) -> tuple[list[Draws], list[StreamState]]:
    found = [sampler.next_many(*one) for one in zip(streams, states, counts, strict=True)]
    return [draws for draws, _ in found], [state for _, state in found]


class _Shares:
    """The shares of all streams in a task's rows that have no additions and no cap; as `omnimill.mixtures.shares`."""

    def __init__(self, layout: Layout) -> None:
        (size,), streams = layout.stretches, layout.streams
        places = Permutation(streams).forward_many(np.arange(streams, dtype=np.uint64), places_key(layout, 0))
        place = places.astype(np.int64)
        self._key = subkey_many(subkey(layout.key, ORDERS), places)
        self._first = _floor(place, size, streams)
        self._size = np.maximum(_floor(place + 1, size, streams) - self._first, 1)
        self._owners, self._rank = np.ones(streams, np.int64), np.zeros(streams, np.int64)
        if size < streams:
            first_owner = -(-self._first * streams // size)
            self._owners = -(-(self._first + 1) * streams // size) - first_owner
            self._rank = place - first_owner
        self._orders = {one: WindowedOrder(one, layout.window) for one in set(self._size.tolist())}

    def whole(self, streams: Int64s, epochs: int) -> Int64s:
        """Reads of some streams that a cap of so many whole epochs leaves as they are, int64."""
        owners = self._owners[streams]
        shared = np.maximum(-(-(epochs - self._rank[streams]) // owners), 0)
        whole: Int64s = np.where(owners > 1, shared, self._size[streams] * epochs)
        return whole

    def read(self, streams: Int64s, k: Int64s) -> tuple[Int64s, Int64s]:
        """Row and epoch of the k-th reads of some streams, int64 each."""
        size = self._size[streams]
        passes, position = np.divmod(k, size)
        epochs = passes * self._owners[streams] + self._rank[streams]
        keys = subkey_many(self._key[streams], epochs.astype(np.uint64))
        rows = self._first[streams]
        for one, order in self._orders.items():
            own = size == one
            if own.any():
                rows[own] += order.forward_many(position[own].astype(np.uint64), keys[own]).astype(np.int64)
        return rows, epochs


def _floor(place: Int64s, size: int, streams: int) -> Int64s:
    """``place * size // streams`` of every place, also where the product has more than 63 bits."""
    if size * streams <= _LARGEST:
        return place * size // streams
    return np.array([one * size // streams for one in place.tolist()], np.int64)


_shares = lru_cache(maxsize=_LAYOUTS)(_Shares)
