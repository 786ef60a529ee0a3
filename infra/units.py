"""Units on Ray Data: a block of one or a few units, worked on by one task or actor from read to commit.

Commit records are all that comes back; nothing that was read or decoded enters the object store. A worker that dies is
replaced and its unit tried again, a bounded number of times.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning

from omnimill.errors import OmnimillError
from omnimill.infra.dataset import Commit, Unit

WORKER_RETRIES = 3
WORKER_TRIES = 1 + WORKER_RETRIES

Work = Callable[[Unit], Commit]

_BLOCK = pa.schema([("unit", pa.string()), ("commit", pa.string()), ("error", pa.string())])


@dataclass(frozen=True)
class Done:
    """A unit that came back: its commit; or what was raised (`error`); or neither: its worker died on every try."""

    unit: Unit
    commit: Commit | None
    error: str | None = None

    @property
    def crashed(self) -> bool:
        return self.commit is None and self.error is None


def run_as_tasks(units: Sequence[Unit], work: Work, per_block: int = 1) -> Generator[Done, None, None]:
    """Do units as Ray tasks of one core, in the order they finish; every unit comes back once.

    Args:
        per_block: units that a task does one after the other. They share its fate: when its worker dies on both of its
            two tries, none of them comes back with a commit, although some may have been committed.
    """
    with _bounded_retries():
        graph = _blocks(units, per_block).map_batches(
            partial(_do_block, work=work),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1,
            max_retries=WORKER_RETRIES if per_block == 1 else 1,
        )
    yield from _collect(units, graph)


def run_on_actors(
    units: Sequence[Unit], make_work: Callable[[], Work], actors: int, num_cpus: float, num_gpus: float
) -> Generator[Done, None, None]:
    """Do units on a pool of actors, in the order they finish; every unit comes back once.

    Args:
        units: what to do.
        make_work: called once on every actor, for what is costly to set up.
        actors: most actors at work at once.
        num_cpus, num_gpus: of each.
    """
    size = min(actors, len(units))
    with _bounded_retries():
        graph = _blocks(units).map_batches(
            _Actor,
            fn_constructor_args=(make_work,),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=size, initial_size=size),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=num_cpus,
            num_gpus=num_gpus or None,
            max_task_retries=WORKER_RETRIES,
        )
    yield from _collect(units, graph)


def run_each_alone(units: Sequence[Unit], work: Work) -> Generator[Done, None, None]:
    """Do units that killed their workers as plain Ray tasks: unlike Ray Data, these tell a death from another fault."""
    do = ray.remote(num_cpus=1, max_retries=WORKER_RETRIES)(_do_unit)
    waiting = {do.remote(unit, work): unit for unit in units}
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        unit = waiting.pop(ready)
        try:
            yield _done(unit, ray.get(ready))
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError):
            yield Done(unit, None)
        except ray.exceptions.RayError as fault:
            yield Done(unit, None, str(fault))


@contextmanager
def _bounded_retries() -> Iterator[None]:
    """Ray announces the end of the retry options without another way yet to bound retries, which are endless."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


def _blocks(units: Sequence[Unit], per_block: int = 1) -> ray.data.Dataset:
    texts = [unit.model_dump_json() for unit in units]
    tables = [pa.table({"unit": texts[start : start + per_block]}) for start in range(0, len(texts), per_block)]
    blocks = ray.data.from_arrow(tables)
    # A block is lost only when its worker died on every try; the other units go on.
    blocks.context.max_errored_blocks = -1
    return blocks


def _collect(units: Sequence[Unit], graph: ray.data.Dataset) -> Generator[Done, None, None]:
    waiting = {unit.id: unit for unit in units}
    for row in graph.iter_rows():
        yield _done(waiting.pop(row["unit"]), row)
    for unit in waiting.values():
        yield Done(unit, None)


class _Actor:
    def __init__(self, make_work: Callable[[], Work]) -> None:
        self._work = make_work()

    def __call__(self, block: pa.Table) -> pa.Table:
        return _do_block(block, self._work)


def _do_block(block: pa.Table, work: Work) -> pa.Table:
    units = map(Unit.model_validate_json, block.column("unit").to_pylist())
    return pa.Table.from_pylist([_do_unit(unit, work) for unit in units], _BLOCK)


def _do_unit(unit: Unit, work: Work) -> dict[str, str | None]:
    commit = error = None
    try:
        commit = work(unit).model_dump_json()
    except OmnimillError as fault:
        error = str(fault)
    except Exception:  # noqa: BLE001 - goes to the driver, which reports it once all other units are done
        error = traceback.format_exc()
    return {"unit": unit.id, "commit": commit, "error": error}


def _done(unit: Unit, row: Mapping[str, Any]) -> Done:
    commit = None if row["commit"] is None else Commit.model_validate_json(row["commit"])
    return Done(unit, commit, row["error"])
