"""Erasing: from what was asked for to the rules that mean it, the rows that are lost by it, and who has learnt them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra import arrow_files, storage
from omnimill.infra.dataset import Dataset, FileRef, Manifest
from omnimill.infra.erasure_rules import Kind, Rules, RuleValues, addresses, named
from omnimill.infra.erasures import REGISTER, Erasure, publish, request_url
from omnimill.infra.index import open_index
from omnimill.infra.lineage import command_run
from omnimill.infra.queries import looks_like_digest, looks_like_example_id, parse_query
from omnimill.infra.settling import find, settled
from omnimill.infra.verify import datasets
from omnimill.progress import progress
from omnimill.rng import Int64s
from omnimill.training.lineage import audit

# An address with more different contents than these is an archive or a list, which is known by its address alone.
_MOST_CONTENTS = 1000
_KEY = "key:"


@dataclass(frozen=True)
class Lost:
    """Rows that a version of a dataset loses. current: whether it is the one that is read by default."""

    dataset: str
    kind: str
    manifest: str
    current: bool
    rows: int


def rules_of(root: str, queries: Sequence[str]) -> dict[Kind, tuple[str, ...]]:
    """The rules that queries mean: those of `omnimill lineage impact`, and ``key:SOURCE/KEY`` for a record.

    A file or URL means what was read from there and, unless that is very much, the same content read from elsewhere:
    pictures, clips and records that are a file of their own. Where units have read it and neither an example nor a
    record that was turned down names it, it means all that units make of it.

    Raises:
        ConfigError: a query is not one.
    """
    values: dict[Kind, set[str]] = {}
    for query in queries:
        for kind, some in _rules(root, query).items():
            values.setdefault(kind, set()).update(some)
    return {kind: tuple(sorted(values[kind])) for kind in sorted(values) if values[kind]}


def erase(root: str, queries: Sequence[str], rules: RuleValues, by: str, reason: str) -> tuple[str, list[Lost]]:
    """Put a request in force, and look all versions under the root through for it.

    Args:
        rules: what the queries mean, see :func:`rules_of`.
        by: who asked. reason: why.

    Returns:
        The request's digest, and what versions lose by it.
    """
    erasure = Erasure(
        queries=tuple(queries),
        by=by,
        at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        reason=reason,
        rules=dict(rules),
    )
    with command_run(root, "erase", erasure.model_dump(mode="json"), "erase") as run:
        digest = publish(root, erasure)
        run.output(REGISTER, digest, request_url(root, digest))
        found = lost(root, [digest])
        run.metrics({f"rows/{one.dataset}": one.rows for one in found if one.current})
    return digest, found


def lost(root: str, requests: Sequence[str]) -> list[Lost]:
    """What each version under a root loses by some requests; versions that lose nothing are not named."""
    found = []
    versions = [(dataset, digest) for dataset in datasets(root) for digest in _versions(dataset)]
    with progress("look through", len(versions), "versions") as advance:
        for dataset, digest in versions:
            manifest = dataset.manifest(digest)[1]
            erased = settled(dataset, digest, manifest)
            shards = {ref.digest for commit in manifest.commits for ref in commit.shards}
            rows = sum(len(erased.rows(shard, requests)) for shard in erased.shards() if shard in shards)
            if rows:
                found.append(Lost(dataset.name, manifest.kind, digest, digest == _current(dataset), rows))
            advance(1)
    return found


def affected(root: str, queries: Sequence[str]) -> list[dict[str, Any]]:
    """What `audit.impact` says of the queries, each; of those that nothing recorded knows nothing."""
    found = []
    for query in queries:
        try:
            found.append(audit.impact(root, query))
        except OmnimillError:
            continue
    return found


def _rules(root: str, text: str) -> dict[Kind, set[str]]:
    if text.startswith(_KEY):
        source, slash, key = text.removeprefix(_KEY).partition("/")
        if not slash:
            raise ConfigError(f"key: found {text!r}, allowed: key:SOURCE/KEY")
        return {"key": {named(source, key)}}
    query = parse_query(text)
    if query.kind != "value":
        return {query.kind: {query.name}}
    if looks_like_example_id(text):
        return {"id": {text}}
    if looks_like_digest(text):
        places, digests = set(), {text}
    else:
        places, digests = set(addresses(text)), set(query.digests)
    own: RuleValues = {"uri": tuple(sorted(places)), "digest": tuple(sorted(digests))}
    contents = [_contents(dataset, ref, rows.tolist(), own) for dataset, ref, rows in _found(root, own)]
    distinct: set[str] = set().union(*contents)
    rules: dict[Kind, set[str]] = {"uri": places, "digest": digests}
    if len(distinct) <= _MOST_CONTENTS:
        rules["digest"] |= distinct
    if not contents and _is_read_by_units_alone(root, own):
        rules["input"] = places | digests
    return rules


def _examples(root: str) -> Iterator[tuple[Dataset, str, Manifest]]:
    """All versions of examples."""
    for dataset in datasets(root):
        for digest in _versions(dataset):
            manifest = dataset.manifest(digest)[1]
            if manifest.kind != "examples":
                break
            yield dataset, digest, manifest


def _is_read_by_units_alone(root: str, own: RuleValues) -> bool:
    """Whether units read what rules name, and no record that was turned down is called so."""
    rules, values = Rules([own]), [*own["uri"], *own["digest"]]
    inputs = Rules([{"input": tuple(values)}])
    read = False
    for dataset, digest, manifest in _examples(root):
        for file in open_index(dataset, [digest]).find(values):
            if file.folder in ("quarantine", "drops"):
                table = arrow_files.read_table(storage.join(dataset.url, file.folder, f"{file.name}.arrow"))
                if len(rules.rows(table)):
                    return False
        read = read or any(inputs.unit(commit.source, commit.inputs) for commit in manifest.commits)
    return read


def _found(root: str, rules: RuleValues) -> Iterator[tuple[Dataset, FileRef, Int64s]]:
    """Rows of examples that rules mean, of all versions, each shard once."""
    seen: set[tuple[str, str]] = set()
    for dataset, digest, manifest in _examples(root):
        for ref, rows in find(dataset, digest, manifest, rules):
            if (dataset.name, ref.digest) not in seen:
                seen.add((dataset.name, ref.digest))
                yield dataset, ref, rows


def _contents(dataset: Dataset, ref: FileRef, rows: Sequence[int], own: RuleValues) -> set[str]:
    """Digests of what rows hold from the addresses of the rules: media, and records that are a file of their own."""
    table, rules = dataset.read(ref), Rules([{"uri": own["uri"]}])
    found = set()
    for row in rows:
        record = table.column("provenance")[row].as_py()
        if record["offset"] is None and rules.address(record["uri"]):
            found.add(record["digest"])
        for name in ("images", "audio"):
            for item in table.column(name)[row]:
                if rules.address(item["uri"].as_py()):
                    found.add(item["digest"].as_py())
    return found - {""}


def _versions(dataset: Dataset) -> list[str]:
    """Digests of all versions that were published."""
    names = storage.list_folder(storage.join(dataset.url, "manifests"))
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def _current(dataset: Dataset) -> str | None:
    try:
        return dataset.manifest()[0]
    except OmnimillError:
        return None
