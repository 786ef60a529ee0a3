"""Runs the sampler without any data: are the rates what the mixture asks for, and how often is what seen?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omnimill.mixtures.config import Mixture
from omnimill.mixtures.rows import TaskRows
from omnimill.mixtures.sampler import Draws, Sampler, deviation_bound
from omnimill.progress import progress

# Draws per stream that are made at once; the counts of so many rounds are kept.
_CHUNK = 4096


@dataclass(frozen=True)
class SourceFigures:
    """A source's part in a task. epochs: how often its rows were drawn, on average."""

    name: str
    rows: int
    draws: int
    epochs: float


@dataclass(frozen=True)
class TaskFigures:
    """What the sampler gave a task.

    planned, realised: shares of all draws. rows: eligible ones. epochs: how often they were drawn, on average.
    round_deviation: furthest that any round (one draw of every stream) was from planned x streams, in draws; below 1.
    stream_deviation: furthest that any stream ended from planned x its draws, in draws.
    """

    name: str
    group: str
    planned: float
    realised: float
    draws: int
    rows: int
    epochs: float
    round_deviation: float
    stream_deviation: float
    sources: list[SourceFigures]


@dataclass(frozen=True)
class Simulation:
    """draws: per stream. stream_deviation_bound: what no stream's deviation exceeds after so many draws."""

    streams: int
    draws: int
    stream_deviation_bound: float
    seconds: float
    draws_per_second: float
    tasks: list[TaskFigures]


def simulate(mixture: Mixture, rows: Sequence[TaskRows], streams: int, draws: int) -> Simulation:
    """Make the first `draws` draws of each of `streams` streams."""
    sampler = Sampler.of(mixture, [len(one) for one in rows], streams)
    planned = np.array(mixture.rates)
    ends = [np.cumsum(list(one.sizes.values())) for one in rows]
    by_source = [np.zeros(len(end), np.int64) for end in ends]
    round_deviation = np.zeros(len(rows))
    states = [sampler.start(stream) for stream in range(streams)]
    started = time.perf_counter()
    with progress("simulate", streams * draws, "draws") as advance:
        for first in range(0, draws, _CHUNK):
            count = min(_CHUNK, draws - first)
            rounds = np.zeros((count, len(rows)), np.int64)
            for stream in range(streams):
                drawn, states[stream] = sampler.next_many(stream, states[stream], count)
                rounds[np.arange(count), drawn.task] += 1
                _count_sources(drawn, ends, by_source)
                advance(count)
            round_deviation = np.maximum(round_deviation, np.abs(rounds - planned * streams).max(axis=0))
    seconds = time.perf_counter() - started
    taken = np.array([state.taken for state in states])
    stream_deviation = np.abs(taken - planned * draws).max(axis=0)
    figures = [
        TaskFigures(
            name=task.name,
            group=task.group,
            planned=float(planned[number]),
            realised=int(taken[:, number].sum()) / (streams * draws),
            draws=int(taken[:, number].sum()),
            rows=len(rows[number]),
            epochs=int(taken[:, number].sum()) / len(rows[number]),
            round_deviation=float(round_deviation[number]),
            stream_deviation=float(stream_deviation[number]),
            sources=[
                SourceFigures(name, size, int(seen), int(seen) / size)
                for (name, size), seen in zip(rows[number].sizes.items(), by_source[number], strict=True)
            ],
        )
        for number, task in enumerate(mixture.tasks)
    ]
    return Simulation(
        streams, draws, deviation_bound(draws), round(seconds, 3), round(streams * draws / seconds), figures
    )


def _count_sources(
    drawn: Draws, ends: Sequence[npt.NDArray[np.int64]], by_source: Sequence[npt.NDArray[np.int64]]
) -> None:
    """Add a stream's draws to the counts of the sources; `ends` are the row numbers where each source ends."""
    for task, end in enumerate(ends):
        sources = np.searchsorted(end, drawn.row[drawn.task == task], side="right")
        by_source[task][:] += np.bincount(sources, minlength=len(end))
