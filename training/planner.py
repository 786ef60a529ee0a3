"""Planning: what every packed sequence of a virtual stream holds, from lengths alone.

A stream's plan is a pure function of mixture, dataset, settings and seed. Its state is a few counters and the pool's
draws, so any step can be planned again from any earlier state, alone and without reading media.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omnimill.config import digest_json
from omnimill.errors import OmnimillError
from omnimill.mixtures.course import Course
from omnimill.mixtures.rows import TaskRows
from omnimill.mixtures.sampler import StreamState
from omnimill.mixtures.timeline import Timeline
from omnimill.tokenizers.text import TextTokenizer
from omnimill.training.lengths import Lengths
from omnimill.training.packing import PackingSettings, pack
from omnimill.training.render_settings import RenderSettings
from omnimill.training.rendering import Renderer


@dataclass(frozen=True)
class PlannedExample:
    """A drawn example and what it costs.

    draw: its number among the stream's draws. task: index of the course's tasks. row: of that task's rows.
    epoch: how often the stream has been through its share of the task before.
    """

    draw: int
    task: int
    row: int
    epoch: int
    example_id: str
    lengths: Lengths

    @property
    def costs(self) -> tuple[int, ...]:
        return self.lengths.costs


@dataclass(frozen=True)
class PackedSequence:
    """What virtual stream `stream` trains on at `step`, in the order of the sequence."""

    step: int
    stream: int
    items: tuple[PlannedExample, ...]


def plan_digest(sequences: Sequence[PackedSequence]) -> str:
    """64 hex digits that are equal when the same examples come in the same order and places."""
    return digest_json(
        [
            [sequence.step, sequence.stream, [[item.task, item.example_id, item.epoch] for item in sequence.items]]
            for sequence in sequences
        ]
    )


# So many draws in a row may be of rows that are not to be used any more.
_MOST_VOID = 1_000_000


class StreamPlanner(Iterator[PackedSequence]):
    """The packed sequences of one virtual stream, step by step.

    Args:
        timeline: which task and row a draw is.
        rows: of every task of the course.
        renderer: how long an example becomes.
        packing: budgets and size of the pool.
        stream: number of the stream.
    """

    def __init__(
        self, timeline: Timeline, rows: Sequence[TaskRows], renderer: Renderer, packing: PackingSettings, stream: int
    ) -> None:
        self.stream = stream
        self.step = 0
        self._timeline = timeline
        self._rows = rows
        self._renderer = renderer
        self._packing = packing
        self._sampled = timeline.start(stream)
        self._pool: list[PlannedExample] = []

    def __next__(self) -> PackedSequence:
        """The next step's sequence; streams never end."""
        self._begin_step()
        items = pack(self._pool, self._draw, self._packing)
        sequence = PackedSequence(self.step, self.stream, tuple(items))
        self.step += 1
        return sequence

    def state(self) -> dict[str, Any]:
        """Where the stream is, as JSON: the next step, the sampler's counters and the pool's draws."""
        return {
            "step": self.step,
            **self._sampled.as_json(),
            "pool": [[item.draw, item.task, item.row, item.epoch] for item in self._pool],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where :meth:`state` was taken, in this process or another."""
        self.step = state["step"]
        self._sampled = StreamState.from_json(state)
        # What is not to be used any more may not be there to be read, either.
        kept = [entry for entry in state["pool"] if not self._timeline.is_void(self.step, entry[1], entry[2])]
        self._pool = [self._planned(*entry) for entry in kept]

    def _begin_step(self) -> None:
        self._sampler = self._timeline.sampler(self.step)
        if self._timeline.begins_era(self.step):
            self._sampled = self._timeline.carry(self.stream, self._sampled, self.step)
            self._pool = [item for item in self._pool if not self._timeline.is_void(self.step, item.task, item.row)]

    def _draw(self) -> PlannedExample:
        for _ in range(_MOST_VOID):
            draw, self._sampled = self._sampler.next(self.stream, self._sampled)
            if not self._timeline.is_void(self.step, draw.task, draw.row):
                return self._planned(draw.index, draw.task, draw.row, draw.epoch)
        raise OmnimillError(
            f"stream {self.stream}: selections leave out everything it drew in {_MOST_VOID:,} draws at step {self.step}"
        )

    def _planned(self, number: int, task: int, row: int, epoch: int) -> PlannedExample:
        rows = self._rows[task]
        example_id = rows.id(row)
        lengths = self._renderer.plan(task, rows.lengths(row), example_id, epoch)
        return PlannedExample(number, task, row, epoch, example_id, lengths)


class VirtualStreams:
    """What all virtual streams of a training have in common; gives the planner of each.

    Args:
        course: the tasks with their rows, and which of them are drawn when.
        text: the text tokenizer of the token datasets.
        packing, render: settings.

    Attributes:
        rows: of every task of the course.
        renderer: of its examples.

    Raises:
        ConfigError: a task does not fit the budgets.
    """

    def __init__(
        self, course: Course, text: TextTokenizer, *, packing: PackingSettings, render: RenderSettings
    ) -> None:
        self.course = course
        self.rows = course.rows
        self.renderer = Renderer(course.mixture, course.layout, text, render, packing.budgets)
        self.packing = packing
        self._settings = [packing.content_digest(), render.content_digest(), text.vocabulary.pieces, course.streams]

    def order(self, step: int) -> str:
        """64 hex digits of everything that decided which examples came in which order before `step`."""
        return digest_json([self.course.digest(step), *self._settings])

    def planner(self, stream: int) -> StreamPlanner:
        """The planner of one stream, at its first step."""
        return StreamPlanner(self.course.timeline, self.rows, self.renderer, self.packing, stream)
