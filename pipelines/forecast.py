"""What ingesting whole sources takes, from what their committed units took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from omnimill.config import Config, canonical_json
from omnimill.infra.blocks import units_per_block
from omnimill.infra.dataset import Commit

# What `omnimill bench scale` measured on the driver, 100,000 units on 2 cores: processor time of a block; of a unit,
# with its planning and publishing; memory of a unit with its commit, and of the program by itself.
BLOCK_SECONDS = 0.008
UNIT_SECONDS = 0.0003
UNIT_MEMORY_BYTES = 8_000
DRIVER_BYTES = 400 << 20


class NodeGroup(Config):
    """Machines of one kind. memory_gib: of each."""

    count: int = Field(ge=1)
    cores: int = Field(ge=1)
    gpus: int = Field(0, ge=0)
    memory_gib: float = Field(gt=0)


class Cluster(Config):
    """The machines that an ingestion runs on."""

    nodes: tuple[NodeGroup, ...] = Field(min_length=1)

    @property
    def cores(self) -> int:
        return sum(group.count * group.cores for group in self.nodes)

    @property
    def gpus(self) -> int:
        return sum(group.count * group.gpus for group in self.nodes)

    @property
    def core_bytes(self) -> int:
        """Memory for each core where there is least."""
        return int(min(group.memory_gib / group.cores for group in self.nodes) * 2**30)


class Rate(Config):
    """What one example takes: measured on committed units, or stated.

    core_seconds, gpu_seconds: of work. input_bytes, stored_bytes: read from the source, written to shards.
    commit_bytes: of the manifest, for each unit. worker_bytes: the most that a worker took.
    """

    core_seconds: float = Field(gt=0)
    gpu_seconds: float = Field(0, ge=0)
    input_bytes: float = Field(ge=0)
    stored_bytes: float = Field(ge=0)
    examples_per_unit: float = Field(gt=0)
    commit_bytes: float = Field(600, gt=0)
    worker_bytes: int = Field(1 << 30, gt=0)


class Rates(Config):
    """Stated rates, by the name of the dataset or ``dataset/source``; they go before measured ones."""

    rates: dict[str, Rate]


@dataclass(frozen=True)
class Forecast:
    """What one source takes on a cluster. fits: all cores can have a worker at the memory that workers took."""

    source: str
    examples: int
    units: int
    input_bytes: int
    stored_bytes: int
    manifest_bytes: int
    driver_bytes: int
    core_hours: float
    gpu_hours: float
    hours: float
    bound: str
    fits: bool


def measure(stored: Sequence[tuple[Commit, Mapping[str, Any]]]) -> Rate | None:
    """The rate of committed units of one source; None when no example was written."""
    done = [(commit, observed) for commit, observed in stored if commit.inputs]
    examples = sum(commit.counts.examples_written for commit, _ in done)
    seconds = sum(float(observed.get("seconds", 0.0)) for _, observed in done)
    if not examples or not seconds:
        return None
    return Rate(
        core_seconds=seconds / examples,
        input_bytes=sum(ref.bytes for commit, _ in done for ref in commit.inputs) / examples,
        stored_bytes=sum(shard.bytes for commit, _ in done for shard in commit.shards) / examples,
        examples_per_unit=examples / len(done),
        commit_bytes=sum(len(canonical_json(commit.model_dump(mode="json"))) for commit, _ in done) / len(done),
        worker_bytes=max(int(observed.get("peak_rss_bytes", 1)) for _, observed in done),
    )


def forecast(source: str, examples: int, rate: Rate, cluster: Cluster) -> Forecast:
    """Extrapolate a rate to so many examples.

    Cores and GPUs work at once, each source by itself; the driver hands out blocks of units, one after the other.
    """
    units = max(1, round(examples / rate.examples_per_unit))
    per_block = units_per_block(units, rate.core_seconds * rate.examples_per_unit, cluster.cores)
    blocks = -(-units // per_block)
    core_seconds, gpu_seconds = examples * rate.core_seconds, examples * rate.gpu_seconds
    bounds = {
        "cores": core_seconds / cluster.cores,
        "driver": blocks * BLOCK_SECONDS + units * UNIT_SECONDS,
        "gpus": gpu_seconds / cluster.gpus if cluster.gpus else float("inf") if gpu_seconds else 0.0,
    }
    bound = max(bounds, key=lambda name: bounds[name])
    return Forecast(
        source=source,
        examples=examples,
        units=units,
        input_bytes=round(examples * rate.input_bytes),
        stored_bytes=round(examples * rate.stored_bytes),
        manifest_bytes=round(units * rate.commit_bytes),
        driver_bytes=DRIVER_BYTES + units * UNIT_MEMORY_BYTES,
        core_hours=core_seconds / 3600,
        gpu_hours=gpu_seconds / 3600,
        hours=bounds[bound] / 3600,
        bound=bound,
        fits=rate.worker_bytes <= cluster.core_bytes,
    )


def total(forecasts: Iterable[Forecast]) -> Forecast:
    """All sources one after the other: sums, and the largest driver."""
    rows = list(forecasts)
    return Forecast(
        source="total",
        examples=sum(row.examples for row in rows),
        units=sum(row.units for row in rows),
        input_bytes=sum(row.input_bytes for row in rows),
        stored_bytes=sum(row.stored_bytes for row in rows),
        manifest_bytes=sum(row.manifest_bytes for row in rows),
        driver_bytes=max(row.driver_bytes for row in rows),
        core_hours=sum(row.core_hours for row in rows),
        gpu_hours=sum(row.gpu_hours for row in rows),
        hours=sum(row.hours for row in rows),
        bound="",
        fits=all(row.fits for row in rows),
    )
