"""How fast training is planned from lengths alone, where the time goes, and that memory does not grow with the corpus.

The mixture is the published one for pre-training, over rows as the catalog describes them and, for some of its tasks,
over token shards that are written for this. Speeds are by processor time of one core, sampling, lengths and packing
together.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from omnimill.bench.contest import run_alone
from omnimill.bench.metric import OURS, Metric
from omnimill.infra.dataset import Commit, Counts, Dataset
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.draw_blocks import next_block
from omnimill.mixtures.loading import load_mixture
from omnimill.mixtures.rows import scan
from omnimill.mixtures.timeline import Timeline
from omnimill.mixtures.versions import TokenData
from omnimill.rng import Int64s
from omnimill.tokens import TOKEN_SCHEMA, TokenLayout
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.packing.streams import no_loads, pack
from omnimill.training.planning.block_planner import BlockPlanner, Measure
from omnimill.training.planning.bulk_lengths import FIELDS, BulkLengths, costs_of
from omnimill.training.planning.draws import id_of
from omnimill.training.planning.lengths import Budgets
from omnimill.training.planning.planner import Planner
from omnimill.training.planning.row_batch import Lists, role_code
from omnimill.training.planning.row_measure import RowMeasure
from omnimill.training.planning.simulate import Setting, Simulation, simulate
from omnimill.training.planning.simulated_corpus import Corpus, RenderFor, open_corpus
from omnimill.training.planning.virtual_rows import VirtualRows
from omnimill.training.rendering.prompt_text import CountedText
from omnimill.training.rendering.recipe import Recipes
from omnimill.training.rendering.settings import RenderSettings

_PRETRAIN = Path(__file__).parents[2] / "mixtures" / "pretrain.yaml"
_STREAMS = (8, 64, 512)
_EXAMPLES = 400_000
_SEQUENCES = 1_000_000
# Corpora a thousand times as small and as large as the published one, by their rows.
_SCALES = {"8.5e6": 1e-3, "8.5e9": 1.0, "8.5e12": 1e3}
_SHARD_ROWS, _SHARDS, _SHARD_TASKS = 2000, 40, ("c4", "cc3m", "yt_temporal", "obelics")


def run() -> list[Metric]:
    """Plan, take the planning apart, and simulate a million sequences."""
    mixture = load_mixture(_PRETRAIN)
    rates = {f"{streams} streams": _rate(*_virtual(mixture, streams), streams) for streams in _STREAMS}
    with tempfile.TemporaryDirectory(prefix="omnimill-bench-") as folder:
        timeline, measure = _stored(mixture, folder, _STREAMS[-1])
        rates["512 streams, token shards"] = _rate(timeline, measure, _STREAMS[-1])
        rates["512 streams, token shards, handed to the loader one by one"] = _handed(timeline, measure, _STREAMS[-1])
    simulated = {rows: run_alone(partial(_simulation, scale)) for rows, scale in _SCALES.items()}
    published = simulated["8.5e9"]
    return [
        *(
            Metric.of(f"planned examples, {name}", "1/s a core", {OURS: rate}, "largest")
            for name, rate in rates.items()
        ),
        *(
            Metric.of(f"of that, {part}", "us an example", {OURS: cost}, "smallest")
            for part, cost in _parts(mixture, _STREAMS[-1]).items()
        ),
        Metric.of("a million sequences of 8.5e9 rows, all", "s", {OURS: published.seconds}, "smallest"),
        Metric.of("largest distance from a rate", "percentage points", {OURS: published.value.off}, "smallest"),
        *(
            Metric.of(f"peak memory, {rows} rows", "MB", {OURS: found.peak_bytes / 1e6}, "smallest")
            for rows, found in simulated.items()
        ),
    ]


def _virtual(mixture: Mixture, streams: int) -> tuple[Timeline, Measure]:
    corpus = _corpus(mixture, streams)
    return corpus.timeline, corpus.measure


def _corpus(mixture: Mixture, streams: int) -> Corpus:
    return open_corpus(mixture, tempfile.gettempdir(), streams, Budgets(), RenderFor(RenderSettings(), None))


def _rate(timeline: Timeline, measure: Measure, streams: int) -> float:
    """Examples planned in a second of processor time, once blocks have their full size."""
    planner = BlockPlanner(timeline, measure, PackingSettings(), range(streams))
    for _ in range(6):
        planner.next_block()
    placed, started = 0, time.process_time()
    while placed < _EXAMPLES:
        placed += int(planner.next_block().ends[:, -1].sum())
    return placed / (time.process_time() - started)


def _handed(timeline: Timeline, measure: Measure, streams: int) -> float:
    """As :func:`_rate`, with an object for every example, as rendering takes them."""
    planner = Planner(BlockPlanner(timeline, measure, PackingSettings(), range(streams)))
    placed, started = 0, time.process_time()
    while placed < _EXAMPLES // 4:
        placed += sum(len(sequence.items) for sequence in next(planner))
    return placed / (time.process_time() - started)


def _parts(mixture: Mixture, streams: int) -> dict[str, float]:
    """Microseconds of processor time an example, by part."""
    corpus = _corpus(mixture, streams)
    sampler, count = corpus.timeline.sampler(0), 512
    states = [sampler.start(stream) for stream in range(streams)]
    next_block(sampler, range(streams), states, [1] * streams)
    started = time.process_time()
    draws, _ = next_block(sampler, range(streams), states, [count] * streams)
    sampled = time.process_time()
    lengths = np.zeros((len(FIELDS), streams * count), np.int64)
    task, row, epoch = (np.concatenate([getattr(one, name) for one in draws]) for name in ("task", "row", "epoch"))
    for number in range(len(corpus.rows)):
        own = np.flatnonzero(task == number)
        if len(own):
            lengths[:, own] = corpus.measure(number, row[own], epoch[own])[1]
    measured = time.process_time()
    costs = costs_of(lengths).reshape(-1, streams, count)
    order = np.broadcast_to(np.arange(count), (streams, count))
    available, none = np.full(streams, count), np.zeros(streams, np.int64)
    pack(costs, order, available, none, none, PackingSettings(), count, no_loads(streams))
    packed = time.process_time()
    spent = {"sampling": sampled - started, "lengths": measured - sampled, "packing": packed - measured}
    return {name: seconds / (streams * count) * 1e6 for name, seconds in spent.items()}


def _simulation(scale: float) -> Callable[[], Simulation]:
    """A simulation of a million sequences over a corpus of `scale` times as many rows as the published one."""
    mixture = load_mixture(_PRETRAIN)
    tasks = tuple(task.model_copy(update={"size": max(int((task.size or 0) * scale), 1)}) for task in mixture.tasks)
    setting = Setting(mixture.model_copy(update={"tasks": tasks}), tempfile.gettempdir(), _SEQUENCES, _STREAMS[-1])
    return partial(simulate, setting, 1)


def _stored(mixture: Mixture, root: str, streams: int) -> tuple[Timeline, Measure]:
    """Token shards of some of the tasks' sources, with the lengths of virtual rows, and what plans from them."""
    tasks = tuple(
        task.model_copy(update={"size": _SHARD_ROWS * _SHARDS})
        for task in mixture.tasks
        if task.sources[0] in _SHARD_TASKS
    )
    mixture = mixture.model_copy(update={"tasks": tasks, "datasets": ("bench",), "schedule": (), "held_out": ()})
    corpus = _corpus(mixture, streams)
    dataset = Dataset(root, "bench")
    commits = []
    for source in _SHARD_TASKS:
        task = next(number for number, task in enumerate(tasks) if task.sources[0] == source)
        for shard in range(_SHARDS):
            rows = np.arange(shard * _SHARD_ROWS, (shard + 1) * _SHARD_ROWS)
            ref = dataset.publish_shard(_table(corpus, task, rows, source))
            counts = Counts(records_in=len(rows), kept=len(rows), examples_written=len(rows))
            commit = Commit(
                unit=f"{source}-{shard}", source=source, recipe="bench", inputs=(), shards=(ref,), counts=counts
            )
            dataset.commit(commit)
            commits.append(commit)
    layout = TokenLayout(tokenizers="none", digests={})
    manifest = dataset.publish_manifest("tokens", commits, attributes={"layout": layout.model_dump(mode="json")})[1]
    found = scan(TokenData(root, (manifest,)), tasks)
    recipes = Recipes(mixture, layout, CountedText(layout.text_pieces), RenderSettings(), Budgets())
    timeline = Timeline.of(mixture, [len(one) for one in found], streams)
    return timeline, RowMeasure(found, BulkLengths(recipes))


def _table(corpus: Corpus, task: int, rows: Int64s, source: str) -> pa.Table:
    """Virtual rows as a token shard that has lengths but no content."""
    virtual = corpus.rows[task]
    assert isinstance(virtual, VirtualRows)
    batch = virtual.batch(rows)
    names = {role_code(role): role for role in virtual.task.roles}
    made = {
        "id": pa.array([id_of(words) for words in batch.ids.tolist()]),
        "source": pa.array([source] * len(rows)),
        "key": pa.array([str(row) for row in rows]),
        "text_roles": _list(batch.texts, [names[code] for code in batch.texts.columns["roles"].tolist()], pa.string()),
        "text_lengths": _list(batch.texts, batch.texts.columns["lengths"], pa.int32()),
        "image_patches": _list(batch.pictures, batch.pictures.columns["input"], pa.int32()),
        "history_patches": _list(batch.pictures, batch.pictures.columns["history"], pa.int32()),
        "image_codes_lengths": _list(batch.pictures, batch.pictures.columns["codes"], pa.int32()),
        "audio_patches": _list(batch.clips, batch.clips.columns["input"], pa.int32()),
        "audio_codes_lengths": _list(batch.clips, batch.clips.columns["codes"], pa.int32()),
        **{
            f"text_{name}": _list(batch.texts, [None] * int(batch.texts.offsets[-1]), pa.int32())
            for name in ("images", "audio", "items")
        },
    }
    columns = [
        made[field.name] if field.name in made else pa.array([[]] * len(rows), field.type) for field in TOKEN_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=TOKEN_SCHEMA)


def _list(lists: Lists, values: Any, kind: pa.DataType) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(lists.offsets, pa.int32()), pa.array(values, kind))
