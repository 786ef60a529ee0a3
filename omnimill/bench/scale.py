"""What a hundred thousand units cost the driver: listing, planning, publishing, and handing them out one by one.

The units are tiny and their commits made up, so that nothing but the bookkeeping is measured. The hand-out runs on a
local Ray with a share of the units, in blocks of the size that all of them would get.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from omnimill.bench.contest import run_alone
from omnimill.bench.metric import OURS, Metric
from omnimill.config import canonical_json
from omnimill.infra.dataset import Commit, Counts, Dataset, FileRef, InputRef, Unit
from omnimill.pipelines.dag import Dag, Pipeline
from omnimill.pipelines.plan import plan
from omnimill.pipelines.process import input_marks
from omnimill.pipelines.recipe import recipe_digest
from omnimill.pipelines.sources.jsonl import JsonlSource

UNITS = 100_000
HANDED_OUT = 2_000
ALONE = 500
FILES_PER_FOLDER = 1000
_MIB = 1 << 20


def run(units: int = UNITS, handed_out: int = HANDED_OUT, alone: int = ALONE) -> list[Metric]:
    """Measure all steps, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), units)
        listed = run_alone(partial(_list, folder))
        planned = run_alone(partial(_plan, folder))
        published = run_alone(partial(_publish, folder))
        opened = run_alone(partial(_open, folder))
        size = (Path(folder) / "units" / "manifest.json").stat().st_size
    shared = run_alone(partial(_hand_out, handed_out, _share(units, 2)))
    single = run_alone(partial(_hand_out, alone, 1))
    return [
        _metric("list", "s", listed.seconds),
        _metric("plan", "s", planned.seconds),
        _metric("plan_memory", "MiB", planned.peak_bytes / _MIB),
        _metric("publish", "s", published.seconds),
        _metric("publish_memory", "MiB", published.peak_bytes / _MIB),
        _metric("open_manifest", "s", opened.seconds),
        _metric("manifest", "MiB", size / _MIB),
        Metric.of(
            "scale_driver_time_per_unit",
            "ms",
            {OURS: shared.value * 1e3 / handed_out, "a_block_for_each": single.value * 1e3 / alone},
            best="smallest",
        ),
    ]


def _metric(name: str, unit: str, value: float) -> Metric:
    return Metric.of(f"scale_{name}", unit, {OURS: value}, best="smallest")


def _share(units: int, cores: int) -> int:
    from omnimill.infra.blocks import units_per_block  # noqa: PLC0415

    return units_per_block(units, 0.01, cores)


def _source(folder: str) -> JsonlSource:
    return JsonlSource(name="lines", type="jsonl", path=f"{folder}/in")


def _dag(folder: str) -> Dag:
    return Dag(dataset="units", sources=(Pipeline(source=_source(folder)),))


def _write(folder: Path, units: int) -> None:
    """Tiny files, and a commit for each as if it had been read."""
    for start in range(0, units, FILES_PER_FOLDER):
        (part := folder / "in" / f"{start:07d}").mkdir(parents=True)
        for i in range(start, min(start + FILES_PER_FOLDER, units)):
            (part / f"{i:07d}.jsonl").write_bytes(b'{"text":"x"}\n')
    source = _source(str(folder))
    recipe = recipe_digest(source, ())
    (commits := folder / "units" / "commits").mkdir(parents=True)
    listed = list(source.units())
    marks = input_marks(unit.files[0] for unit in listed)
    for unit in listed:
        uri = unit.files[0]
        commit = Commit(
            unit=unit.id,
            source=source.name,
            recipe=recipe,
            inputs=(InputRef(uri=uri, digest="0" * 64, bytes=13),),
            shards=(FileRef(digest="1" * 64, rows=1, bytes=3000),),
            counts=Counts(records_in=1, kept=1, examples_written=1),
        )
        observed = {"inputs": {uri: marks[uri]}, "seconds": 0.01, "host": "host", "peak_rss_bytes": 1 << 28}
        body = canonical_json({"commit": commit.model_dump(mode="json"), "observed": observed})
        (commits / f"{commit.unit}.{commit.state}.json").write_bytes(body)


def _list(folder: str) -> Callable[[], int]:
    source = _source(folder)
    return lambda: sum(1 for _ in source.units())


def _plan(folder: str) -> Callable[[], int]:
    dag, dataset = _dag(folder), Dataset(folder, "units")

    def work() -> int:
        (found,) = plan(dag, dataset)
        assert not found.todo
        return len(found.taken)

    return work


def _publish(folder: str) -> Callable[[], str]:
    dataset = Dataset(folder, "units")
    commits = [commit for commit, _ in dataset.commits()]
    return lambda: dataset.publish_manifest("examples", commits)[0]


def _open(folder: str) -> Callable[[], int]:
    dataset = Dataset(folder, "units")
    return lambda: len(dataset.manifest()[1].commits)


def _hand_out(units: int, per_block: int) -> Callable[[], float]:
    """Processor seconds of the driver for so many units that do nothing."""
    from omnimill.infra.ray_session import ray_session  # noqa: PLC0415
    from omnimill.infra.units import run_as_tasks  # noqa: PLC0415

    made = [Unit(source="s", files=(f"s3://bucket/folder/part-{i:06d}.jsonl",)) for i in range(units)]

    def work() -> float:
        with ray_session(num_cpus=2, log_to_driver=False):
            for _ in run_as_tasks(made[: 2 * per_block], _nothing, per_block):
                pass  # workers have started
            started = time.process_time()
            done = sum(1 for _ in run_as_tasks(made, _nothing, per_block))
            assert done == units
            return time.process_time() - started

    return work


def _nothing(unit: Unit) -> Commit:
    return Commit(unit=unit.id, source=unit.source, recipe="", inputs=())
