"""What an artefact was made from, down to source files with digests. Answers are plain JSON values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from omnimill.errors import OmnimillError
from omnimill.infra import lineage
from omnimill.infra.dataset import Commit
from omnimill.infra.queries import looks_like_example_id
from omnimill.infra.trace import Catalog, Rows, Version, describe_shard, find_ids
from omnimill.mixtures.ledger import changes
from omnimill.training.checkpoints.checkpoint import RECORD, CheckpointRecord, MergeOrigin, find, read_record
from omnimill.training.checkpoints.starting_weights import INIT_FROM
from omnimill.training.lineage.replay import ledger_entries

_SHORTEST_DIGEST = 8
# Between a shard and the number of one of its rows.
ROW_MARK = "#"


def trace(root: str, artefact: str) -> dict[str, Any]:
    """What a checkpoint (folder), shard (path, digest or the beginning of one), row of one or example (id) came from.

    A row is written ``SHARD#ROW``, counted from 0.

    Returns:
        ``{"kind", …, "datasets": [...], "sources": [{"source", "files": [{"uri", "digest", "bytes"}]}]}``; of a
        checkpoint also ``"started_from"`` and ``"parents"``: the same of the checkpoint that its run started from
        (null: from none), and of those that it was merged from.

    Raises:
        OmnimillError: nothing recorded under the root is called so.
    """
    catalog = Catalog(root)
    if Path(artefact).name == RECORD or (Path(artefact) / RECORD).exists():
        return _trace_checkpoint(catalog, artefact, read_record(artefact))
    if looks_like_example_id(artefact):
        found = [rows for version in catalog.versions for rows in find_ids(catalog, version, [artefact])]
        if found:
            return _trace_example(catalog, artefact, found)
    name, mark, row = (
        artefact.rpartition(ROW_MARK) if artefact.rpartition(ROW_MARK)[2].isdigit() else (artefact, "", "")
    )
    digest = Path(name).stem
    shards = catalog.shard(digest) if len(digest) >= _SHORTEST_DIGEST else []
    if shards and mark:
        return trace(root, _id_of(Rows(*shards[0], np.array([int(row)]))))
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
    if record.merged is not None:
        return _trace_merged(catalog, path, record, record.merged)
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
                "erasures": list(change.versions.erasures),
            }
            for change in held
        ],
        "examples_consumed": record.examples,
        "tokenizers": {"name": record.layout.tokenizers, **record.layout.digests},
        "datasets": [_version(version) for version in (*tokens, *_ancestors(catalog, tokens))],
        "sources": _sources(commits),
        "started_from": _started_from(catalog, record),
        "parents": [],
    }


def _trace_merged(catalog: Catalog, path: str, record: CheckpointRecord, origin: MergeOrigin) -> dict[str, Any]:
    """Of a merged checkpoint, which learnt nothing itself: its data are those of its parents."""
    parents = [_trace_weights(catalog, parent.url, parent.digest) for parent in origin.parents]
    sources: dict[str, dict[str, dict[str, Any]]] = {}
    for parent in parents:
        for one in parent["sources"]:
            sources.setdefault(one["source"], {}).update(
                {f"{file['uri']} {file['digest']}": file for file in one["files"]}
            )
    return {
        "kind": "checkpoint",
        "checkpoint": path,
        "digest": record.digest,
        "step": record.step,
        "run": record.mlflow_run,
        "method": origin.method,
        "tokenizers": {"name": record.layout.tokenizers, **record.layout.digests},
        "datasets": list({one["manifest"]: one for parent in parents for one in parent["datasets"]}.values()),
        "sources": [
            {"source": name, "files": [files[key] for key in sorted(files)]} for name, files in sorted(sources.items())
        ],
        "started_from": None,
        "parents": parents,
    }


def _started_from(catalog: Catalog, record: CheckpointRecord) -> dict[str, Any] | None:
    """Of the weights that a checkpoint's run started from, as its MLflow run has recorded them."""
    told = lineage.find_run(catalog.root, record.mlflow_run)
    found = [one for one in lineage.references(told, "input") if one.name == INIT_FROM] if told else []
    return _trace_weights(catalog, found[0].url, found[0].digest) if found else None


def _trace_weights(catalog: Catalog, url: str, digest: str) -> dict[str, Any]:
    """Of weights by their digest, wherever they lie now; of published ones, and of such as are gone, there is no more
    to say than where they were."""
    runs = lineage.runs(catalog.root, writing=digest)
    elsewhere = [one.url for run in runs for one in lineage.references(run, "output") if one.digest == digest]
    for place in (url, *elsewhere):
        try:
            folder = find(place)
        except OmnimillError:
            continue
        if (record := read_record(folder)).digest == digest:
            return _trace_checkpoint(catalog, str(folder), record)
    return {
        "kind": "weights",
        "checkpoint": url,
        "digest": digest,
        "datasets": [],
        "sources": [],
        "started_from": None,
        "parents": [],
    }


def _id_of(row: Rows) -> str:
    if row.numbers[0] >= row.shard.rows:
        raise OmnimillError(
            f"shard {row.shard.digest[:16]}… has {row.shard.rows:,} rows, asked for row {row.numbers[0]}"
        )
    return row.ids[0]


def _trace_example(catalog: Catalog, id_: str, found: list[Rows]) -> dict[str, Any]:
    origin = [rows for rows in found if rows.version.head.kind == "examples"]
    first = origin[0] if origin else found[0]
    return {
        "kind": "example",
        "example": id_,
        "key": first.column("key")[0],
        "provenance": first.column("provenance")[0] if origin else None,
        "shards": [describe_shard(rows) for rows in {rows.key: rows for rows in found}.values()],
        "datasets": [_version(version) for version in {rows.version.digest: rows.version for rows in found}.values()],
        "sources": _sources(commit for rows in origin for commit in _origins(catalog, rows.version, [rows.commit])),
    }


def _parents(catalog: Catalog, version: Version) -> list[Version]:
    return [catalog.version(digest) for digest in version.head.parents.values()]


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
        if version.head.kind == "examples" and not any(ref.digest in read for ref in commit.inputs)
    ]
    for parent in parents:
        found += _origins(catalog, parent, [commit for commit, ref in parent.shards if ref.digest in read])
    return found


def _version(version: Version) -> dict[str, Any]:
    return {
        "dataset": version.dataset.name,
        "kind": version.head.kind,
        "manifest": version.digest,
        "run": version.run,
        "rows": version.manifest.rows,
    }


def _sources(commits: Iterable[Commit]) -> list[dict[str, Any]]:
    files: dict[str, dict[str, dict[str, Any]]] = {}
    for commit in commits:
        for ref in commit.inputs:
            files.setdefault(commit.source, {})[f"{ref.uri} {ref.digest}"] = ref.model_dump()
    return [{"source": source, "files": [refs[key] for key in sorted(refs)]} for source, refs in sorted(files.items())]
