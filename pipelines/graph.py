"""The units of one source on Ray Data: one fused task per unit, commit records as its only output."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import ray

from omnimill.infra.blocks import units_per_block
from omnimill.infra.dataset import Unit
from omnimill.infra.units import Done, run_as_tasks, run_each_alone
from omnimill.pipelines.work import UnitWork


def run_units(work: UnitWork, units: Sequence[Unit], mean_bytes: int = 0) -> Generator[Done, None, None]:
    """Process units on the Ray session at hand, in the order they finish; every unit comes back once.

    Units whose worker died on every try are done by themselves and, when that kills their workers too, with care.

    Args:
        mean_bytes: of input per unit.
    """
    cores = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    per_block = units_per_block(len(units), mean_bytes, cores)
    crashed: Sequence[Unit] = units
    for size in (per_block, 1) if per_block > 1 else (1,):
        units, crashed = crashed, []
        for done in run_as_tasks(units, work, size) if units else ():
            if done.crashed:
                crashed.append(done.unit)
            else:
                yield done
    for done in run_each_alone(crashed, work.carefully):
        yield Done(done.unit, work.abandon(done.unit)) if done.crashed else done
