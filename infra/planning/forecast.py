"""How long whole sources take on a cluster, and what that costs, from what one example takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from omnimill.errors import ConfigError
from omnimill.infra.blocks import units_per_block
from omnimill.infra.planning.machines import HOURS_OF_A_MONTH, Cluster, Stage
from omnimill.infra.planning.rates import Rate, TrainRate

# What `omnimill bench scale` measured on the driver, 100,000 units on 2 cores: processor time of a block; of a unit,
# with its planning and publishing; memory of a unit with its commit, and of the program by itself.
BLOCK_SECONDS = 0.008
UNIT_SECONDS = 0.0003
UNIT_MEMORY_BYTES = 8_000
DRIVER_BYTES = 400 << 20
# Of Ray's object store, where only units and their commit records go (`omnimill.infra.units`): what the two tables of a
# block take pickled besides their texts, and a unit's texts besides its commit.
BLOCK_OBJECT_BYTES = 1_200
UNIT_OBJECT_BYTES = 500
_TERA = 1e12


@dataclass(frozen=True)
class Forecast:
    """What one source takes at one stage.

    object_store_bytes: of the object store of the driver's node. writes: files. hours: by what `bound` names. slots:
    cores or GPUs that units are done on, of all machines; unit_seconds: that a unit has one of them. fits: all cores
    can have a worker at the memory that workers took.
    """

    source: str
    stage: Stage
    examples: int
    units: int
    input_bytes: int
    stored_bytes: int
    manifest_bytes: int
    driver_bytes: int
    object_store_bytes: int
    writes: int
    core_hours: float
    gpu_hours: float
    hours: float
    bound: str
    slots: int
    unit_seconds: float
    fits: bool


def forecast(source: str, stage: Stage, examples: int, rate: Rate, cluster: Cluster) -> Forecast:
    """Extrapolate a rate to so many examples.

    Cores, GPUs and network work at once, each source by itself; the driver hands out blocks of units, one after the
    other.

    Raises:
        ConfigError: no node of the cluster is there for the stage, or it takes GPUs and none has one.
    """
    pool = cluster.of(stage)
    if not pool.nodes:
        raise ConfigError(f"no group of nodes of the cluster has the stage {stage}")
    if rate.gpu_seconds and not pool.gpus:
        raise ConfigError(f"{source} takes GPUs to {stage}, and no node of the cluster that has this stage has one")
    units = max(1, round(examples / rate.examples_per_unit))
    blocks = -(-units // units_per_block(units, rate.unit_seconds, pool.cores))
    core_seconds, gpu_seconds = examples * rate.core_seconds, examples * rate.gpu_seconds
    moved = examples * (rate.input_bytes + rate.stored_bytes)
    bounds = {
        "cores": _rounds(units, pool.cores) * core_seconds / units,
        "driver": blocks * BLOCK_SECONDS + units * UNIT_SECONDS,
        "gpus": _rounds(units, pool.gpus) * gpu_seconds / units if gpu_seconds else 0.0,
        "network": moved / pool.network_bytes if pool.network_bytes else 0.0,
    }
    bound = max(bounds, key=lambda name: bounds[name])
    slots, own = (pool.gpus, gpu_seconds) if bound == "gpus" else (pool.cores, core_seconds)
    # What all slots share makes the units of those that have one longer.
    unit_seconds = own / units if bound in ("cores", "gpus") else bounds[bound] * min(slots, units) / units
    return Forecast(
        source=source,
        stage=stage,
        examples=examples,
        units=units,
        input_bytes=round(examples * rate.input_bytes),
        stored_bytes=round(examples * rate.stored_bytes),
        manifest_bytes=round(units * rate.commit_bytes),
        driver_bytes=DRIVER_BYTES + units * UNIT_MEMORY_BYTES,
        object_store_bytes=round(blocks * BLOCK_OBJECT_BYTES + units * (UNIT_OBJECT_BYTES + rate.commit_bytes)),
        writes=round(units * rate.files_per_unit),
        core_hours=core_seconds / 3600,
        gpu_hours=gpu_seconds / 3600,
        hours=bounds[bound] / 3600,
        bound=bound,
        slots=slots,
        unit_seconds=unit_seconds,
        fits=rate.worker_bytes <= pool.core_bytes,
    )


def _rounds(units: int, slots: int) -> float:
    """How many units the busiest slot does: whole ones while they are few, a share when they are many."""
    return float(-(-units // slots)) if units < 10 * slots else units / slots


def forecast_training(rate: TrainRate, tokens_per_second: float, cluster: Cluster) -> Forecast:
    """Extrapolate what a worker trains on in a second to all tokens and as many workers as the cluster holds.

    Args:
        tokens_per_second: of a worker.

    Raises:
        ConfigError: no node of the cluster is there for training, or holds no worker.
    """
    pool = cluster.of("train")
    workers = sum(
        group.count
        * int(min(group.cores / rate.num_cpus, group.gpus / rate.num_gpus if rate.num_gpus else group.cores))
        for group in pool.nodes
    )
    if not workers:
        raise ConfigError(
            f"no node of the cluster that has the stage train holds a worker of {rate.num_cpus:g} cores and "
            f"{rate.num_gpus:g} GPUs"
        )
    seconds = rate.tokens / tokens_per_second
    return Forecast(
        source="training",
        stage="train",
        examples=0,
        units=workers,
        input_bytes=0,
        stored_bytes=round(rate.checkpoint_bytes),
        manifest_bytes=0,
        driver_bytes=DRIVER_BYTES,
        object_store_bytes=0,
        writes=0,
        core_hours=seconds * rate.num_cpus / 3600,
        gpu_hours=seconds * rate.num_gpus / 3600,
        hours=seconds / workers / 3600,
        bound="gpus" if rate.num_gpus else "cores",
        slots=workers,
        unit_seconds=seconds / workers,
        fits=True,
    )


def total(forecasts: Iterable[Forecast]) -> Forecast:
    """All sources of all stages one after the other: sums, and the largest driver."""
    rows = list(forecasts)
    worst = max(rows, key=lambda row: row.hours)
    return replace(
        worst,
        source="total",
        examples=sum(row.examples for row in rows if row.stage == rows[0].stage),
        units=sum(row.units for row in rows if row.stage != "train"),
        input_bytes=sum(row.input_bytes for row in rows),
        stored_bytes=sum(row.stored_bytes for row in rows),
        manifest_bytes=sum(row.manifest_bytes for row in rows),
        driver_bytes=max(row.driver_bytes for row in rows),
        object_store_bytes=max(row.object_store_bytes for row in rows),
        writes=sum(row.writes for row in rows),
        core_hours=sum(row.core_hours for row in rows),
        gpu_hours=sum(row.gpu_hours for row in rows),
        hours=sum(row.hours for row in rows),
        bound=f"{worst.source} {worst.stage}" if len(rows) > 1 else worst.bound,
        fits=all(row.fits for row in rows),
    )


@dataclass(frozen=True)
class Costs:
    """Money, in the cluster's currency; None where a price that it takes is not stated.

    compute: by stage. storage: of what is stored, for so many months. total: of all that has a price.
    """

    compute: dict[str, float | None]
    storage: float | None
    months: float
    writes: float | None
    egress: float | None

    @property
    def total(self) -> float:
        found = (*self.compute.values(), self.storage, self.writes, self.egress)
        return sum(cost for cost in found if cost is not None)


def costs(forecasts: Sequence[Forecast], cluster: Cluster) -> Costs:
    """What the rows cost on a cluster: its machines for as long as each stage lasts, store and transfer."""
    hours: dict[Stage, float] = {}
    for row in forecasts:
        hours[row.stage] = hours.get(row.stage, 0.0) + row.hours
    prices = {stage: cluster.of(stage).price_per_hour for stage in hours}
    months = cluster.storage.months or sum(hours.values()) / HOURS_OF_A_MONTH
    stored = sum(row.stored_bytes + row.manifest_bytes for row in forecasts) / _TERA
    raw = sum(row.input_bytes for row in forecasts if row.stage == "ingest") / _TERA
    return Costs(
        compute={stage: _times(prices[stage], hours[stage]) for stage in hours},
        storage=_times(cluster.storage.price_per_tb_month, stored * months),
        months=months,
        writes=_times(cluster.storage.price_per_million_writes, sum(row.writes for row in forecasts) / 1e6),
        egress=_times(cluster.egress.price_per_tb, raw),
    )


def _times(price: float | None, amount: float) -> float | None:
    return None if price is None else price * amount
