"""Does a mixture fit the data? What only shows when the token dataset is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from omnimill.config import allowed
from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.faults import Fault
from omnimill.mixtures.loading import read_mixture
from omnimill.mixtures.rows import TaskRows, scan
from omnimill.mixtures.shard_files import shard_lengths
from omnimill.mixtures.versions import TokenData, Versions, current_versions, open_versions
from omnimill.tokens import TokenLayout


@dataclass(frozen=True)
class OpenMixture:
    """A mixture over the current versions of its data. rows, held_out: of the tasks that are drawn and
    that are held out, in the mixture's order, none empty."""

    mixture: Mixture
    versions: Versions
    layout: TokenLayout
    rows: list[TaskRows]
    held_out: list[TaskRows]

    @property
    def manifests(self) -> dict[str, str]:
        """Digests of the datasets' versions, by name."""
        return {one.name: one.manifest for one in self.versions.datasets}


def open_mixture(mixture: Mixture, root: str, path: str | Path | None = None) -> OpenMixture:
    """Find every task's rows.

    Args:
        root: where the token datasets live.
        path: the mixture's file; faults then name their line in it.

    Raises:
        ConfigError: lists every source and role that does not exist and every source that gives a task no rows.
        OmnimillError: there is no such dataset.
    """
    versions = current_versions(root, mixture)
    data = open_versions(root, versions)
    scanned = scan(data, (*mixture.tasks, *mixture.held_out))
    rows, held_out = scanned[: len(mixture.tasks)], scanned[len(mixture.tasks) :]
    if found := [*faults(data, rows), *faults(data, held_out, "held_out")]:
        raise ConfigError("\n".join(describe(found, path)))
    return OpenMixture(mixture, versions, data.layout, rows, held_out)


def faults(data: TokenData, rows: Sequence[TaskRows], key: str = "tasks") -> list[Fault]:
    """What is wrong with the tasks whose rows were scanned. key: of the mixture that holds them."""
    sources, with_shards = data.sources, {commit.source for commit, _, _ in data.shards()}
    found: list[Fault] = []
    for number, task_rows in enumerate(rows):
        for place, source in enumerate(task_rows.task.sources):
            if source not in sources:
                message = f"unknown source; found {source!r}; {allowed(source, sources)}"
            elif source not in with_shards:
                message = f"source {source!r} has no shards: none of its records was kept"
            elif not task_rows.sizes.get(source):
                message = _why_none(data, task_rows, source)
            else:
                continue
            found.append(Fault((key, number, "sources", place), f"task {task_rows.task.name!r}: {message}"))
    return found


def describe(found: Sequence[Fault], path: str | Path | None) -> list[str]:
    """Messages as ``file:line: key: what is wrong``; without a file, key and message."""
    if path is not None:
        return read_mixture(path).describe(found)
    return [f"{'.'.join(map(str, fault.where))}: {fault.message}" for fault in found]


def _why_none(data: TokenData, rows: TaskRows, source: str) -> str:
    roles = _roles(data, source)
    unknown = sorted(rows.task.roles - roles)
    if unknown and roles:
        return f"source {source!r} has no text of role {unknown[0]!r}; {allowed(unknown[0], sorted(roles))}"
    return f"no row has everything that the task needs; {rows.describe_source(source)}"


def _roles(data: TokenData, source: str) -> set[str]:
    """Roles of the texts, empty ones left out, that a source has."""
    found: set[str] = set()
    for commit, _, url in data.shards():
        if commit.source == source:
            segments = shard_lengths(url).explode("text_roles", "text_lengths")
            found |= set(segments.filter(pl.col("text_lengths") > 0)["text_roles"].unique())
    return found
