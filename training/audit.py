"""Lineage questions: what an artefact was made from, and what a file ended up in, to the step.

Datasets and runs answer from manifests and MLflow (``omnimill.infra.trace``); the steps come from replaying the plan of
a checkpoint (``omnimill.training.replay``). Answers are plain JSON values.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from omnimill.errors import OmnimillError
from omnimill.infra import lineage, storage
from omnimill.infra.dataset import Commit
from omnimill.infra.trace import (
    Catalog,
    Place,
    Version,
    find_derived,
    find_examples,
    find_rejections,
    find_rows,
    looks_like_example_id,
)
from omnimill.mixtures.ledger import changes
from omnimill.training.checkpoint import RECORD, CheckpointRecord, read_record
from omnimill.training.replay import consumed, ledger_entries

_SHORTEST_DIGEST = 8


def impact(root: str, query: str) -> dict[str, Any]:
    """Where a file, URL, content digest or example id went.

    Returns:
        ``{"query", "examples": [...], "shards": [...], "rejected": [...], "runs": [{"run", "name", "checkpoints":
        [{"checkpoint", "step", "times_seen", "steps"}], "steps"}]}``; `steps` count from 0.

    Raises:
        OmnimillError: nothing recorded under the root knows the query.
    """
    catalog = Catalog(root)
    named = find_examples(catalog, query)
    examples = _distinct([*named, *find_derived(catalog, named)])
    rejected = find_rejections(catalog, query)
    if not examples and not rejected:
        raise OmnimillError(f"{query}: no dataset under {root} read it (looked for its path, its content and as an id)")
    ids = sorted({place.id for place in examples})
    tokens = [
        place
        for parent in _unique(place.version.digest for place in examples)
        for version in catalog.made_from(parent)
        if version.manifest.kind == "tokens"
        for place in find_rows(version, ids)
    ]
    # A run may have drawn from several versions that hold the same row.
    runs = {
        run.info.run_id: run
        for digest in _unique(place.version.digest for place in tokens)
        for run in catalog.training_runs(digest)
    }
    return {
        "query": query,
        "examples": [{"id": id_} for id_ in ids],
        "shards": [_shard(place) for place in _first_of_each_shard([*examples, *tokens])],
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
        "runs": [_run_impact(run, set(ids)) for run in runs.values()],
    }


def _run_impact(run: Run, ids: set[str]) -> dict[str, Any]:
    """Steps at which a training run saw the examples, for each checkpoint that is still there."""
    records = _checkpoints(run)
    seen = list(consumed(records[-1][1], ids)) if records else []
    return {
        "run": run.info.run_id,
        "name": run.info.run_name,
        "steps": sorted({one.step for one in seen}),
        "checkpoints": [
            {
                "checkpoint": url,
                "step": record.step,
                "times_seen": sum(one.step < record.step for one in seen),
                "tasks": sorted({one.task for one in seen if one.step < record.step}),
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


def trace(root: str, artefact: str) -> dict[str, Any]:
    """What a checkpoint (folder), shard (path, digest or the beginning of one) or example (id) was made from.

    Returns:
        ``{"kind", …, "datasets": [...], "sources": [{"source", "files": [{"uri", "digest", "bytes"}]}]}``.

    Raises:
        OmnimillError: nothing recorded under the root is called so.
    """
    catalog = Catalog(root)
    if Path(artefact).name == RECORD or (Path(artefact) / RECORD).exists():
        return _trace_checkpoint(catalog, artefact, read_record(artefact))
    if looks_like_example_id(artefact):
        places = [place for version in catalog.versions for place in find_rows(version, [artefact])]
        if places:
            return _trace_example(catalog, artefact, places)
    digest = Path(artefact).stem
    shards = catalog.shard(digest) if len(digest) >= _SHORTEST_DIGEST else []
    if not shards:
        raise OmnimillError(f"{artefact}: neither a checkpoint, nor a shard or example recorded under {root}")
    version, commit, ref = shards[0]
    return {
        "kind": "shard",
        "shard": ref.digest,
        "rows": ref.rows,
        "datasets": [_version(one) for one, _, _ in shards],
        "unit": commit.unit,
        "sources": _sources(_origins(catalog, version, [commit])),
    }


def _trace_checkpoint(catalog: Catalog, path: str, record: CheckpointRecord) -> dict[str, Any]:
    held = changes(ledger_entries(path, catalog.root))
    # Every version that the run drew from on its way, not the last one alone.
    drawn = {version.manifest: None for change in held for version in change.versions.datasets}
    tokens = [catalog.version(digest) for digest in drawn]
    parents = {parent.digest: parent for version in tokens for parent in _parents(catalog, version)}
    commits = [
        origin for version in parents.values() for origin in _origins(catalog, version, version.manifest.commits)
    ]
    return {
        "kind": "checkpoint",
        "checkpoint": path,
        "digest": record.digest,
        "step": record.step,
        "run": record.mlflow_run,
        "config": record.config.content_digest(),
        "mixture": record.mixture.content_digest(),
        "changes": [
            {
                "step": change.step,
                "mixture": change.mixture.content_digest(),
                "datasets": [one.manifest for one in change.versions.datasets],
                "selections": [one.digest for one in change.versions.selections],
            }
            for change in held
        ],
        "examples_consumed": record.examples,
        "tokenizers": {"name": record.layout.tokenizers, **record.layout.digests},
        "datasets": [_version(version) for version in (*tokens, *_ancestors(catalog, tokens))],
        "sources": _sources(commits),
    }


def _trace_example(catalog: Catalog, id_: str, places: list[Place]) -> dict[str, Any]:
    origin = [place for place in places if place.version.manifest.kind == "examples"]
    first = origin[0] if origin else places[0]
    row = first.version.dataset.read(first.shard).select(["key", "provenance"]).slice(first.row, 1).to_pylist()[0]
    return {
        "kind": "example",
        "example": id_,
        "key": row["key"],
        "provenance": row["provenance"],
        "shards": [_shard(place) for place in _first_of_each_shard(places)],
        "datasets": [
            _version(version) for version in {place.version.digest: place.version for place in places}.values()
        ],
        "sources": _sources(commit for place in origin for commit in _origins(catalog, place.version, [place.commit])),
    }


def _parents(catalog: Catalog, version: Version) -> list[Version]:
    return [catalog.version(digest) for digest in version.manifest.parents.values()]


def _ancestors(catalog: Catalog, versions: Iterable[Version]) -> list[Version]:
    """What versions go back to, each once, the nearest first."""
    found: dict[str, Version] = {}
    waiting = [parent for version in versions for parent in _parents(catalog, version)]
    while waiting:
        found |= {parent.digest: parent for parent in waiting if parent.digest not in found}
        waiting = [older for parent in waiting for older in _parents(catalog, parent) if older.digest not in found]
    return list(found.values())


def _origins(catalog: Catalog, version: Version, commits: Iterable[Commit]) -> list[Commit]:
    """The commits of example versions that read original files, to which these commits of a version go back.

    A unit that was made from a dataset names the shards that it read among its inputs.
    """
    commits, parents = list(commits), _parents(catalog, version)
    shards = {ref.digest for parent in parents for _, ref in parent.shards}
    read = {ref.digest for commit in commits for ref in commit.inputs} & shards
    found = [
        commit
        for commit in commits
        if version.manifest.kind == "examples" and not any(ref.digest in read for ref in commit.inputs)
    ]
    for parent in parents:
        found += _origins(catalog, parent, [commit for commit, ref in parent.shards if ref.digest in read])
    return found


def _version(version: Version) -> dict[str, Any]:
    return {
        "dataset": version.dataset.name,
        "kind": version.manifest.kind,
        "manifest": version.digest,
        "run": version.run,
        "rows": version.manifest.rows,
    }


def _shard(place: Place) -> dict[str, Any]:
    return {
        "dataset": place.version.dataset.name,
        "kind": place.version.manifest.kind,
        "manifest": place.version.digest,
        "source": place.commit.source,
        "unit": place.commit.unit,
        "shard": place.shard.digest,
        "url": place.version.dataset.shard_url(place.shard),
    }


def _sources(commits: Iterable[Commit]) -> list[dict[str, Any]]:
    files: dict[str, dict[str, dict[str, Any]]] = {}
    for commit in commits:
        for ref in commit.inputs:
            files.setdefault(commit.source, {})[f"{ref.uri} {ref.digest}"] = ref.model_dump()
    return [{"source": source, "files": [refs[key] for key in sorted(refs)]} for source, refs in sorted(files.items())]


def _distinct(places: Iterable[Place]) -> list[Place]:
    return list({(place.version.digest, place.shard.digest, place.row): place for place in places}.values())


def _first_of_each_shard(places: list[Place]) -> list[Place]:
    return list({(place.version.digest, place.shard.digest): place for place in places}.values())


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
