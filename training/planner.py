"""Planning: what every packed sequence of a virtual stream holds, from lengths alone.

A stream's plan is a pure function of mixture, dataset, settings and seed. Its state is a few counters and the pool's
draws, so any step can be planned again from any earlier state, alone and without reading media.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omnimill.config import digest_json
from omnimill.errors import ConfigError
from omnimill.infra.dataset import Manifest
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.rows import TaskRows, scan
from omnimill.mixtures.sampler import Sampler, StreamState
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokens import TokenLayout
from omnimill.training.lengths import Lengths
from omnimill.training.packing import PackingSettings, pack
from omnimill.training.render_settings import RenderSettings
from omnimill.training.rendering import Renderer


@dataclass(frozen=True)
class PlannedExample:
    """A drawn example and what it costs.

    draw: its number among the stream's draws. task: index of the mixture's tasks. row: of that task's rows.
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


class StreamPlanner(Iterator[PackedSequence]):
    """The packed sequences of one virtual stream, step by step.

    Args:
        sampler: which task and row a draw is.
        rows: of every task of the mixture.
        renderer: how long an example becomes.
        packing: budgets and size of the pool.
        stream: number of the stream.
    """

    def __init__(
        self, sampler: Sampler, rows: Sequence[TaskRows], renderer: Renderer, packing: PackingSettings, stream: int
    ) -> None:
        self.stream = stream
        self.step = 0
        self._sampler = sampler
        self._rows = rows
        self._renderer = renderer
        self._packing = packing
        self._sampled = sampler.start(stream)
        self._pool: list[PlannedExample] = []

    def __next__(self) -> PackedSequence:
        """The next step's sequence; streams never end."""
        items = pack(self._pool, self._draw, self._packing)
        sequence = PackedSequence(self.step, self.stream, tuple(items))
        self.step += 1
        return sequence

    def state(self) -> dict[str, Any]:
        """Where the stream is, as JSON: the next step, the sampler's counters and the pool's draws."""
        return {
            "step": self.step,
            "draws": self._sampled.draws,
            "taken": list(self._sampled.taken),
            "pool": [[item.draw, item.task, item.row, item.epoch] for item in self._pool],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where :meth:`state` was taken, in this process or another."""
        self.step = state["step"]
        self._sampled = StreamState(draws=state["draws"], taken=tuple(state["taken"]))
        self._pool = [self._planned(*entry) for entry in state["pool"]]

    def _draw(self) -> PlannedExample:
        draw, self._sampled = self._sampler.next(self.stream, self._sampled)
        return self._planned(draw.index, draw.task, draw.row, draw.epoch)

    def _planned(self, number: int, task: int, row: int, epoch: int) -> PlannedExample:
        rows = self._rows[task]
        example_id = rows.id(row)
        lengths = self._renderer.plan(task, rows.lengths(row), example_id, epoch)
        return PlannedExample(number, task, row, epoch, example_id, lengths)


class VirtualStreams:
    """What all virtual streams of a training have in common; gives the planner of each.

    Args:
        root: where the token dataset lies.
        mixture: tasks, rates, seed.
        manifest: the version of the token dataset.
        layout: of the token dataset.
        text: its text tokenizer.
        packing, render: settings.
        streams: how many, which is the number of packed sequences in a global batch.

    Attributes:
        rows: of every task of the mixture.
        renderer: of its examples.
        order: 64 hex digits of everything that decides which examples come in which order.

    Raises:
        ConfigError: a task has no rows, or does not fit the budgets.
    """

    def __init__(
        self,
        root: str,
        mixture: Mixture,
        manifest: Manifest,
        layout: TokenLayout,
        text: TextTokenizer,
        *,
        packing: PackingSettings,
        render: RenderSettings,
        streams: int,
    ) -> None:
        self.rows = scan(root, manifest, mixture.tasks)
        empty = [rows.describe_empty() for rows in self.rows if not len(rows)]
        if empty:
            raise ConfigError("\n".join(empty))
        self.renderer = Renderer(mixture, layout, text, render, packing.budgets)
        self.packing = packing
        configs = (mixture, manifest, packing, render)
        self.order = digest_json([*(config.content_digest() for config in configs), text.vocabulary.pieces, streams])
        self._sampler = Sampler.of(mixture, [len(rows) for rows in self.rows], streams)

    def planner(self, stream: int) -> StreamPlanner:
        """The planner of one stream, at its first step."""
        return StreamPlanner(self._sampler, self.rows, self.renderer, self.packing, stream)
