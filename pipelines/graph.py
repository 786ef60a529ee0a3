"""The Ray Data graph of one source: a block per unit, one fused task per block, commit records as its only output.

Nothing that was read or decoded enters the object store. A task whose worker dies is tried again by Ray; a unit that
kills every worker it is given to is quarantined as a whole.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import ray.data
from ray.util.annotations import RayDeprecationWarning

from omnimill.errors import OmnimillError
from omnimill.infra.dataset import Commit, Dataset, Unit
from omnimill.pipelines.dag import Pipeline
from omnimill.pipelines.process import abandon_unit, process_unit
from omnimill.pipelines.verdicts import Rejection

WORKER_RETRIES = 3


@dataclass(frozen=True)
class Done:
    """A unit that came back: its commit, or what went wrong when it could not be committed."""

    unit: Unit
    commit: Commit | None
    error: str | None = None


def run_units(pipeline: Pipeline, units: Sequence[Unit], dataset: Dataset, threads: int) -> Generator[Done, None, None]:
    """Process units on the Ray session at hand, in the order they finish; every unit comes back once."""
    blocks = ray.data.from_arrow([pa.table({"unit": [unit.model_dump_json()]}) for unit in units])
    # A block is lost only when its worker died on every try; that unit is given up below, the others go on.
    blocks.context.max_errored_blocks = -1
    work = partial(_process_block, pipeline=pipeline, root=dataset.root, name=dataset.name, threads=threads)
    with warnings.catch_warnings():
        # Ray announces the end of `max_retries` here without another way yet to bound retries, which are endless.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        graph = blocks.map_batches(
            work, batch_size=None, batch_format="pyarrow", num_cpus=1, max_retries=WORKER_RETRIES
        )
    waiting = {unit.id: unit for unit in units}
    for row in graph.iter_rows():
        commit = None if row["commit"] is None else Commit.model_validate_json(row["commit"])
        yield Done(waiting.pop(row["unit"]), commit, row["error"])
    message = f"its worker died on each of {1 + WORKER_RETRIES} tries"
    crashed = Rejection("quarantined", "read", "worker_crashed", message)
    for unit in waiting.values():
        commit = abandon_unit(pipeline.source, pipeline.operators, unit, dataset, crashed, tries=1 + WORKER_RETRIES)
        yield Done(unit, commit)


def _process_block(block: pa.Table, pipeline: Pipeline, root: str, name: str, threads: int) -> pa.Table:
    rows = []
    for text in block.column("unit").to_pylist():
        unit = Unit.model_validate_json(text)
        commit = error = None
        try:
            done = process_unit(pipeline.source, pipeline.operators, unit, Dataset(root, name), threads=threads)
            commit = done.model_dump_json()
        except OmnimillError as fault:
            error = str(fault)
        except Exception:  # noqa: BLE001 - goes to the driver, which reports it once all other units are done
            error = traceback.format_exc()
        rows.append({"unit": unit.id, "commit": commit, "error": error})
    schema = pa.schema([("unit", pa.string()), ("commit", pa.string()), ("error", pa.string())])
    return pa.Table.from_pylist(rows, schema)
