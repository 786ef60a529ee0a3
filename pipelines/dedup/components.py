"""Groups of rows that links hold together, and which row of each is kept."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from omnimill.pipelines.dedup.base import NODE
from omnimill.pipelines.dedup.columns import take_table
from omnimill.pipelines.dedup.verdicts import verdicts


def cluster(edges: pa.Table, reason: str) -> pa.Table:
    """`VERDICTS` on all rows of each connected component but the preferred one; score: of a row's best link."""
    nodes, a, b = _nodes(edges)
    count = nodes.num_rows
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    score = np.zeros(count)
    for end in (a, b):
        np.maximum.at(score, end, edges.column("score").to_numpy())
    order = np.lexsort([nodes.column(name).to_numpy() for name in _PLACE] + [component])
    starts = np.flatnonzero(np.append(True, np.diff(component[order]) != 0)) if count else np.empty(0, np.int64)
    kept = np.repeat(order[starts], np.diff(np.append(starts, count)))
    spare = order != kept
    rows, twins = take_table(nodes, order[spare]), take_table(nodes, kept[spare])
    return verdicts(
        rows,
        reason,
        twin_hi=twins.column("id_hi"),
        twin_lo=twins.column("id_lo"),
        score=pa.array(score[order[spare]]),
    )


# Least significant first, as `np.lexsort` has it.
_PLACE = ("row", "shard", "id_lo", "id_hi", "prefer")


def _nodes(edges: pa.Table) -> tuple[pa.Table, NDArray[np.int64], NDArray[np.int64]]:
    """The distinct rows that edges join, and for each edge the places of its ends among them."""
    ends = [edges.select([f"{end}_{name}" for name in NODE.names]).rename_columns(NODE.names) for end in "ab"]
    both = pa.concat_tables(ends)
    code = (both.column("shard").to_numpy().astype(np.uint64) << np.uint64(32)) | both.column("row").to_numpy()
    _, first, place = np.unique(code, return_index=True, return_inverse=True)
    return take_table(both, first), place[: edges.num_rows], place[edges.num_rows :]
