"""One step over all shards, on Ray Data: features and keys shard by shard, decisions partition by partition.

Nothing but what is left out of each shard, by digest, comes back to the driver.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import pyarrow as pa
import ray
import ray.data
import ray.exceptions
from ray.util.annotations import RayDeprecationWarning

from omnimill import errors
from omnimill.errors import OmnimillError
from omnimill.infra.blocks import units_per_block
from omnimill.infra.dataset import Dataset
from omnimill.infra.selections import LeftOut
from omnimill.infra.units import WORKER_RETRIES
from omnimill.pipelines.dedup import features
from omnimill.pipelines.dedup.base import GroupStep, KeyedStep, NearStep, RowStep, ScoreStep, Step, Workers
from omnimill.pipelines.dedup.components import cluster
from omnimill.pipelines.dedup.exchange import TASK, WHOLE, count_partitions, spread
from omnimill.pipelines.dedup.stars import spread_cluster
from omnimill.pipelines.dedup.verdicts import leave_out
from omnimill.pipelines.dedup.view import Shard, View

_LEFT_OUT = pa.schema([("shard", pa.uint32()), ("left_out", pa.string())])
_FAULT = re.compile(
    r"^omnimill\.errors\.(?P<kind>OmnimillError|ConfigError|IntegrityError): (?P<message>.*)$", re.MULTILINE
)
# Of shards, what a core reads and measures; decides only how many small ones a task gets.
_BYTES_PER_SECOND = 50e6
# The size in memory of one row of `VERDICTS`.
VERDICT_BYTES = 96


def run_step(view: View, shards: Sequence[Shard], partition_bytes: int) -> dict[int, LeftOut]:
    """Let a step judge the rows of some shards.

    Returns:
        By index, what is left out now of the shards that lose rows by this step.
    """
    step, dataset = view.step, Dataset(view.root, view.dataset)
    by_index = {shard.index: shard for shard in shards}
    with _errors():
        if step.workers() is not None or isinstance(step, ScoreStep):
            _measure(step, shards, dataset)
        if isinstance(step, RowStep):
            return _collect(_blocks(shards).map_batches(partial(_judge, view=view), **TASK))
        if isinstance(step, KeyedStep):
            rows = sum(shard.file.rows for shard in shards)
            partitions = count_partitions(rows * step.keys, step.row_bytes, partition_bytes)
            keyed = _blocks(shards).map_batches(partial(_keyed, view=view), **TASK)
            leave = partial(_leave, step=step, dataset=dataset, shards=by_index)
            if partitions == 1:
                # All in one place: one task decides and stores.
                alone = partial(_decide_alone, step=step, leave=leave)
                return _collect(keyed.repartition(1).map_batches(alone, **TASK))
            parts = keyed.repartition(partitions, keys=["key"])
            if isinstance(step, GroupStep):
                verdicts = parts.map_batches(partial(_decide, step=step), **TASK)
            else:
                assert isinstance(step, NearStep)
                edges = parts.map_batches(partial(_link, step=step), **TASK)
                verdicts = spread_cluster(edges, step.reasons[0], partition_bytes)
            # Far fewer than rows as a rule, so they are counted before they are spread.
            verdicts = verdicts.materialize()
            return _collect(spread(verdicts, ["shard"], VERDICT_BYTES, partition_bytes).map_batches(leave, **TASK))
    return {}


def _measure(step: Step, shards: Sequence[Shard], dataset: Dataset) -> None:
    """Measure the features of shards that have none yet."""
    there = features.measured(dataset, features.measure_of(step))
    todo = [shard for shard in shards if shard.file.digest not in there]
    if not todo:
        return
    workers = step.workers() or Workers(count=_cores())
    size = min(workers.count, len(todo))
    graph = _blocks(todo).map_batches(
        _Measuring,
        fn_constructor_args=(step, dataset),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=size, initial_size=size),
        num_cpus=workers.num_cpus,
        num_gpus=workers.num_gpus or None,
        max_task_retries=WORKER_RETRIES,
        **WHOLE,
    )
    for _ in graph.iter_rows():
        pass


class _Measuring:
    def __init__(self, step: Step, dataset: Dataset) -> None:
        self._dataset, self._measure, self._featurizer = dataset, features.measure_of(step), step.featurizer()

    def __call__(self, block: pa.Table) -> pa.Table:
        for shard in _shards(block):
            features.load(self._dataset, shard.file, self._measure, self._featurizer)
        return block.slice(0, 0)


def _judge(block: pa.Table, view: View) -> pa.Table:
    assert isinstance(view.step, RowStep)
    shards = {shard.index: shard for shard in _shards(block)}
    verdicts = pa.concat_tables(view.step.judge(view.rows(shard)) for shard in shards.values())
    return _leave(verdicts, view.step, Dataset(view.root, view.dataset), shards)


def _keyed(block: pa.Table, view: View) -> pa.Table:
    assert isinstance(view.step, KeyedStep)
    return pa.concat_tables(view.step.keyed(view.rows(shard)) for shard in _shards(block))


def _decide(block: pa.Table, step: GroupStep) -> pa.Table:
    return step.decide(block)


def _link(block: pa.Table, step: NearStep) -> pa.Table:
    return step.link(block)


def _leave(block: pa.Table, step: Step, dataset: Dataset, shards: Mapping[int, Shard]) -> pa.Table:
    rows = [
        {"shard": index, "left_out": left.model_dump_json()}
        for index, left in leave_out(dataset, step.step, block, shards).items()
    ]
    return pa.Table.from_pylist(rows, _LEFT_OUT)


def _decide_alone(block: pa.Table, step: KeyedStep, leave: Callable[[pa.Table], pa.Table]) -> pa.Table:
    if isinstance(step, GroupStep):
        return leave(step.decide(block))
    assert isinstance(step, NearStep)
    return leave(cluster(step.link(block), step.reasons[0]))


def _blocks(shards: Sequence[Shard]) -> ray.data.Dataset:
    """A shard to a block; several where they are many and small."""
    seconds = sum(shard.file.bytes for shard in shards) / max(len(shards), 1) / _BYTES_PER_SECOND
    size = units_per_block(len(shards), seconds, _cores())
    texts = [shard.model_dump_json() for shard in shards]
    return ray.data.from_arrow([pa.table({"shard": texts[i : i + size]}) for i in range(0, len(texts), size)])


def _cores() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]


def _shards(block: pa.Table) -> list[Shard]:
    return [Shard.model_validate_json(text) for text in block.column("shard").to_pylist()]


def _collect(graph: ray.data.Dataset) -> dict[int, LeftOut]:
    return {row["shard"]: LeftOut.model_validate_json(row["left_out"]) for row in graph.iter_rows()}


@contextmanager
def _errors() -> Iterator[None]:
    """Says what a task raised, and bounds retries without Ray's announcement that their option will change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        try:
            yield
        except ray.exceptions.RayError as error:
            # Of what a task raised Ray Data brings the traceback, not the object.
            found = _FAULT.search(str(error))
            if found is None:
                raise OmnimillError(f"a worker failed:\n{error}") from None
            raise getattr(errors, found["kind"])(found["message"]) from None
