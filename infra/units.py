"""Units on Ray Data: a block of one or a few units, worked on by one task or actor from read to commit.

Commit records are all that comes back; nothing that was read or decoded enters the object store. A worker that dies is
replaced and its unit tried again, a bounded number of times.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning

from omnimill.infra.blocks import sized_units_per_block
from omnimill.infra.dataset import Commit, Unit
from omnimill.infra.done import Done
from omnimill.infra.execution import Execution

WORKER_RETRIES = 3
WORKER_TRIES = 1 + WORKER_RETRIES
# Blocks that an actor works on at once, so that one is begun while another ends.
ACTOR_BLOCKS = 2

Work = Callable[[Unit], Commit]
# Of an actor: a few units at a time, as many of them at work at once as it likes; all come back. Called by several
# threads.
ManyWork = Callable[[Sequence[Unit]], Iterable[Done]]

_BLOCK = pa.schema([("unit", pa.string()), ("commit", pa.string()), ("error", pa.string()), ("observed", pa.string())])


@dataclass(frozen=True)
class Pool:
    """Actors that work on units.

    fewest, most: how many; there are more as long as work is waiting and the cluster has room.
    num_cpus, num_gpus: of each; GPUs may be shared, as fractions.
    """

    fewest: int
    most: int
    num_cpus: float
    num_gpus: float = 0.0


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
    units: Sequence[Unit], make_work: Callable[[], ManyWork], pool: Pool, unit_bytes: float = 0.0
) -> Generator[Done, None, None]:
    """Do units on a pool of actors, in the order they finish; every unit comes back once.

    Small units share a block. When an actor dies on every try of a block of several, its units are done one by one.

    Args:
        units: what to do.
        make_work: called once on every actor, for what is costly to set up.
        pool: the actors.
        unit_bytes: size of a unit, on average.
    """
    per_block = sized_units_per_block(len(units), unit_bytes, pool.most)
    crashed: list[Unit] = []
    for done in _on_actors(units, make_work, pool, per_block):
        if done.crashed and per_block > 1:
            crashed.append(done.unit)
        else:
            yield done
    if crashed:
        yield from _on_actors(crashed, make_work, pool, 1)


def _on_actors(
    units: Sequence[Unit], make_work: Callable[[], ManyWork], pool: Pool, per_block: int
) -> Generator[Done, None, None]:
    most = max(1, min(pool.most, -(-len(units) // per_block)))
    fewest = min(pool.fewest, most)
    with _bounded_retries():
        graph = _blocks(units, per_block).map_batches(
            _Actor,
            fn_constructor_args=(make_work,),
            compute=ray.data.ActorPoolStrategy(
                min_size=fewest,
                max_size=most,
                initial_size=max(fewest, min(most, _room_for(pool))),
                enable_true_multi_threading=True,
            ),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus or None,
            max_concurrency=ACTOR_BLOCKS,
            max_task_retries=WORKER_RETRIES,
        )
    yield from _collect(units, graph)


def _room_for(pool: Pool) -> int:
    """Actors that the cluster could hold now if nothing else ran on it."""
    has = ray.cluster_resources()  # type: ignore[no-untyped-call]
    needs = {"CPU": pool.num_cpus, "GPU": pool.num_gpus}
    return min(int(has.get(name, 0.0) / need) for name, need in needs.items() if need)


def run_each_alone(units: Sequence[Unit], work: Work) -> Generator[Done, None, None]:
    """Do units that killed their workers as plain Ray tasks: unlike Ray Data, these tell a death from another fault."""
    do = ray.remote(num_cpus=1, max_retries=WORKER_RETRIES)(_do_unit)
    waiting = {do.remote(unit, work): unit for unit in units}
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        unit = waiting.pop(ready)
        try:
            yield _from_row(unit, ray.get(ready))
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
        yield _from_row(waiting.pop(row["unit"]), row)
    for unit in waiting.values():
        yield Done(unit, None)


class _Actor:
    def __init__(self, make_work: Callable[[], ManyWork]) -> None:
        self._work = make_work()

    def __call__(self, block: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([_row(done) for done in self._work(_units(block))], _BLOCK)


def _do_block(block: pa.Table, work: Work) -> pa.Table:
    return pa.Table.from_pylist([_do_unit(unit, work) for unit in _units(block)], _BLOCK)


def _units(block: pa.Table) -> list[Unit]:
    return list(map(Unit.model_validate_json, block.column("unit").to_pylist()))


def _do_unit(unit: Unit, work: Work) -> dict[str, str | None]:
    execution = Execution()
    try:
        return _row(Done(unit, work(unit), observed=execution.told()))
    except Exception as fault:  # noqa: BLE001 - goes to the driver, which reports it once all other units are done
        return _row(Done.failed(unit, fault))


def _row(done: Done) -> dict[str, str | None]:
    commit = None if done.commit is None else done.commit.model_dump_json()
    return {"unit": done.unit.id, "commit": commit, "error": done.error, "observed": json.dumps(dict(done.observed))}


def _from_row(unit: Unit, row: Mapping[str, Any]) -> Done:
    commit = None if row["commit"] is None else Commit.model_validate_json(row["commit"])
    return Done(unit, commit, row["error"], json.loads(row["observed"]))
