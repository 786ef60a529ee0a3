"""How fast a backbone trains on packed sequences, beside the same examples in pairs and one by one, and on real shards.

The contest is between ways to put the same examples into batches of the same number of sequences; model, optimizer and
update are the same, and so are the real tokens, so that tokens in a second tell the ways apart. On a CPU seconds are of
the processor, with one thread. The reference's padding is that of its budgets, which a compiled program with fixed
shapes needs; padding to the longest of a batch is what collating without packing usually does.

The loader is then used as in any training: shards on disk, planned, read and decoded in the background.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from omnimill.bench.contest import run_alone
from omnimill.bench.metric import OURS, Metric
from omnimill.bench.train import ways
from omnimill.bench.train.corpus import Scale, prepare
from omnimill.progress import console
from omnimill.training.engine.flops import measured_flops, peak_flops
from omnimill.training.engine.learner import Learner
from omnimill.training.engine.settings import ParallelSettings, PrecisionSettings
from omnimill.training.engine.step import StepMetrics
from omnimill.training.loading.batch import PackedBatch
from omnimill.training.runs.inputs import TrainInputs, open_loader, open_streams

# What the reference's tables have; the made text tokenizer knows a few hundred pieces.
_TABLES = {"text_rows": 33_280}


@dataclass(frozen=True)
class Setting:
    """A device and what it is given. contest: steps, packed, that every way trains on in every one of some rounds.

    steps: with the loader, after `warm` ones.
    """

    name: str
    scale: Scale
    contest: int
    rounds: int
    warm: int
    steps: int


@dataclass(frozen=True)
class Loaded:
    """Steps with the loader. rate: real tokens in a second. waited: share of the time.

    transformer, total: operations of use in a second, of encoder and decoder, and with the modality encoders. peak:
    operations in a second that the device can do; of a CPU, in a product of matrices.
    """

    rate: float
    transformer: float
    total: float
    peak: float
    waited: float


@dataclass(frozen=True)
class Trained:
    """By way: real tokens in a second, and the share of slots that hold one; and steps with the loader."""

    rates: dict[str, float]
    filled: dict[str, float]
    loaded: Loaded


def settings() -> list[Setting]:
    """The devices of this machine."""
    plain = PrecisionSettings()
    cpu = Setting("tiny, cpu", Scale("tiny", {}, 0.25, 256, 8, plain, ParallelSettings(), 1), 3, 2, 3, 16)
    if not torch.cuda.is_available():
        console.print("not run: `large` in bfloat16, for PyTorch finds no CUDA device here", style="yellow")
        return [cpu]
    half = PrecisionSettings(activations="bfloat16")
    threads = max((os.cpu_count() or 2) - 2, 1)
    large = Scale("large", _TABLES, 1.0, 2048, 8, half, ParallelSettings(compile=True), threads)
    return [cpu, Setting("large, bfloat16, cuda", large, 12, 3, 10, 60)]


def run() -> list[Metric]:
    """Tokens a second, share of the device's peak, and share of time that was spent waiting for data."""
    metrics = []
    for setting in settings():
        found, name = run_alone(partial(_work, setting)).value, setting.name
        loaded = found.loaded
        metrics += [
            Metric.of(f"{name}: same examples, real tokens", "1/s", found.rates, "largest"),
            Metric.of(f"{name}: same examples, real slots", "share", found.filled, "largest", ceiling=1.0),
            _one(f"{name}, with the loader: real tokens", "1/s", loaded.rate),
            _one(f"{name}, with the loader: operations", "TFLOP/s", loaded.total / 1e12, loaded.peak / 1e12),
            _one(
                f"{name}, with the loader: MFU of encoder and decoder", "share", loaded.transformer / loaded.peak, 1.0
            ),
            Metric.of(f"{name}, with the loader: time waiting for data", "share", {OURS: loaded.waited}, "smallest"),
        ]
    return metrics


def _one(metric: str, unit: str, value: float, ceiling: float | None = None) -> Metric:
    return Metric.of(metric, unit, {OURS: value}, "largest", ceiling=ceiling)


def _work(setting: Setting) -> Callable[[], Trained]:
    folder = tempfile.TemporaryDirectory(prefix="omnimill-bench-")
    torch.set_num_threads(setting.scale.threads)
    inputs = prepare(Path(folder.name), setting.scale)

    def work() -> Trained:
        with folder as root:
            return _train(setting, inputs, root)

    return work


def _train(setting: Setting, inputs: TrainInputs, root: str) -> Trained:
    device = torch.device("cpu" if setting.scale.size == "tiny" else "cuda")
    learner = Learner(inputs, len(inputs.mixture.tasks), device, resumed=False)
    streams = open_streams(inputs, root, [inputs.change(0)])
    made = ways.batches(streams, setting.contest)
    return Trained(
        rates=_contest(learner, made, setting.rounds),
        filled={way: ways.real_share(found) for way, found in made.items()},
        loaded=_with_loader(setting, learner, inputs, root),
    )


def _contest(learner: Learner, made: Mapping[str, list[PackedBatch]], rounds: int) -> dict[str, float]:
    """Real tokens in a second of every way, of the fastest of `rounds`; ways take turns."""
    clock = _clock(learner)
    moved = {way: [batch.to(learner.device) for batch in batches] for way, batches in made.items()}
    for batches in moved.values():
        learner.update(batches[0], 0)
    rates = dict.fromkeys(moved, 0.0)
    for _ in range(rounds):
        for way, batches in moved.items():
            started = clock()
            # What a step tells has been waited for.
            tokens = sum(_tokens(learner.update(batch, 0)) for batch in batches)
            rates[way] = max(rates[way], tokens / (clock() - started))
    return rates


def _with_loader(setting: Setting, learner: Learner, inputs: TrainInputs, root: str) -> Loaded:
    dtype = torch.bfloat16 if setting.scale.precision.activations == "bfloat16" else torch.float32
    clock, waited, seconds, spent = _clock(learner), 0.0, 0.0, 0.0
    peak = peak_flops(learner.device, dtype) or measured_flops(learner.device, dtype, tries=50, clock=clock)
    seen: list[StepMetrics] = []
    with open_loader(inputs, root, [inputs.change(0)], device=learner.device) as loader:
        for step in range(setting.warm + setting.steps):
            began, started = time.perf_counter(), clock()
            _, batch, _ = next(loader)
            came = time.perf_counter()
            metrics = learner.update(batch, step)
            if step >= setting.warm:
                waited += came - began
                seconds += time.perf_counter() - began
                spent += clock() - started
                seen.append(metrics)
    flops = [metrics.flops for metrics in seen if metrics.flops]
    return Loaded(
        rate=sum(map(_tokens, seen)) / spent,
        transformer=sum(one.transformer for one in flops) / spent,
        total=sum(one.total for one in flops) / spent,
        peak=peak,
        waited=waited / seconds,
    )


def _clock(learner: Learner) -> Callable[[], float]:
    """What time is told by: of the thread that trains on a CPU, so that other programs cost nothing."""
    return time.thread_time if learner.device.type == "cpu" else time.perf_counter


def _tokens(metrics: StepMetrics) -> int:
    return metrics.encoder_tokens + metrics.decoder_tokens
