"""Erasing: from what was asked for to the rules that mean it, the rows that are lost by it, and who has learnt them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra import storage
from omnimill.infra.dataset import Dataset, FileRef
from omnimill.infra.erasure_rules import Kind, Rules, RuleValues, addresses, named
from omnimill.infra.erasures import REGISTER, Erasure, publish, request_url
from omnimill.infra.lineage import command_run
from omnimill.infra.queries import looks_like_digest, looks_like_example_id, parse_query
from omnimill.infra.settling import find, settled
from omnimill.infra.verify import datasets
from omnimill.progress import progress
from omnimill.training import audit

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
    pictures, clips and records that are a file of their own. Where no example names it, it means all that units made of
    it.

    Raises:
        ConfigError: a query is not one.
    """
    values: dict[Kind, set[str]] = {}
    for query in queries:
        for kind, some in _rules(root, query).items():
            values.setdefault(kind, set()).update(some)
    return {kind: tuple(sorted(values[kind])) for kind in sorted(values)}


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
        rules: dict[Kind, set[str]] = {"digest": {text}}
        return rules if any(_found(root, rules)) else {**rules, "input": {text}}
    places, digests = set(addresses(text)), set(query.digests)
    own: RuleValues = {"uri": tuple(sorted(places)), "digest": tuple(sorted(digests))}
    contents = [_contents(dataset, ref, rows.tolist(), own) for dataset, ref, rows in _found(root, own)]
    if not contents:
        return {"uri": places, "digest": digests, "input": places | digests}
    distinct = set().union(*contents)
    return {"uri": places, "digest": digests | (distinct if len(distinct) <= _MOST_CONTENTS else set())}


def _found(root: str, rules: Any) -> Iterator[tuple[Dataset, FileRef, Any]]:
    """Rows of examples that rules mean, of all versions, each shard once."""
    for dataset in datasets(root):
        seen: set[str] = set()
        for digest in _versions(dataset):
            manifest = dataset.manifest(digest)[1]
            if manifest.kind != "examples":
                break
            for ref, rows in find(dataset, digest, manifest, {kind: tuple(values) for kind, values in rules.items()}):
                if ref.digest not in seen:
                    seen.add(ref.digest)
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
