"""The units of one source on Ray Data: one fused task per unit, commit records as its only output."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from omnimill.infra.dataset import Unit
from omnimill.infra.units import Done, run_as_tasks, run_each_alone
from omnimill.pipelines.work import UnitWork


def run_units(work: UnitWork, units: Sequence[Unit]) -> Generator[Done, None, None]:
    """Process units on the Ray session at hand, in the order they finish; every unit comes back once.

    Units whose worker died on every try are done with care when all others are done.
    """
    crashed: list[Unit] = []
    for done in run_as_tasks(units, work):
        if done.crashed:
            crashed.append(done.unit)
        else:
            yield done
    for done in run_each_alone(crashed, work.carefully):
        yield Done(done.unit, work.abandon(done.unit)) if done.crashed else done
