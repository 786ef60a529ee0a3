"""The units of one source on Ray Data: fused tasks of one or a few units, commit records as their only output."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence

import ray

from omnimill.infra.blocks import probes, units_per_block
from omnimill.infra.dataset import Unit
from omnimill.infra.done import Done
from omnimill.infra.units import run_as_tasks, run_each_alone
from omnimill.pipelines.work import UnitWork


def run_units(work: UnitWork, units: Sequence[Unit]) -> Generator[Done, None, None]:
    """Process units on the Ray session at hand, in the order they finish; every unit comes back once.

    The first units show whether they are so small that several should share a block. Units of a block that died are
    done by themselves; those whose own worker died on every try are done with care.
    """
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
    first = probes(len(units), cores)
    crashed: list[Unit] = []
    started = time.monotonic()
    yield from _survivors(run_as_tasks(units[:first], work), crashed)
    if rest := units[first:]:
        unit_seconds = (time.monotonic() - started) * cores / first
        per_block = units_per_block(len(rest), unit_seconds, cores)
        of_blocks: list[Unit] = []
        yield from _survivors(run_as_tasks(rest, work, per_block), of_blocks)
        if of_blocks and per_block > 1:
            yield from _survivors(run_as_tasks(of_blocks, work), crashed)
        else:
            crashed += of_blocks
    for done in run_each_alone(crashed, work.carefully):
        yield Done(done.unit, work.abandon(done.unit)) if done.crashed else done


def _survivors(done: Generator[Done, None, None], crashed: list[Unit]) -> Generator[Done, None, None]:
    """Units that came back; the others are added to `crashed`."""
    for one in done:
        if one.crashed:
            crashed.append(one.unit)
        else:
            yield one
