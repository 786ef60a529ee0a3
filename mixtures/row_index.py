"""Which rows tasks can use, kept beside the datasets: found once for a version of the data, then only read.

To find a task's rows, the length columns of all its shards are read. What was found depends on the versions of the data
and on what the task needs alone, so it is stored under a name made of these, in ``<root>/row_indexes/``. Nothing else
depends on an index being there: one that cannot be read or written is made again the next time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnimill.config import digest_json
from omnimill.errors import OmnimillError
from omnimill.infra import arrow_files, storage
from omnimill.mixtures.config import Task
from omnimill.mixtures.items import needs

# Raised when other rows are found in the same data.
_VERSION = 1
_FOLDER = "row_indexes"
_REASONS = b"reasons"
_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("some", pa.bool_(), nullable=False),
        pa.field("eligible", pa.list_(pa.int32()), nullable=False),
    ]
)


class Found(NamedTuple):
    """A task's rows in one shard. shard: its number among all of the data.

    rows: how many. eligible: which, int32; None: the first `rows`, which are all of them.
    """

    shard: int
    rows: int
    eligible: npt.NDArray[np.int32] | None


Reasons = Mapping[str, Mapping[str, int]]


def read(root: str, data: str, task: Task) -> tuple[list[Found], Reasons] | None:
    """A task's rows in its shards, and the reasons why others are not among them; None when there is no index.

    Args:
        data: names the versions of the data.
    """
    url = _url(root, data, task)
    with suppress(OmnimillError, OSError, pa.ArrowException, ValueError, KeyError):
        if not storage.exists(url):
            return None
        table = arrow_files.read_table(url)
        if table.schema.remove_metadata() != _SCHEMA or table.num_rows == 0:
            return None
        batch = table.combine_chunks().to_batches()[0]
        shards, rows = (np.frombuffer(batch.column(name).buffers()[1], np.int64) for name in ("shard", "rows"))
        some, lists = batch.column("some").to_pylist(), batch.column("eligible")
        ends = np.frombuffer(lists.buffers()[1], np.int32)
        values = lists.values.buffers()[1]
        eligible = np.frombuffer(values, np.int32) if values is not None else np.empty(0, np.int32)
        found = [
            Found(int(shards[i]), int(rows[i]), eligible[ends[i] : ends[i + 1]] if some[i] else None)
            for i in range(batch.num_rows)
        ]
        return found, json.loads(table.schema.metadata[_REASONS])
    return None


def write(root: str, data: str, task: Task, found: Sequence[Found], reasons: Reasons) -> None:
    """Store what :func:`read` gives, if the root can be written to."""
    columns = {
        "shard": [one.shard for one in found],
        "rows": [one.rows for one in found],
        "some": [one.eligible is not None for one in found],
        "eligible": [[] if one.eligible is None else one.eligible for one in found],
    }
    schema = _SCHEMA.with_metadata({_REASONS: json.dumps({name: dict(why) for name, why in reasons.items()}).encode()})
    with suppress(OSError, OmnimillError):
        arrow_files.write_table(pa.table(columns, schema=schema), _url(root, data, task))


def _url(root: str, data: str, task: Task) -> str:
    wanted = needs(task)
    said = [task.inputs, task.objective, task.target, sorted(task.roles), wanted.texts, wanted.pictures]
    name = digest_json([_VERSION, data, sorted(task.sources), said])
    return storage.join(root, _FOLDER, f"{name}.arrow")
