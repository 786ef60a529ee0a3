"""How rows with the same key come to one place, on Ray Data."""

from __future__ import annotations

from math import ceil
from typing import Any

import ray.data

from omnimill.infra.units import WORKER_RETRIES

# A block is worked on as one piece, by a task of one core that is tried again a bounded number of times.
WHOLE: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}
TASK: dict[str, Any] = {**WHOLE, "num_cpus": 1, "max_retries": WORKER_RETRIES}


def count_partitions(rows: int, row_bytes: int, partition_bytes: int) -> int:
    """How many partitions some rows are cut into."""
    return max(1, ceil(rows * row_bytes / partition_bytes))


def spread(rows: ray.data.Dataset, keys: list[str], row_bytes: int, partition_bytes: int) -> ray.data.Dataset:
    """Rows that have been computed, in as many partitions as their number needs; equal keys are in the same one."""
    partitions = count_partitions(rows.count(), row_bytes, partition_bytes)
    return rows.repartition(1) if partitions == 1 else rows.repartition(partitions, keys=keys)
