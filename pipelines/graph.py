"""The units of one source on Ray Data: one fused task per unit, commit records as its only output."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial

from omnimill.infra.dataset import Commit, Dataset, Unit
from omnimill.infra.units import WORKER_TRIES, Done, run_as_tasks
from omnimill.pipelines.dag import Pipeline
from omnimill.pipelines.process import abandon_unit, process_unit
from omnimill.pipelines.verdicts import Rejection


def run_units(pipeline: Pipeline, units: Sequence[Unit], dataset: Dataset, threads: int) -> Generator[Done, None, None]:
    """Process units on the Ray session at hand, in the order they finish; every unit comes back once.

    A unit that kills every worker it is given to is quarantined as a whole.
    """
    work = partial(_process, pipeline=pipeline, root=dataset.root, name=dataset.name, threads=threads)
    for done in run_as_tasks(units, work):
        yield _abandoned(pipeline, done.unit, dataset) if done.crashed else done


def _process(unit: Unit, pipeline: Pipeline, root: str, name: str, threads: int) -> Commit:
    return process_unit(pipeline.source, pipeline.operators, unit, Dataset(root, name), threads=threads)


def _abandoned(pipeline: Pipeline, unit: Unit, dataset: Dataset) -> Done:
    message = f"its worker died on each of {WORKER_TRIES} tries"
    crashed = Rejection("quarantined", "read", "worker_crashed", message)
    return Done(unit, abandon_unit(pipeline.source, pipeline.operators, unit, dataset, crashed, tries=WORKER_TRIES))
