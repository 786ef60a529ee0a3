"""What a file, URL, example, domain, licence or source ended up in, to the step. Answers are plain JSON values.

Datasets and runs answer from indexes, manifests and MLflow (``omnimill.infra.trace``), the steps from the sampler and
the plans of runs (``omnimill.training.lineage.sightings``). What is exact is told from what is expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from mlflow.entities import Run

from omnimill.errors import OmnimillError
from omnimill.infra import lineage, storage
from omnimill.infra.dataset import Commit, FileRef
from omnimill.infra.queries import Query, parse_query
from omnimill.infra.trace import (
    Catalog,
    Rows,
    Version,
    count_rows,
    describe_shard,
    find_derived,
    find_rejections,
    find_rows,
    find_tokens,
)
from omnimill.rng import Int64s
from omnimill.training.checkpoints.checkpoint import RECORD, CheckpointRecord, read_record
from omnimill.training.lineage.sightings import Sightings

# Up to so many rows in so many shards are looked up one by one; of more, shards are counted.
_MOST_ROWS, _MOST_SHARDS = 20_000, 128
# Steps of single streams that are planned again to say when rows were seen: a few seconds.
_MOST_STEPS = 20_000


def impact(root: str, text: str, steps: bool = False) -> dict[str, Any]:
    """Where a file, URL, content digest or example id went; or all of a domain, licence or source.

    Args:
        text: see `omnimill.infra.queries.parse_query`.
        steps: say at which steps rows were seen, however long that takes.

    Returns:
        ``{"query", "exact", "examples_count", "examples": [...], "shards": [...], "rejected": [...], "runs": [{"run",
        "name", "steps", "checkpoints": [{"checkpoint", "step", "times_seen", "exact", "tasks", "made_of_it"}]}]}``;
        `made_of_it`: checkpoints of runs that started from it, and merged ones, see `Catalog.made_of_weights`; `steps`
        count from 0, and are null where there are too many rows to tell them in seconds. Where `exact` is false,
        `examples` is empty and `times_seen` what is expected from how often each task was drawn.

    Raises:
        OmnimillError: nothing recorded under the root knows the query.
    """
    catalog, query = Catalog(root), parse_query(text)
    counted = [] if query.kind == "value" else count_rows(catalog, query)
    many = len(counted) > _MOST_SHARDS or sum(count for *_, count in counted) > _MOST_ROWS
    if many and not steps:
        return _of_many(catalog, query, counted)
    named = find_rows(catalog, query)
    examples = list({rows.key: rows for rows in [*named, *find_derived(catalog, named)]}.values())
    rejected = find_rejections(catalog, query)
    if not examples and not rejected:
        raise OmnimillError(f"{text}: no dataset under {root} read it (looked for its path, its content and as an id)")
    tokens = find_tokens(catalog, examples)
    ids = sorted({id_ for rows in examples for id_ in rows.ids})
    return {
        "query": text,
        "exact": True,
        "examples_count": len(ids),
        "examples": [{"id": id_} for id_ in ids],
        "shards": [describe_shard(rows) for rows in (*examples, *tokens)],
        "rejected": [
            {
                "dataset": one.version.dataset.name,
                "verdict": one.verdict,
                "key": one.key,
                "operator": one.operator,
                "reason": one.reason,
            }
            for one in rejected
        ],
        "runs": [_run_impact(catalog, run, _by_shard(tokens), steps) for run in _runs(catalog, tokens)],
    }


def _by_shard(tokens: Iterable[Rows]) -> dict[str, Int64s]:
    found: dict[str, Int64s] = {}
    for rows in tokens:
        before = found.get(rows.shard.digest)
        found[rows.shard.digest] = rows.numbers if before is None else np.union1d(before, rows.numbers)
    return found


def _runs(catalog: Catalog, tokens: Iterable[Rows]) -> list[Run]:
    """Training runs that may have drawn rows of tokens, each once."""
    digests = dict.fromkeys(rows.version.digest for rows in tokens)
    # A run may have drawn from several versions that hold the same row.
    return list({run.info.run_id: run for digest in digests for run in catalog.training_runs(digest)}.values())


def _run_impact(catalog: Catalog, run: Run, shards: Mapping[str, Int64s], steps: bool) -> dict[str, Any]:
    """Steps at which a training run saw rows of token shards, for each checkpoint that is still there."""
    records = _checkpoints(run)
    if not records:
        return {"run": run.info.run_id, "name": run.info.run_name, "steps": [], "checkpoints": []}
    record, url = records[-1]
    sightings = Sightings(url, record, catalog.root)
    passes = sightings.passes(shards)
    told = steps or (sightings.in_order and sightings.effort(passes) <= _MOST_STEPS)
    seen = sightings.of(passes) if told else []
    checkpoints = []
    for record, url in records:
        if told:
            before = [one for one in seen if one.step < record.step]
            times, tasks, exact = len(before), sorted({one.task for one in before}), True
        else:
            times, tasks, exact = sightings.times(passes, record)
        checkpoints.append(
            {
                "checkpoint": url,
                "step": record.step,
                "times_seen": times,
                "exact": exact,
                "tasks": tasks,
                "made_of_it": _made_of(catalog, record) if times else [],
            }
        )
    return {
        "run": run.info.run_id,
        "name": run.info.run_name,
        "steps": sorted({one.step for one in seen}) if told else None,
        "checkpoints": checkpoints,
    }


def _made_of(catalog: Catalog, record: CheckpointRecord) -> list[str]:
    """Names of what was made of a checkpoint."""
    return [one.name for one in catalog.made_of_weights(record.digest)]


def _of_many(catalog: Catalog, query: Query, counted: Sequence[tuple[Version, Commit, FileRef, int]]) -> dict[str, Any]:
    """The answer about more rows than can be looked up: counts by shard, and what is expected of runs."""
    examples = [(Rows(version, commit, ref, np.arange(0)), count) for version, commit, ref, count in counted]
    tokens = [
        (Rows(version, commit, ref, np.arange(0)), round(count / max(rows.shard.rows, 1) * ref.rows))
        for rows, count in examples
        for version in catalog.made_from(rows.version.digest)
        if version.head.kind == "tokens"
        for commit in version.by_input.get(rows.shard.digest, ())
        for ref in commit.shards
    ]
    distinct = {(rows.version.dataset.url, rows.shard.digest): count for rows, count in examples}
    shares = {rows.shard.digest: count / max(rows.shard.rows, 1) for rows, count in tokens}
    return {
        "query": query.text,
        "exact": False,
        "examples_count": sum(distinct.values()),
        "examples": [],
        "shards": [{**describe_shard(rows), "examples": count} for rows, count in (*examples, *tokens)],
        "rejected": [],
        "runs": [_expected(catalog, run, shares) for run in _runs(catalog, (rows for rows, _ in tokens))],
    }


def _expected(catalog: Catalog, run: Run, shares: Mapping[str, float]) -> dict[str, Any]:
    """How often a training run is expected to have seen shares of token shards."""
    records = _checkpoints(run)
    rows = Sightings(records[-1][1], records[-1][0], catalog.root).streams.rows if records else []
    parts = {one.task.name: one.share_of(shares) for one in rows}
    return {
        "run": run.info.run_id,
        "name": run.info.run_name,
        "steps": None,
        "checkpoints": [
            {
                "checkpoint": url,
                "step": record.step,
                "times_seen": round(sum(count * parts.get(task, 0.0) for task, count in record.examples.items())),
                "exact": False,
                "tasks": sorted(task for task in record.examples if parts.get(task)),
                "made_of_it": _made_of(catalog, record) if any(parts.get(task) for task in record.examples) else [],
            }
            for record, url in records
        ],
    }


def _checkpoints(run: Run) -> list[tuple[CheckpointRecord, str]]:
    """Records and folders of a training run's checkpoints that are still there, by step.

    A run that was begun anew is set aside, and its checkpoints are recorded again where they lie then; another run may
    have taken their place.
    """
    found = []
    for reference in lineage.references(run, "output"):
        if storage.exists(storage.join(reference.url, RECORD)):
            record = read_record(reference.url)
            if record.digest == reference.digest:
                found.append((record, reference.url))
    return sorted(found, key=lambda pair: pair[0].step)
