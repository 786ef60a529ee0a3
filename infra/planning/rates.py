"""What one example takes at a stage: measured on committed units, or stated in a file."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from omnimill.config import Config, canonical_json
from omnimill.infra.dataset import Commit

Stored = tuple[Commit, Mapping[str, Any]]


class Rate(Config):
    """What one example takes.

    core_seconds, gpu_seconds: of work. input_bytes, stored_bytes: read from the source, written to shards. spread: of
    the time of a unit, its standard deviation as a share of its mean. commit_bytes: of the manifest, for each unit.
    files_per_unit: written, the commit among them. worker_bytes: the most that a worker took.
    """

    core_seconds: float = Field(gt=0)
    gpu_seconds: float = Field(0, ge=0)
    input_bytes: float = Field(ge=0)
    stored_bytes: float = Field(ge=0)
    examples_per_unit: float = Field(gt=0)
    spread: float = Field(0.0, ge=0)
    commit_bytes: float = Field(600, gt=0)
    files_per_unit: float = Field(3, gt=0)
    worker_bytes: int = Field(1 << 30, gt=0)

    @property
    def unit_seconds(self) -> float:
        """Core seconds of a unit."""
        return self.core_seconds * self.examples_per_unit


class TrainRate(Config):
    """What training takes.

    tokens: to be trained on, encoder and decoder together. tokens_per_second: of one worker; or run: the name of a run
    to take it from. num_cpus, num_gpus: of a worker. checkpoint_bytes: of all checkpoints that are kept.
    """

    tokens: float = Field(gt=0)
    tokens_per_second: float | None = Field(None, gt=0)
    run: str | None = None
    num_cpus: float = Field(1, gt=0)
    num_gpus: float = Field(1, ge=0)
    checkpoint_bytes: float = Field(0, ge=0)

    @model_validator(mode="after")
    def _has_one_speed(self) -> TrainRate:
        if (self.tokens_per_second is None) == (self.run is None):
            raise ValueError("training takes either tokens_per_second or the run to take it from")
        return self


class Rates(Config):
    """Stated rates. They go before measured ones.

    Of ingest, dedup and tokenize by the name of the dataset, by ``dataset/source``, or by a group of sources of the
    reference's corpus (``Text``, ``Image/Text``, …); the most particular one counts.
    """

    ingest: dict[str, Rate] = Field(default_factory=dict)
    dedup: dict[str, Rate] = Field(default_factory=dict)
    tokenize: dict[str, Rate] = Field(default_factory=dict)
    train: TrainRate | None = None

    def stated(self, stage: str, source: str, group: str | None) -> Rate | None:
        """The rate of a stage for ``dataset`` or ``dataset/source``; None when there is none."""
        rates: Mapping[str, Rate] = getattr(self, stage)
        names = (source, source.partition("/")[0], group)
        return next((rates[name] for name in names if name is not None and name in rates), None)


def measure(stored: Sequence[Stored]) -> Rate | None:
    """The rate of committed units of one source; None when no example was written."""
    done = [(commit, observed) for commit, observed in stored if commit.inputs]
    examples = sum(commit.counts.examples_written for commit, _ in done)
    seconds = busy_seconds(observed for _, observed in done)
    if not examples or not seconds:
        return None
    # More than the time by the clock where a worker's threads found idle cores, which they will not when all are busy.
    core_seconds = max(seconds, processor_seconds(observed for _, observed in done) or 0.0)
    on_gpu = any("peak_gpu_bytes" in observed for _, observed in done)
    files = sum(len(commit.shards) + (commit.quarantine is not None) + (commit.drops is not None) for commit, _ in done)
    return Rate(
        core_seconds=core_seconds / examples,
        gpu_seconds=seconds / examples if on_gpu else 0.0,
        input_bytes=sum(ref.bytes for commit, _ in done for ref in commit.inputs) / examples,
        stored_bytes=sum(shard.bytes for commit, _ in done for shard in commit.shards) / examples,
        examples_per_unit=examples / len(done),
        spread=_spread([float(observed.get("seconds", 0.0)) for _, observed in done]),
        commit_bytes=sum(len(canonical_json(commit.model_dump(mode="json"))) for commit, _ in done) / len(done),
        files_per_unit=1 + files / len(done),
        worker_bytes=max(int(observed.get("peak_rss_bytes", 1)) for _, observed in done),
    )


def busy_seconds(observed: Iterable[Mapping[str, Any]]) -> float:
    """For how long processes were at work on units, together; units that one process did at once count once.

    What tells neither its process nor when it was begun counts as it is.
    """
    plain = 0.0
    spans: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for one in observed:
        seconds = float(one.get("seconds", 0.0))
        if "process" in one and "begun" in one:
            spans[(one["host"], one["process"])].append((one["begun"], one["begun"] + seconds))
        else:
            plain += seconds
    return plain + sum(map(_covered, spans.values()))


def processor_seconds(observed: Iterable[Mapping[str, Any]]) -> float | None:
    """Processor time of units; those that one process did at once count once, where they tell where its clock stood.

    None when one does not tell.
    """
    spans: list[dict[str, Any]] = []
    for one in observed:
        if "cpu_seconds" not in one:
            return None
        begun = {"begun": one["cpu_begun"]} if "cpu_begun" in one else {}
        place = {"host": one["host"], "process": one["process"]} if "process" in one else {}
        spans.append({"seconds": one["cpu_seconds"], **begun, **place})
    return busy_seconds(spans)


def _covered(spans: list[tuple[float, float]]) -> float:
    """Length of a union of intervals."""
    covered, reached = 0.0, -math.inf
    for first, last in sorted(spans):
        covered += max(0.0, last - max(first, reached))
        reached = max(reached, last)
    return covered


def _spread(seconds: Sequence[float]) -> float:
    mean = math.fsum(seconds) / len(seconds)
    if not mean:
        return 0.0
    return math.sqrt(math.fsum((one - mean) ** 2 for one in seconds) / len(seconds)) / mean
