"""The machines that work is planned for, and what they and a store cost; all of it stated by who asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from omnimill.config import Config

Stage = Literal["ingest", "dedup", "tokenize", "train"]
STAGES: tuple[Stage, ...] = ("ingest", "dedup", "tokenize", "train")
HOURS_OF_A_MONTH = 730.0


class NodeGroup(Config):
    """Machines of one kind.

    memory_gib, network_gbit: of each machine; no network sets no bound. price_per_hour: of each machine; no price is
    told as no cost. stages: what they are there for; a stage has all groups that name it, for as long as it lasts.
    """

    count: int = Field(ge=1)
    cores: int = Field(ge=1)
    gpus: int = Field(0, ge=0)
    memory_gib: float = Field(gt=0)
    network_gbit: float | None = Field(None, gt=0)
    price_per_hour: float | None = Field(None, ge=0)
    stages: tuple[Stage, ...] = Field(STAGES, min_length=1)


class Storage(Config):
    """What a store takes: for each terabyte (10^12 bytes) and month, and for a million files written.

    months: how long everything is kept; as long as the work takes when not given.
    """

    price_per_tb_month: float | None = Field(None, ge=0)
    price_per_million_writes: float | None = Field(None, ge=0)
    months: float | None = Field(None, gt=0)


class Egress(Config):
    """What it takes to read raw data from where they lie, for each terabyte (10^12 bytes)."""

    price_per_tb: float | None = Field(None, ge=0)


class Cluster(Config):
    """The machines, and prices in one currency."""

    nodes: tuple[NodeGroup, ...] = Field(min_length=1)
    currency: str = ""
    storage: Storage = Storage()
    egress: Egress = Egress()

    @model_validator(mode="after")
    def _has_machines_for_ingestion(self) -> Cluster:
        if not self.of("ingest").nodes:
            raise ValueError("no group of nodes has the stage ingest")
        return self

    @property
    def everything(self) -> Machines:
        return Machines(nodes=self.nodes)

    def of(self, stage: Stage) -> Machines:
        """The machines of a stage."""
        return Machines(nodes=tuple(group for group in self.nodes if stage in group.stages))


class Machines(Config):
    """The machines of one stage; there may be none."""

    nodes: tuple[NodeGroup, ...]

    @property
    def count(self) -> int:
        return sum(group.count for group in self.nodes)

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

    @property
    def network_bytes(self) -> float | None:
        """Bytes a second over all machines; None when it is not stated for every one of them."""
        return _sum([None if group.network_gbit is None else group.count * group.network_gbit for group in self.nodes])

    @property
    def price_per_hour(self) -> float | None:
        """Of all machines; None when one has no price."""
        prices = [None if group.price_per_hour is None else group.count * group.price_per_hour for group in self.nodes]
        return _total(prices)


def _sum(gbit: Sequence[float | None]) -> float | None:
    found = _total(gbit)
    return None if found is None else found * 1e9 / 8


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
