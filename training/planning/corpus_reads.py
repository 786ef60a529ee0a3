"""What a plan reads: windows of rows, shards and bytes, and how much of the corpus a node needs at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omnimill.rng import Int64s


@dataclass(frozen=True)
class SourceSize:
    """How large a source is on disk. shards: how many it has; bytes: of all of them."""

    name: str
    rows: int
    shards: int
    bytes: int


@dataclass(frozen=True)
class SourceReads:
    """windows: runs of rows read together. per_shard: of these, for each of its shards. bytes: read in all."""

    name: str
    windows: int
    per_shard: float
    bytes: int


@dataclass(frozen=True)
class Reads:
    """sources: reads of each. nodes: among which the streams are shared out.

    cache_bytes: most distinct data that a node reads; what it must be able to keep so that nothing is fetched twice.
    open_bytes: most data that a node is reading at a time, one window of each stream and task.
    """

    sources: list[SourceReads]
    nodes: int
    cache_bytes: int
    open_bytes: int


def count_reads(taken: Int64s, tasks: Sequence[Sequence[SourceSize]], window: int, nodes: int) -> Reads:
    """Count what draws read.

    A stream reads its share of a task's rows in windows, pass after pass (`omnimill.mixtures.shares`). Shares of a task
    with several sources are taken to hold of each what the task does.

    Args:
        taken: int64 [V, T]; draws of every stream from every task. tasks: of each task, its sources.
        window: rows that are read together. nodes: node r of them serves the streams v with v mod nodes = r.
    """
    streams = len(taken)
    node = np.arange(streams) % nodes
    sizes = {source.name: source for sources in tasks for source in sources}
    windows = dict.fromkeys(sizes, 0)
    read = dict.fromkeys(sizes, 0.0)
    distinct = {name: np.zeros(nodes) for name in sizes}
    opened_at_once = {name: np.zeros(nodes) for name in sizes}
    for number, sources in enumerate(tasks):
        rows = sum(source.rows for source in sources)
        share = max(rows / streams, 1)
        run = min(window, share)
        per_pass = np.ceil(share / run)
        passes, rest = np.divmod(taken[:, number], share)
        opened = passes * per_pass + np.ceil(rest / run)
        seen = np.minimum(opened, per_pass)
        for source in sources:
            part, row_bytes = source.rows / rows, source.bytes / source.rows
            windows[source.name] += round(float(opened.sum()) * part)
            read[source.name] += float(opened.sum()) * run * part * row_bytes
            distinct[source.name] += np.bincount(node, weights=seen, minlength=nodes) * run * part * row_bytes
            at_once = np.bincount(node, weights=taken[:, number] > 0, minlength=nodes)
            opened_at_once[source.name] += at_once * run * part * row_bytes
    kept = {name: np.minimum(distinct[name], source.bytes) for name, source in sizes.items()}
    held = {name: np.minimum(opened_at_once[name], kept[name]) for name in sizes}
    return Reads(
        [
            SourceReads(name, windows[name], windows[name] / source.shards, round(read[name]))
            for name, source in sizes.items()
        ],
        nodes,
        round(float(np.max(sum(kept.values())))),
        round(float(np.max(sum(held.values())))),
    )
