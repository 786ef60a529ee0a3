"""Pairs of near rows among those that share a key, without comparing all with all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from omnimill.pipelines.dedup.base import EDGES, NODE
from omnimill.pipelines.dedup.columns import fixed_bytes, take_table

# Rows of one key that others are compared with: what is left after so many is not near to any of them.
LEADERS = 16

Similarity = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.float64]]


def linked(keyed: pa.Table, what: str, similarity: Similarity, least: float) -> pa.Table:
    """Pairs (`EDGES`) of rows that share a key and are similar.

    Of the rows of a key the preferred one leads: those similar to it are linked with it, the others go on with a leader
    of their own, up to `LEADERS` times. The work is linear in the number of rows.

    Args:
        keyed: `NODE`, ``key``, and the column `what` of fixed-size binary values.
        similarity: of pairs of values, uint8 [pairs, width] twice to float64 [pairs].
        least: similarity of a link.
    """
    keyed = _shared(keyed)
    node = keyed.select(NODE.names)
    values = fixed_bytes(keyed.column(what))
    code = (keyed.column("shard").to_numpy().astype(np.uint64) << np.uint64(32)) | keyed.column("row").to_numpy()
    _, first, same = np.unique(code, return_index=True, return_inverse=True)
    # Of the distinct rows, how early each is preferred.
    ordered = np.lexsort([node.column(name).to_numpy()[first] for name in ("row", "shard", "id_lo", "id_hi", "prefer")])
    rank = np.empty(len(first), np.int64)
    rank[ordered] = np.arange(len(first))
    rank = rank[same]
    left = np.lexsort([rank, keyed.column("key").to_numpy()])
    key = keyed.column("key").to_numpy()
    pairs, scores = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for _ in range(LEADERS):
        starts = np.append(True, key[left][1:] != key[left][:-1]) if len(left) else np.empty(0, np.bool_)
        leader = left[starts][np.cumsum(starts) - 1] if len(left) else left
        member, leader = left[~starts], leader[~starts]
        if not len(member):
            break
        found = similarity(values[member], values[leader])
        # A row may have several values: it is not linked with itself, nor does it lead itself.
        near = (found >= least) | (rank[member] == rank[leader])
        pairs.append(np.stack([member[near], leader[near]], axis=1))
        scores.append(found[near])
        left = member[~near]
    pair, score = np.concatenate(pairs), np.concatenate(scores)
    # The same pair may share several keys, with several values: the best counts.
    best = np.lexsort([-score, rank[pair[:, 1]], rank[pair[:, 0]]])
    pair, score = pair[best], score[best]
    both = rank[pair]
    once = np.flatnonzero(np.append(True, np.any(both[1:] != both[:-1], axis=1))[: len(pair)])
    once = once[both[once, 0] != both[once, 1]]
    ends = [take_table(node, pair[once, i]) for i in (0, 1)]
    columns = [column for end in ends for column in end.columns]
    return pa.table([*columns, pa.array(score[once])], schema=EDGES)


def _shared(keyed: pa.Table) -> pa.Table:
    """The rows whose key another row has too."""
    key = keyed.column("key").to_numpy()
    order = np.argsort(key)
    if not len(order):
        return keyed
    equal = key[order][1:] == key[order][:-1]
    return keyed.take(pa.array(np.sort(order[np.append(equal, False) | np.append(False, equal)])))
