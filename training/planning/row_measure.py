"""How long the examples of token shards become, many at a time, from the shards' length columns alone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from omnimill.infra import storage
from omnimill.mixtures.rows import TaskRows
from omnimill.mixtures.shard_files import shard_columns
from omnimill.rng import Int64s, UInt64s
from omnimill.training.planning.row_batch import COLUMNS, RowBatch
from omnimill.training.rendering.forms import AnyLengths

# Length columns are kept by runs of so many rows of a shard, and of so many runs: some ten bytes for each text, picture
# and clip, a hundred megabytes or two. A stream reads a window of consecutive rows of each of its tasks at a time.
_RUN, _RUNS = 1024, 2048
_READERS = 16


class RowMeasure:
    """Measures rows of the tasks of some recipes; see `omnimill.training.planning.block_planner.Measure`.

    Args:
        rows: of every task.
    """

    def __init__(self, rows: Sequence[TaskRows], lengths: AnyLengths) -> None:
        self._rows = rows
        self._lengths = lengths

    def __call__(self, task: int, rows: Int64s, epochs: Int64s) -> tuple[UInt64s, Int64s]:
        """Ids (uint64 [n, 2]) and lengths (int64 [fields, n]) of rows of a task at these epochs."""
        wanted, places = [], []
        for url, place, shard_rows in self._rows[task].by_shard(rows):
            runs = shard_rows // _RUN
            order = np.argsort(runs, kind="stable")
            for own in np.split(order, np.flatnonzero(np.diff(runs[order])) + 1):
                wanted.append((url, int(runs[own[0]]), shard_rows[own] % _RUN))
                places.append(place[own])
        found_runs = _runs([(url, number) for url, number, _ in wanted])
        parts = [run.take(own) for run, (_, _, own) in zip(found_runs, wanted, strict=True)]
        batch, place = RowBatch.concatenate(parts), np.concatenate(places)
        found = self._lengths.of(task, batch, epochs[place])
        ids, lengths = np.empty_like(batch.ids), np.empty_like(found)
        ids[place], lengths[:, place] = batch.ids, found
        return ids, lengths


def _runs(wanted: Sequence[tuple[str, int]]) -> list[RowBatch]:
    """Runs of shards by URL and number; several at a time where reading one means waiting for a store."""
    if not wanted or storage.is_local(wanted[0][0]):
        return [_run(*one) for one in wanted]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(_run, *zip(*wanted, strict=True)))


@lru_cache(maxsize=_RUNS)
def _run(url: str, number: int) -> RowBatch:
    """The `number`-th run of rows of a shard."""
    return RowBatch.of(shard_columns(url, COLUMNS, number * _RUN, _RUN))
