"""When a run saw some rows: exactly, and without going through all that it saw.

The sampler is inverted: which stream draws a row for the n-th time, and as which of its draws. A stream's state says
how many draws it had made, so the row was seen between two of the run's waypoints, and only these steps of this stream
are planned again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnimill.mixtures.inversion import locate
from omnimill.mixtures.sampler import StreamState
from omnimill.mixtures.shares import owner
from omnimill.rng import Int64s
from omnimill.training.checkpoints.checkpoint import CheckpointRecord
from omnimill.training.lineage import waypoints
from omnimill.training.lineage.replay import Consumed, check_order, held_by, in_order
from omnimill.training.planning.planner import PlannedExample, VirtualStreams
from omnimill.training.runs.inputs import open_streams

Pass = tuple[int, int, int]  # task, row of the task, epoch


@dataclass(frozen=True)
class _Draw:
    """A draw of a row: the `k`-th of its task in a stream."""

    task: int
    row: int
    epoch: int
    k: int


class Sightings:
    """What a checkpoint's run saw up to it.

    Args:
        checkpoint: its folder or ``checkpoint.json``.
        root: where the token datasets lie.

    Attributes:
        streams: of the run. record: the checkpoint's. in_order: whether steps can be told, see `replay.in_order`.
    """

    def __init__(self, checkpoint: str | Path, record: CheckpointRecord, root: str) -> None:
        self.record = record
        self._run, entries = held_by(checkpoint, root)
        self.streams: VirtualStreams = open_streams(record, root, entries)
        self.in_order = in_order(record, self.streams)
        self._states = {int(stream): StreamState.from_json(one) for stream, one in record.plan["streams"].items()}
        self._waypoints = [step for step in waypoints.steps(self._run) if step < record.step]
        self._void = [frozenset(rows.void.tolist()) for rows in self.streams.rows]
        self._read: dict[int, Mapping[str, Any] | None] = {}

    def task_rows(self, shards: Mapping[str, Int64s]) -> list[list[int]]:
        """Of every task, its rows among some rows of token shards, by the shards' digests."""
        return [rows.locate(shards) for rows in self.streams.rows]

    def passes(self, shards: Mapping[str, Int64s]) -> dict[int, list[_Draw]]:
        """Draws of rows that had been made when the checkpoint was, by stream."""
        sampler = self.streams.course.timeline.last
        found: dict[int, list[_Draw]] = {}
        for task, rows in enumerate(self.task_rows(shards)):
            for row in rows:
                epoch, out, owners = 0, 0, owner(sampler.layouts[task], row, 0)[1]
                # Owners of a shared row need not be equally far: stop when each of them has run out.
                while out < owners:
                    try:
                        stream, k = locate(sampler, task, row, epoch, self._states.__getitem__)
                    except IndexError:
                        made = False  # beyond the cap, or it has not come into the stream's share yet
                    else:
                        if made := k < self._states[stream].taken[task]:
                            found.setdefault(stream, []).append(_Draw(task, row, epoch, k))
                    out, epoch = 0 if made else out + 1, epoch + 1
        return found

    def effort(self, passes: Mapping[int, Sequence[_Draw]]) -> int:
        """Steps of single streams that :meth:`of` plans again, about."""
        begins = {(stream, self._begin(stream, draw)) for stream, draws in passes.items() for draw in draws}
        return sum(
            min(waypoints.EVERY if self._waypoints else self.record.step, self.record.step - begin)
            for _, begin in begins
        )

    def of(self, passes: Mapping[int, Sequence[_Draw]]) -> list[Consumed]:
        """When the draws of :meth:`passes` were seen, step by step; IntegrityError unless `in_order`."""
        check_order(self.record, self.streams)
        every = (one for stream, draws in passes.items() for one in self._seen(stream, draws))
        found = (one for one in every if not self.record.config.leaves_out(one.step))
        return sorted(found, key=lambda one: (one.step, one.stream, one.task, one.row, one.epoch))

    def times(self, passes: Mapping[int, Sequence[_Draw]], record: CheckpointRecord) -> tuple[int, list[str], bool]:
        """How often a checkpoint of the run has seen the draws of :meth:`passes`, and as which tasks; plans nothing.

        Returns:
            Last, whether that is exact: draws of rows that were left out in mid-run may have been passed over, and
            others been made for steps that were left out.
        """
        times, tasks, exact = 0, set(), not any(first < record.step for first, _ in record.config.leave_out)
        for stream, draws in passes.items():
            waiting = _pool(record.plan, stream)
            for draw in draws:
                drawn = draw.k < _taken(record.plan, stream, draw.task)
                if drawn and (draw.task, draw.row, draw.epoch) not in waiting:
                    times += 1
                    tasks.add(self.streams.rows[draw.task].task.name)
                    exact = exact and draw.row not in self._void[draw.task]
        return times, sorted(tasks), exact

    def _seen(self, stream: int, draws: Sequence[_Draw]) -> Iterator[Consumed]:
        names = [rows.task.name for rows in self.streams.rows]
        wanted: dict[int, set[Pass]] = {}
        for draw in draws:
            wanted.setdefault(self._begin(stream, draw), set()).add((draw.task, draw.row, draw.epoch))
        for begin, passes in sorted(wanted.items()):
            for step, item in self._replay(stream, begin, passes):
                yield Consumed(step, stream, names[item.task], item.example_id, item.row, item.epoch)

    def _begin(self, stream: int, draw: _Draw) -> int:
        """The last waypoint before a draw; 0 when there is none."""
        low, high = 0, len(self._waypoints)
        while low < high:
            middle = (low + high) // 2
            plan = self._waypoint(self._waypoints[middle])
            if plan is None:
                del self._waypoints[middle]
                high -= 1
            elif _taken(plan, stream, draw.task) <= draw.k:
                low = middle + 1
            else:
                high = middle
        return self._waypoints[low - 1] if low else 0

    def _replay(self, stream: int, begin: int, passes: set[Pass]) -> Iterator[tuple[int, PlannedExample]]:
        """Where a stream placed some draws that it made after a waypoint and before the next one."""
        planner = self.streams.planner([stream])
        if begin:
            planner.restore(self._waypoint(begin)["streams"])  # type: ignore[index]  # it was read to get here
        ahead = [step for step in self._waypoints if step > begin]
        left = set(passes)
        while left and planner.step < self.record.step:
            if ahead and planner.step == ahead[0]:
                # What was drawn by now is in the pool, or was seen, or was passed over for good.
                plan = self._waypoint(ahead.pop(0))
                left &= _pool(plan, stream) if plan is not None else left
                continue
            for sequence in next(planner):
                for item in sequence.items:
                    if (one := (item.task, item.row, item.epoch)) in left:
                        left.remove(one)
                        yield sequence.step, item

    def _waypoint(self, step: int) -> Mapping[str, Any] | None:
        """A waypoint of this order of examples."""
        if step not in self._read:
            plan = waypoints.read(self._run, step)
            fits = plan is not None and plan.get("order") == self.streams.order(step)
            self._read[step] = plan if fits else None
        return self._read[step]


def _taken(plan: Mapping[str, Any], stream: int, task: int) -> int:
    taken = plan["streams"][str(stream)]["taken"]
    return int(taken[task]) if task < len(taken) else 0


def _pool(plan: Mapping[str, Any], stream: int) -> set[Pass]:
    return {(task, row, epoch) for _, task, row, epoch in plan["streams"][str(stream)]["pool"]}
