"""``ingest``: plan, run what is left to do source by source, check budgets, publish, record."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, redirect_stdout

from omnimill.errors import OmnimillError
from omnimill.infra.dataset import Commit, Counts, Dataset
from omnimill.infra.index import refresh
from omnimill.infra.lineage import command_run
from omnimill.infra.observing import Observer
from omnimill.infra.watchdog import watchdog
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.plan import SourcePlan, describe, plan
from omnimill.pipelines.summary import SOURCE, IngestResult, SourceResult, named_parents, record_run, record_source
from omnimill.pipelines.work import UnitWork
from omnimill.progress import console, progress

_FAULTS_SHOWN = 5


def ingest(
    dag: Dag,
    root: str,
    num_cpus: int | None = None,
    *,
    again: Mapping[str, int] | None = None,
    verify_inputs: bool = False,
) -> IngestResult:
    """Bring the dataset of a DAG up to date and publish its manifest.

    Args:
        root: fsspec URL or path that holds datasets, runs and the tracking store.
        num_cpus: cores of a local Ray; all when None. Ignored on a cluster and inside a session.
        again: units to do again although they are committed, see `plan`.
        verify_inputs: hash all input files again, also those that look as they did when they were read.

    Raises:
        OmnimillError: a source is empty or above its quarantine budget, or units failed. What was committed stays, and
            the same command goes on from there.
    """
    started = time.monotonic()
    dataset = Dataset(root, dag.dataset)
    with command_run(root, "ingest", dag.model_dump(mode="json"), name=f"ingest {dag.dataset}") as run:
        plans = plan(dag, dataset, again, verify_inputs)
        units, todo = sum(len(item.units) for item in plans), sum(len(item.todo) for item in plans)
        console.print(
            f"{dag.dataset}: {units - todo} of {units} units already committed{'' if todo else ', nothing to do'}"
        )
        faults: list[str] = []
        observer = Observer(run.id, "ingest")
        sources = (
            _run(plans, dag, dataset, num_cpus, observer, faults) if todo else [_result(item, []) for item in plans]
        )
        faults += [fault for source in sources if (fault := _over_budget(source))]
        commits = [commit for source in sources for commit in source.commits]
        parents = named_parents(parent for item in plans for parent in item.pipeline.source.parents())
        versions = {name: parent.digest for name, parent in parents.items()}
        digest, manifest = dataset.publish_manifest("examples", commits, versions, current=not faults)
        refresh(dataset, digest, manifest)
        if faults:
            raise OmnimillError(
                "\n".join(faults) + f"\nCommitted units are kept. To see what was quarantined:"
                f"\n  omnimill quarantine show {dag.dataset} --root {root} --manifest {digest}"
            )
        result = IngestResult(dataset, digest, manifest, tuple(sources), time.monotonic() - started)
        record_run(run, result, parents)
        return result


def _run(
    plans: Sequence[SourcePlan],
    dag: Dag,
    dataset: Dataset,
    num_cpus: int | None,
    observer: Observer,
    faults: list[str],
) -> list[SourceResult]:
    # Importing and starting Ray takes seconds: not for a run that has nothing to do.
    from omnimill.infra.ray_session import ray_session  # noqa: PLC0415

    # Ray tells of lost workers on stdout, which is the answer's.
    with redirect_stdout(sys.stderr), ray_session(num_cpus):
        return [_source(item, dag, dataset, observer, faults) if item.todo else _result(item, []) for item in plans]


class _UnitsFailed(OmnimillError):
    """Ends the MLflow run of a source whose faults are told with those of the others."""


def _source(item: SourcePlan, dag: Dag, dataset: Dataset, observer: Observer, faults: list[str]) -> SourceResult:
    """Do the units of one source, as a child of the command's MLflow run."""
    found: list[str] = []
    pipeline = item.pipeline
    title = f"{pipeline.name} of {dataset.name}"
    try:
        with command_run(dataset.root, SOURCE, pipeline.model_dump(mode="json"), title) as run:
            result = _result(item, _run_source(item, dag, dataset, observer, found))
            record_source(run, result)
            if found:
                raise _UnitsFailed("\n".join(found))
    except _UnitsFailed:
        faults += found
    return result


def _run_source(item: SourcePlan, dag: Dag, dataset: Dataset, observer: Observer, faults: list[str]) -> list[Commit]:
    """Do the units of one source; what went wrong is added to `faults`."""
    from omnimill.infra.units import WORKER_TRIES  # noqa: PLC0415
    from omnimill.pipelines.graph import run_units  # noqa: PLC0415

    name, fuse = item.pipeline.name, item.pipeline.max_consecutive_quarantined
    waiting = {unit.id: unit.files[0] if unit.files else unit.id for unit in item.todo}
    commits: list[Commit] = []
    failed: list[str] = []
    in_a_row = 0
    label = f"ingest {name}"
    work = UnitWork(
        pipeline=item.pipeline,
        root=dataset.root,
        name=dataset.name,
        threads=dag.decode_threads,
        memory_bytes=dag.worker_memory_bytes,
        tries=WORKER_TRIES,
        attempts=item.attempts,
    )
    started = time.monotonic()
    with (
        closing(run_units(work, item.todo)) as units,
        progress(label, len(item.todo)) as advance,
        watchdog(label, lambda: list(waiting.values())) as moved,
    ):
        rows = dropped = quarantined = 0
        for done in units:
            moved()
            what = waiting.pop(done.unit.id)
            observer.unit(done, len(waiting))
            if done.commit is None:
                failed.append(f"source {name!r}: unit {done.unit.id} ({what}) failed: {done.error}")
                advance(1)
                continue
            # A unit given up as a whole names no inputs.
            commit = done.commit if done.commit.inputs else item.standing.get(done.unit.id, done.commit)
            commits.append(commit)
            counts = commit.counts
            bad = sum(counts.quarantined.values())
            rows += counts.examples_written
            dropped += sum(counts.records_dropped.values()) + sum(counts.examples_dropped.values())
            quarantined += bad
            speed = f"{rows / max(time.monotonic() - started, 1e-3):.1f}"
            advance(1, rows=rows, rows_per_s=speed, dropped=dropped, quarantined=quarantined)
            in_a_row = in_a_row + bad if bad == counts.records_in else 0
            if fuse is not None and in_a_row >= fuse:
                failed.append(
                    f"source {name!r} stopped: {in_a_row} records in a row were quarantined, "
                    f"max_consecutive_quarantined is {fuse}"
                )
                break
    faults += failed[:_FAULTS_SHOWN]
    if len(failed) > _FAULTS_SHOWN:
        faults.append(f"source {name!r}: {len(failed) - _FAULTS_SHOWN} more units failed")
    return commits


def _result(item: SourcePlan, commits: Sequence[Commit]) -> SourceResult:
    return SourceResult(item.pipeline, (*item.taken, *commits), len(commits))


def _over_budget(source: SourceResult) -> str | None:
    counts, allowed = source.counts, source.pipeline.max_quarantined_share
    if not counts.records_in and source.commits:
        return f"source {describe(source.pipeline)} holds no record at all in {len(source.commits)} units"
    bad = sum(counts.quarantined.values())
    share = bad / max(counts.records_in, 1)
    if share <= allowed:
        return None
    return (
        f"source {source.pipeline.name!r}: {bad} of {counts.records_in} records are quarantined ({share:.1%}), "
        f"max_quarantined_share is {allowed:.1%}: {_reasons(counts)}"
    )


def _reasons(counts: Counts) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in sorted(counts.quarantined.items(), key=lambda item: -item[1]))
