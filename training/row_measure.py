"""How long the examples of token shards become, many at a time, from the shards' length columns alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from omnimill.mixtures.rows import TaskRows, shard_columns
from omnimill.rng import Int64s, UInt64s
from omnimill.training.bulk_lengths import BulkLengths
from omnimill.training.row_batch import COLUMNS, RowBatch

# Shards whose length columns are kept, some ten bytes for each text, picture and clip; reading one again is quick.
_SHARDS = 256


class RowMeasure:
    """Measures rows of the tasks of some recipes; see `omnimill.training.block_planner.Measure`.

    Args:
        rows: of every task.
    """

    def __init__(self, rows: Sequence[TaskRows], lengths: BulkLengths) -> None:
        self._rows = rows
        self._lengths = lengths

    def __call__(self, task: int, rows: Int64s, epochs: Int64s) -> tuple[UInt64s, Int64s]:
        """Ids (uint64 [n, 2]) and lengths (int64 [fields, n]) of rows of a task at these epochs."""
        parts, places = [], []
        for url, place, shard_rows in self._rows[task].places(rows):
            parts.append(_shard(url).take(shard_rows))
            places.append(place)
        batch, place = RowBatch.concatenate(parts), np.concatenate(places)
        found = self._lengths.of(task, batch, epochs[place])
        ids, lengths = np.empty_like(batch.ids), np.empty_like(found)
        ids[place], lengths[:, place] = batch.ids, found
        return ids, lengths


@lru_cache(maxsize=_SHARDS)
def _shard(url: str) -> RowBatch:
    return RowBatch.of(shard_columns(url, COLUMNS))
