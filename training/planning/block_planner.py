"""Plans of many streams at once: draws, lengths and packing of a block of steps as array operations.

What a stream holds does not depend on which others are planned with it, nor on how many steps a block has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnimill.errors import OmnimillError
from omnimill.mixtures.draw_blocks import next_block
from omnimill.mixtures.sampler import StreamState
from omnimill.mixtures.timeline import Timeline
from omnimill.rng import Int64s, UInt64s
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.packing.streams import no_loads, pack
from omnimill.training.planning.bulk_lengths import FIELDS, costs_of

# Ids (uint64 [n, 2]) and lengths (int64 [fields, n]) of rows of a task at these epochs.
Measure = Callable[[int, Int64s, Int64s], tuple[UInt64s, Int64s]]

# What a candidate is, one row of a matrix each; `FIELDS` of its lengths follow. The id is two times 64 bits.
DRAW, TASK, ROW, EPOCH, ID = range(5)
LENGTHS = ID + 2
_KINDS = LENGTHS + len(FIELDS)
# Candidates of all streams in a block; of one stream at first, and at most. Large blocks are quicker, small ones are
# there sooner.
_MOST, _FIRST, _MOST_OF_STREAM = 1 << 18, 64, 4096
# Drawn ahead for a block of a given number of steps, by what the block before it took.
_SPARE = 1.2
# So many times in a row a stream may draw nothing but rows that are not to be used any more, dozens at a time.
_MOST_VOID = 1000


@dataclass(frozen=True)
class _Front:
    """Where a stream stands before a step.

    candidates: int64 [kinds, n]; those in the pool, oldest first, then those that were drawn ahead. pool: how many are
    in the pool. loads: int64 [2, budgets]; what packing has learnt of the stream. state: of the stream when the pool's
    last one had been drawn. tasks: of all draws made after that, those included that were passed over. ahead: the state
    when the last of these had been made.
    """

    candidates: Int64s
    pool: int
    loads: Int64s
    state: StreamState
    tasks: Int64s
    ahead: StreamState

    def as_json(self, step: int) -> dict[str, Any]:
        """The step that comes next, the sampler's counters, what packing learnt, and the pool's draws."""
        pool = self.candidates[[DRAW, TASK, ROW, EPOCH], : self.pool]
        return {"step": step, **self.state.as_json(), "loads": self.loads.tolist(), "pool": pool.T.tolist()}


@dataclass(frozen=True)
class Block:
    """The packed sequences of some streams for the steps `first` … `first + steps - 1`.

    streams: which. order: int64 [V, C]; a stream's candidates in the order in which they were placed. ends, heads:
    int64 [V, steps]; how many had been placed, and how many had come into the pool, by the end of each step. loads:
    int64 [V, steps, 2, budgets]; after each step.
    """

    first: int
    steps: int
    streams: Sequence[int]
    fronts: Sequence[_Front]
    order: Int64s
    ends: Int64s
    heads: Int64s
    loads: Int64s

    def sequence(self, place: int, step: int) -> Int64s:
        """What the `place`-th stream holds at a step: int64 [kinds, examples]."""
        ends = self.ends[place]
        begin = ends[step - self.first - 1] if step > self.first else 0
        return self.fronts[place].candidates[:, self.order[place, begin : ends[step - self.first]]]

    def examples(self) -> Int64s:
        """All that is placed in the block: int64 [kinds, n]."""
        placed = (
            front.candidates[:, order[:count]]
            for front, order, count in zip(self.fronts, self.order, self.ends[:, -1], strict=True)
        )
        return np.concatenate(list(placed), axis=1)

    def front(self, place: int, step: int) -> _Front:
        """Where the `place`-th stream stands before a step of the block, or after its last one."""
        front = self.fronts[place]
        if step == self.first:
            return front
        last = step - self.first - 1
        placed, head = int(self.ends[place, last]), int(self.heads[place, last])
        left = np.ones(front.candidates.shape[1], np.bool_)
        left[self.order[place, :placed]] = False
        drawn = int(front.candidates[DRAW, head - 1]) + 1
        if drawn <= front.state.draws:
            state, tasks = front.state, front.tasks
        else:
            made = drawn - front.state.draws
            counts = np.bincount(front.tasks[:made], minlength=len(front.state.taken))
            taken = tuple((np.array(front.state.taken) + counts).tolist())
            state, tasks = StreamState(drawn, taken, front.state.joined), front.tasks[made:]
        return _Front(front.candidates[:, left], head - placed, self.loads[place, last], state, tasks, front.ahead)

    def state(self, place: int, step: int) -> dict[str, Any]:
        """Where the `place`-th stream stands before a step of the block, or after its last one, as JSON."""
        return self.front(place, step).as_json(step)


class BlockPlanner:
    """Plans some streams, block after block.

    Args:
        timeline: which task and row a draw is.
        measure: how long an example becomes.
        packing: budgets and size of the pool.
        streams: numbers of the streams.
    """

    def __init__(self, timeline: Timeline, measure: Measure, packing: PackingSettings, streams: Sequence[int]) -> None:
        self.streams = streams
        self.step = 0
        self._timeline = timeline
        self._measure = measure
        self._packing = packing
        self._wanted = max(_FIRST, 2 * packing.pool)
        # Examples in a sequence, at most of all streams, as last seen.
        self._pace = float(_FIRST)
        self._most = min(max(_MOST // len(streams), self._wanted), _MOST_OF_STREAM)
        nothing, unknown = np.empty((_KINDS, 0), np.int64), no_loads(1)[0]
        self._fronts = [_front(timeline.start(stream), nothing, unknown) for stream in streams]
        self._sampler = timeline.sampler(0)

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go to where :meth:`Block.state` of every stream was taken, all at one step."""
        self.step = states[0]["step"]
        # What is not to be used any more may not be there to be read, either.
        pools = [self._usable(np.array(state["pool"], np.int64).reshape(-1, 4).T) for state in states]
        sizes = [pool.shape[1] for pool in pools]
        measured = np.split(self._measured(np.concatenate(pools, axis=1)), np.cumsum(sizes)[:-1], axis=1)
        self._fronts = [
            _front(StreamState.from_json(state), pool, np.array(state["loads"], np.int64))
            for state, pool in zip(states, measured, strict=True)
        ]

    def states(self) -> list[dict[str, Any]]:
        """Where every stream stands before the next step, as JSON."""
        return [front.as_json(self.step) for front in self._fronts]

    def drawn(self) -> list[StreamState]:
        """Of every stream, the state after the draws that it has made up to the next step."""
        return [front.state for front in self._fronts]

    def next_block(self, most: int | None = None) -> Block:
        """The next steps, at least one; not more than `most`, nor than the timeline knows.

        Raises:
            OmnimillError: the next step's rates are not known yet; or selections leave out everything that is drawn.
        """
        limit = self._begin()
        most = limit if most is None else most if limit is None else min(most, limit)
        columns = self._wanted
        if most is not None:
            columns = min(columns, 2 * self._packing.pool + round(_SPARE * self._pace * most))
        block = self._try(columns, most)
        self._wanted = min(2 * self._wanted, self._most)
        self.step += block.steps
        self._pace = float(block.ends[:, -1].max() / block.steps)
        self._fronts = [block.front(place, self.step) for place in range(len(self.streams))]
        return block

    def _try(self, columns: int, most: int | None) -> Block:
        """Draw ahead, more than `columns` candidates of a stream where these are not enough for a step, and pack."""
        fewest, in_vain = 0, 0
        while in_vain < _MOST_VOID:
            self._draw_ahead(columns)
            if (block := self._pack(most)) is not None:
                return block
            before, fewest = fewest, min(front.candidates.shape[1] for front in self._fronts)
            in_vain = 0 if fewest > before else in_vain + 1
            # Streams that lack candidates, since draws were passed over, go on drawing before others draw more.
            columns = 2 * columns if fewest >= columns else columns
        raise OmnimillError(f"step {self.step}: selections leave out everything that a stream drew in {in_vain} tries")

    def _begin(self) -> int | None:
        """Get ready for the next step; for how many steps nothing changes then (None: ever)."""
        sampler = self._timeline.sampler(self.step)
        if sampler is not self._sampler or self._timeline.begins_era(self.step):
            # What was drawn ahead was drawn by other rates or from other rows.
            self._sampler = sampler
            self._fronts = [
                self._begun(stream, front) for stream, front in zip(self.streams, self._fronts, strict=True)
            ]
        until = self._timeline.holds_until(self.step)
        return None if until is None else until - self.step

    def _begun(self, stream: int, front: _Front) -> _Front:
        state, pool = front.state, front.candidates[:, : front.pool]
        if self._timeline.begins_era(self.step):
            state = self._timeline.carry(stream, state, self.step)
            pool = self._usable(pool)
        return _front(state, pool, front.loads)

    def _usable(self, drawn: Int64s) -> Int64s:
        """Draws (int64 [4 or more, n]) less those of rows that are not to be used at the next step."""
        kept = self._timeline.kept(self.step, drawn[TASK], drawn[ROW])
        return drawn if kept is None else drawn[:, kept]

    def _draw_ahead(self, columns: int) -> None:
        """Give every stream `columns` candidates, or a few less where draws are passed over."""
        counts = [max(columns - front.candidates.shape[1], 0) for front in self._fronts]
        if not any(counts):
            return
        draws, ahead = next_block(self._sampler, self.streams, [front.ahead for front in self._fronts], counts)
        drawn = np.stack(
            [
                np.concatenate([np.arange(one.first, one.first + len(one.task)) for one in draws]),
                *(np.concatenate([getattr(one, name) for one in draws]) for name in ("task", "row", "epoch")),
            ]
        )
        kept = self._timeline.kept(self.step, drawn[TASK], drawn[ROW])
        which = np.repeat(np.arange(len(draws)), counts)
        if kept is not None:
            drawn, which = drawn[:, kept], which[kept]
        sizes = np.bincount(which, minlength=len(draws))
        parts = np.split(self._measured(drawn), np.cumsum(sizes)[:-1], axis=1)
        self._fronts = [
            _Front(
                np.concatenate([front.candidates, part], axis=1),
                front.pool,
                front.loads,
                front.state,
                np.concatenate([front.tasks, one.task]),
                state,
            )
            for front, part, one, state in zip(self._fronts, parts, draws, ahead, strict=True)
        ]

    def _measured(self, drawn: Int64s) -> Int64s:
        """Draws (int64 [4, n]) as candidates (int64 [kinds, n])."""
        found = np.empty((_KINDS, drawn.shape[1]), np.int64)
        found[:ID] = drawn
        order = np.argsort(drawn[TASK].astype(np.uint16), kind="stable")
        ends = np.cumsum(np.bincount(drawn[TASK], minlength=1)).tolist()
        for task, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
            if begin < end:
                own = order[begin:end]
                ids, lengths = self._measure(task, drawn[ROW, own], drawn[EPOCH, own])
                found[ID:LENGTHS, own] = ids.T.view(np.int64)
                found[LENGTHS:, own] = lengths
        return found

    def _pack(self, most: int | None) -> Block | None:
        """As many steps as every stream has candidates for; None when that is not one."""
        available = np.array([front.candidates.shape[1] for front in self._fronts])
        columns = int(available.max())
        candidates = np.zeros((len(FIELDS), len(available), columns), np.int64)
        draws = np.zeros((len(available), columns), np.int64)
        for place, front in enumerate(self._fronts):
            candidates[:, place, : available[place]] = front.candidates[LENGTHS:]
            draws[place, : available[place]] = front.candidates[DRAW]
        pending = np.array([front.pool for front in self._fronts])
        drawn = np.array([front.state.draws for front in self._fronts])
        loads = np.stack([front.loads for front in self._fronts])
        most = columns if most is None else most
        packed = pack(costs_of(candidates), draws, available, pending, drawn, self._packing, most, loads)
        steps = int(packed.sequences.min())
        if not steps:
            return None
        ends, heads, loads = packed.ends[:, :steps], packed.heads[:, :steps], packed.loads[:, :steps]
        order = packed.order[:, : ends[:, -1].max()]
        return Block(self.step, steps, self.streams, self._fronts, order, ends, heads, loads)


def _front(state: StreamState, pool: Int64s, loads: Int64s) -> _Front:
    """Nothing drawn ahead."""
    return _Front(pool, pool.shape[1], loads, state, np.empty(0, np.int64), state)
