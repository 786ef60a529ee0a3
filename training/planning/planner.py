"""Planning: what every packed sequence of a virtual stream holds, from lengths alone.

A stream's plan is a pure function of mixture, dataset, settings and seed. Its state is a few counters and the pool's
draws, so any step can be planned again from any earlier state, alone and without reading media.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omnimill.config import digest_json
from omnimill.mixtures.course import Course
from omnimill.tokenizers.text import TextTokenizer
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.packing.streams import VERSION
from omnimill.training.planning.block_planner import ID, LENGTHS, Block, BlockPlanner
from omnimill.training.planning.bulk_lengths import FIELDS
from omnimill.training.planning.draws import id_of
from omnimill.training.planning.lengths import Lengths
from omnimill.training.planning.row_measure import RowMeasure
from omnimill.training.rendering.forms import bulk_lengths, make_renderer
from omnimill.training.rendering.settings import RenderSettings


@dataclass(slots=True)
class PlannedExample:
    """A drawn example and what it costs; not to be changed.

    draw: its number among the stream's draws. task: index of the course's tasks. row: of that task's rows.
    epoch: how often the stream has been through its share of the task before.
    measured: its lengths, in the order of `omnimill.training.planning.bulk_lengths.FIELDS`.
    """

    draw: int
    task: int
    row: int
    epoch: int
    example_id: str
    measured: tuple[int, ...]

    @property
    def lengths(self) -> Lengths:
        return Lengths(**dict(zip(FIELDS, self.measured, strict=True)))

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


class Planner(Iterator[list[PackedSequence]]):
    """The packed sequences of some virtual streams, step by step; streams never end.

    Args:
        blocks: plans several steps at a time.

    Attributes:
        streams: their numbers.
        step: the next one.
    """

    def __init__(self, blocks: BlockPlanner) -> None:
        self._blocks = blocks
        self._block: Block | None = None
        self.streams = blocks.streams
        self.step = 0

    def __next__(self) -> list[PackedSequence]:
        """The next step's sequences, in the order of the streams."""
        if self._block is None or self.step == self._block.first + self._block.steps:
            self._block = self._blocks.next_block()
        block, step = self._block, self.step
        self.step += 1
        return [
            PackedSequence(step, stream, tuple(map(_planned, zip(*block.sequence(place, step).tolist(), strict=True))))
            for place, stream in enumerate(self.streams)
        ]

    def snapshot(self) -> Callable[[], dict[str, Any]]:
        """Where the streams are now, to be asked for later, as JSON: by stream, see `Block.state`."""
        block, step = self._block, self.step
        if block is None:
            states = self._blocks.states()
            return lambda: dict(zip(map(str, self.streams), states, strict=True))
        return lambda: {str(stream): block.state(place, step) for place, stream in enumerate(block.streams)}

    def restore(self, states: Mapping[str, Any]) -> None:
        """Go to where a :meth:`snapshot` was taken, in this process or another; it may hold more streams."""
        self._blocks.restore([states[str(stream)] for stream in self.streams])
        self._block, self.step = None, self._blocks.step


def _planned(values: tuple[int, ...]) -> PlannedExample:
    """A candidate of a block, in the order of its kinds."""
    draw, task, row, epoch = values[:ID]
    return PlannedExample(draw, task, row, epoch, id_of(values[ID:LENGTHS]), values[LENGTHS:])


class VirtualStreams:
    """What all virtual streams of a training have in common; gives planners of them.

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
        self.renderer = make_renderer(course.mixture, course.layout, text, render, packing.budgets)
        self.packing = packing
        self._settings = [
            VERSION,
            packing.content_digest(),
            render.content_digest(),
            text.vocabulary.pieces,
            course.streams,
        ]

    def order(self, step: int) -> str:
        """64 hex digits of everything that decided which examples came in which order before `step`."""
        return digest_json([self.course.digest(step), *self._settings])

    def planner(self, streams: Sequence[int]) -> Planner:
        """The planner of some of the streams, at their first step."""
        measure = RowMeasure(self.rows, bulk_lengths(self.renderer.recipes))
        return Planner(BlockPlanner(self.course.timeline, measure, self.packing, streams))
