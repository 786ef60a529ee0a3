"""Runs sampler and packer on lengths alone: what a training would see, before it starts and before there are data.

Over token datasets lengths are the data's own; without them, rows are made up as the catalog describes them
(`omnimill.training.planning.virtual_rows`). Streams are simulated in parallel; the result does not depend on how.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np

from omnimill.mixtures.config import Mixture
from omnimill.mixtures.points import deviation_bound
from omnimill.progress import progress
from omnimill.rng import Int64s
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.planning.block_planner import LENGTHS, ROW, TASK, BlockPlanner
from omnimill.training.planning.bulk_lengths import FIELDS
from omnimill.training.planning.corpus_reads import Reads, count_reads
from omnimill.training.planning.lengths import Budgets
from omnimill.training.planning.simulated_corpus import Corpus, RenderFor, open_corpus
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.runs.config import BackboneSettings

# Streams that are planned together: more are no quicker, and take more memory.
_TOGETHER = 512
_WORTH_A_PROCESS = 5_000_000
_ENCODER = ("text", "image", "image_history", "audio", "audio_history")
_DECODER = ("target_text", "target_image", "target_audio")


@dataclass(frozen=True)
class Setting:
    """What is simulated: `sequences` packed sequences, `streams` of them in every step, the last step filled up.

    nodes: among which the streams are shared out. root: where the token datasets would lie. backbone: decides how many
        latents there are of an earlier picture or clip; None: the render settings do.
    """

    mixture: Mixture
    root: str
    sequences: int
    streams: int
    packing: PackingSettings = field(default_factory=PackingSettings)
    render: RenderSettings = field(default_factory=RenderSettings)
    backbone: BackboneSettings | None = None
    nodes: int = 1

    @property
    def steps(self) -> int:
        return -(-self.sequences // self.streams)


@dataclass(frozen=True)
class SourceFigures:
    """A source's part in a task. epochs: how often its rows were seen, on average."""

    name: str
    rows: int
    examples: int
    epochs: float


@dataclass(frozen=True)
class TaskFigures:
    """What the model saw of a task.

    planned, realised: shares of all draws, or of all tokens where the mixture's rates are of tokens; off: their
        difference in percentage points. draws: made; examples: of these, placed in sequences.
    rows: that it has. epochs: how often they were drawn, on average. max_epochs: its cap; cap_step: the first step
        after which it is reached, if it is.
    stream_deviation: furthest that any stream ended from its rate x draws, in draws; not for rates that change.
    tokens: of an example, on average. token_share: of all tokens.
    """

    name: str
    group: str
    planned: float
    realised: float
    off: float
    draws: int
    examples: int
    rows: int
    epochs: float
    max_epochs: float | None
    cap_step: int | None
    stream_deviation: float | None
    tokens: float
    token_share: float
    sources: list[SourceFigures]


@dataclass(frozen=True)
class Simulation:
    """off: furthest that a task is from its planned share of draws (or tokens), in percentage points; off_packed: of
        what is packed by the end, which lacks what waits in the pools.
    input_tokens, target_tokens: by modality, what the encoder reads and the decoder writes. cut: tokens that the limits
        left out.
    padding: share of each budget that stays empty. examples_per_sequence: on average; packed: sequences by the number
    of their examples. estimated: sources whose lengths are not known, neither from data nor from the catalog.
    stream_deviation_bound: what no stream's deviation exceeds after so many draws.
    """

    virtual: bool
    streams: int
    steps: int
    sequences: int
    draws: int
    off: float
    off_packed: float
    stream_deviation_bound: float
    input_tokens: dict[str, int]
    target_tokens: dict[str, int]
    cut: int
    padding: dict[str, float]
    examples_per_sequence: float
    packed: dict[int, int]
    reads: Reads
    estimated: list[str]
    processes: int
    seconds: float
    draws_per_second: float
    tasks: list[TaskFigures]
    sources: list[SourceFigures]


@dataclass
class _Tally:
    """Sums over some streams.

    examples: int64 [T]; packed. tokens: int64 [T, fields]; lengths of these, in the order of `FIELDS`. sources: of each
    task, examples by source. packed: sequences by their number of examples. taken: of each stream, draws by task.
    """

    examples: Int64s
    tokens: Int64s
    sources: list[Int64s]
    packed: Int64s = field(default_factory=lambda: np.zeros(1, np.int64))
    taken: list[Int64s] = field(default_factory=list)


def simulate(setting: Setting, processes: int | None = None) -> Simulation:
    """Plan `setting.sequences` packed sequences and count.

    Args:
        processes: that share the work; when None, as many as there are cores if that is quicker.
    """
    # A process takes seconds to start.
    workers = processes or min(os.cpu_count() or 1, 1 + setting.sequences // _WORTH_A_PROCESS)
    together = min(-(-setting.streams // workers), _TOGETHER)
    chunks = [range(first, min(first + together, setting.streams)) for first in range(0, setting.streams, together)]
    corpus = _open(setting)
    started = time.perf_counter()
    tallies: dict[int, _Tally] = {}
    with progress("simulate", setting.sequences, "sequences") as advance:
        for number, tally in _tallies(setting, corpus, chunks, workers):
            tallies[number] = tally
            advance(len(chunks[number]) * setting.steps)
    seconds = time.perf_counter() - started
    return _figures(setting, corpus, [tallies[number] for number in range(len(chunks))], workers, seconds)


def _open(setting: Setting) -> Corpus:
    budgets, settings = setting.packing.budgets, RenderFor(setting.render, setting.backbone)
    return open_corpus(setting.mixture, setting.root, setting.streams, budgets, settings)


def _tallies(setting: Setting, corpus: Corpus, chunks: Sequence[range], workers: int) -> Iterator[tuple[int, _Tally]]:
    if min(workers, len(chunks)) == 1:
        yield from ((number, _run(setting, corpus, chunk)) for number, chunk in enumerate(chunks))
        return
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_simulate, setting, chunk): number for number, chunk in enumerate(chunks)}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _simulate(setting: Setting, streams: range) -> _Tally:
    """In a process of its own."""
    corpus = _open(setting)
    return _run(setting, corpus, streams)


def _run(setting: Setting, corpus: Corpus, streams: range) -> _Tally:
    tasks = len(corpus.rows)
    tally = _Tally(
        np.zeros(tasks, np.int64),
        np.zeros((tasks, len(FIELDS)), np.int64),
        [np.zeros(len(rows.sizes), np.int64) for rows in corpus.rows],
    )
    ends = [np.cumsum(list(rows.sizes.values())) for rows in corpus.rows]
    planner = BlockPlanner(corpus.timeline, corpus.measure, setting.packing, streams)
    while planner.step < setting.steps:
        block = planner.next_block(setting.steps - planner.step)
        seen = block.examples()
        tally.examples += np.bincount(seen[TASK], minlength=tasks)
        for number in range(len(FIELDS)):
            sums = np.bincount(seen[TASK], weights=seen[LENGTHS + number], minlength=tasks)
            tally.tokens[:, number] += sums.astype(np.int64)
        for task, end in enumerate(ends):
            if len(end) > 1:
                source = np.searchsorted(end, seen[ROW][seen[TASK] == task], side="right")
                tally.sources[task] += np.bincount(source, minlength=len(end))
        packed = np.bincount(np.diff(block.ends, axis=1, prepend=0).reshape(-1), minlength=len(tally.packed))
        packed[: len(tally.packed)] += tally.packed
        tally.packed = packed
    for task, end in enumerate(ends):
        if len(end) == 1:
            tally.sources[task][0] = tally.examples[task]
    tally.taken = [np.array(state.taken) for state in planner.drawn()]
    return tally


def _figures(setting: Setting, corpus: Corpus, tallies: Sequence[_Tally], workers: int, seconds: float) -> Simulation:
    mixture = corpus.mixture
    examples = sum((tally.examples for tally in tallies), np.zeros(len(mixture.tasks), np.int64))
    tokens = sum((tally.tokens for tally in tallies), np.zeros((len(mixture.tasks), len(FIELDS)), np.int64))
    taken = np.stack([one for tally in tallies for one in tally.taken])
    by_source = [
        sum((tally.sources[task] for tally in tallies[1:]), tallies[0].sources[task]) for task in range(len(examples))
    ]
    draws, sequences = int(taken.sum()), setting.steps * setting.streams
    lengths = dict(zip(FIELDS, tokens.sum(axis=0).tolist(), strict=True))
    both = tokens[:, [FIELDS.index(name) for name in (*_ENCODER, *_DECODER)]].sum(axis=1)
    planned = _planned(setting.mixture, setting.steps)
    realised = both / both.sum() if setting.mixture.rate_unit == "tokens" else taken.sum(axis=0) / draws
    packed_shares = realised if setting.mixture.rate_unit == "tokens" else examples / examples.sum()
    changing = len(mixture.phases) > 1
    deviation = np.abs(taken - np.array(mixture.rates) * taken.sum(axis=1, keepdims=True)).max(axis=0)
    figures = []
    for number, (task, rows) in enumerate(zip(setting.mixture.tasks, corpus.rows, strict=True)):
        made = int(taken[:, number].sum())
        epochs = made / len(rows)
        capped = task.max_epochs is not None and epochs > task.max_epochs
        figures.append(
            TaskFigures(
                name=task.name,
                group=task.group,
                planned=float(planned[number]),
                realised=float(realised[number]),
                off=float(100 * (realised[number] - planned[number])),
                draws=made,
                examples=int(examples[number]),
                rows=len(rows),
                epochs=epochs,
                max_epochs=task.max_epochs,
                cap_step=int(setting.steps * (task.max_epochs or 0) / epochs) if capped else None,
                stream_deviation=None if changing else float(deviation[number]),
                tokens=float(both[number] / max(examples[number], 1)),
                token_share=float(both[number] / both.sum()),
                sources=[
                    SourceFigures(name, size, int(count), int(count) / size)
                    for (name, size), count in zip(rows.sizes.items(), by_source[number], strict=True)
                ],
            )
        )
    used = (
        sum(lengths[name] for name in _ENCODER),
        sum(lengths[name] for name in _DECODER),
        lengths["images"],
        lengths["earlier_images"],
        lengths["clips"] + lengths["earlier_clips"],
    )
    packed = _sum_padded([tally.packed for tally in tallies])
    return Simulation(
        virtual=corpus.virtual,
        streams=setting.streams,
        steps=setting.steps,
        sequences=sequences,
        draws=draws,
        off=max(abs(task.off) for task in figures),
        off_packed=float(100 * np.abs(packed_shares - planned).max()),
        stream_deviation_bound=deviation_bound(int(taken.sum(axis=1).max())),
        input_tokens={name: lengths[name] for name in _ENCODER},
        target_tokens={name.removeprefix("target_"): lengths[name] for name in _DECODER},
        cut=lengths["cut"],
        padding={
            name: 1 - amount / (limit * sequences) if limit else 0.0
            for name, amount, limit in zip(Budgets.model_fields, used, setting.packing.budgets.limits, strict=True)
        },
        examples_per_sequence=int(examples.sum()) / sequences,
        packed={number: int(count) for number, count in enumerate(packed) if count},
        reads=count_reads(taken, corpus.sizes, mixture.window, setting.nodes),
        estimated=corpus.estimated,
        processes=workers,
        seconds=round(seconds, 3),
        draws_per_second=round(draws / seconds),
        tasks=figures,
        sources=_by_source(figures),
    )


def _planned(mixture: Mixture, steps: int) -> Int64s:
    """Mean share of every task over the steps."""
    begins = [min(phase.first_step, steps) for phase in mixture.phases]
    counts = np.diff([*begins, steps])
    shares = np.array([phase.rates for phase in mixture.phases])
    return np.asarray(counts @ shares / steps)


def _by_source(tasks: Sequence[TaskFigures]) -> list[SourceFigures]:
    """Sources over all tasks that read them; rows are those of the task that can use most."""
    names = dict.fromkeys(source.name for task in tasks for source in task.sources)
    found = []
    for name in names:
        parts = [source for task in tasks for source in task.sources if source.name == name]
        rows, examples = max(part.rows for part in parts), sum(part.examples for part in parts)
        found.append(SourceFigures(name, rows, examples, examples / rows))
    return found


def _sum_padded(counts: Sequence[Int64s]) -> Int64s:
    """Sum of arrays of different lengths."""
    total = np.zeros(max(map(len, counts)), np.int64)
    for one in counts:
        total[: len(one)] += one
    return total
