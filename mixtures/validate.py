"""Does a mixture fit the data? What only shows when the token dataset is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from omnimill.config import allowed
from omnimill.errors import ConfigError
from omnimill.infra.dataset import Dataset, Manifest
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.loading import read_mixture
from omnimill.mixtures.resolve import Fault
from omnimill.mixtures.rows import TaskRows, scan, shard_lengths


@dataclass(frozen=True)
class OpenMixture:
    """A mixture over one version of its token dataset. rows: of the tasks, in the mixture's order, none empty."""

    mixture: Mixture
    digest: str
    manifest: Manifest
    rows: list[TaskRows]


def open_mixture(mixture: Mixture, root: str, path: str | Path | None = None, digest: str | None = None) -> OpenMixture:
    """Find every task's rows.

    Args:
        root: where the token dataset lives.
        path: the mixture's file; faults then name their line in it.
        digest: version of the dataset; the current one when not given.

    Raises:
        ConfigError: lists every source and role that does not exist and every source that gives a task no rows.
        OmnimillError: there is no such dataset.
    """
    digest, manifest = Dataset(root, mixture.datasets[0]).manifest(digest)
    if manifest.kind != "tokens":
        raise ConfigError(f"dataset {mixture.datasets[0]!r} holds {manifest.kind}, a mixture needs tokens: tokenize it")
    rows = scan(root, manifest, mixture.tasks)
    if found := faults(manifest, rows, root):
        raise ConfigError("\n".join(describe(found, path)))
    return OpenMixture(mixture, digest, manifest, rows)


def faults(manifest: Manifest, rows: Sequence[TaskRows], root: str) -> list[Fault]:
    """What is wrong with the tasks whose rows were scanned."""
    sources = sorted({commit.source for commit in manifest.commits})
    found: list[Fault] = []
    for number, task_rows in enumerate(rows):
        for place, source in enumerate(task_rows.task.sources):
            if source not in sources:
                message = f"unknown source; found {source!r}; {allowed(source, sources)}"
            elif not task_rows.sizes.get(source):
                message = _why_none(manifest, task_rows, source, root)
            else:
                continue
            found.append(Fault(("tasks", number, "sources", place), f"task {task_rows.task.name!r}: {message}"))
    return found


def describe(found: Sequence[Fault], path: str | Path | None) -> list[str]:
    """Messages as ``file:line: key: what is wrong``; without a file, key and message."""
    if path is not None:
        return read_mixture(path).describe(found)
    return [f"{'.'.join(map(str, fault.where))}: {fault.message}" for fault in found]


def _why_none(manifest: Manifest, rows: TaskRows, source: str, root: str) -> str:
    roles = _roles(manifest, source, root)
    unknown = sorted(rows.task.roles - roles)
    if unknown and roles:
        return f"source {source!r} has no text of role {unknown[0]!r}; {allowed(unknown[0], sorted(roles))}"
    return f"no row has everything that the task needs; {rows.describe_source(source)}"


def _roles(manifest: Manifest, source: str, root: str) -> set[str]:
    """Roles of the texts, empty ones left out, that a source has."""
    dataset = Dataset(root, manifest.dataset)
    found: set[str] = set()
    for commit in manifest.commits:
        for shard in commit.shards if commit.source == source else ():
            segments = shard_lengths(dataset.shard_url(shard)).explode("text_roles", "text_lengths")
            found |= set(segments.filter(pl.col("text_lengths") > 0)["text_roles"].unique())
    return found
