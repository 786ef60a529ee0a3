"""Connected components of links that do not fit in one place: alternating large-star and small-star rounds on Ray Data.

Kiveris et al. 2014, "Connected components in MapReduce and beyond": in a large-star round every row links its later
neighbours to its earliest one, in a small-star round its earlier neighbours and itself. Rounds end when every row of a
component is linked to its earliest and to nothing else. "Earlier" is the order in which rows are preferred, so the
centre of a star is the row that is kept.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import polars as pl
import pyarrow as pa
import ray.data

from omnimill.pipelines.dedup.base import EDGES, NODE
from omnimill.pipelines.dedup.components import cluster
from omnimill.pipelines.dedup.exchange import TASK, count_partitions
from omnimill.pipelines.dedup.shingles import mix
from omnimill.pipelines.dedup.verdicts import verdicts

# The size in memory of one link, in both directions.
EDGE_BYTES = 2 * 80

_PLACE = ("prefer", "id_hi", "id_lo", "shard", "row")
_A, _B = ["a_shard", "a_row"], [f"b_{name}" for name in _PLACE]
# Links of `EDGES`, whose far end and score may be null, and a number of 32 bits that stands for the two rows.
_STARS = pa.schema([*(pa.field(field.name, field.type) for field in EDGES), ("check", pa.int64())])


def spread_cluster(edges: ray.data.Dataset, reason: str, partition_bytes: int) -> ray.data.Dataset:
    """`VERDICTS` on all rows of each connected component but the preferred one, as `components.cluster` gives them.

    Args:
        edges: pairs (`EDGES`).
        partition_bytes: of the links of one partition; fewer than that are clustered by one task.
    """
    edges = edges.materialize()
    partitions = count_partitions(edges.count(), EDGE_BYTES, partition_bytes)
    if partitions == 1:
        return edges.repartition(1).map_batches(partial(cluster, reason=reason), **TASK)
    best = edges.map_batches(best_scores, **TASK)
    stars, before = edges, None
    while True:
        for prepare, star in ((both_ways, large_star), (later_first, small_star)):
            stars = stars.map_batches(prepare, **TASK).repartition(partitions, keys=_A).map_batches(star, **TASK)
        stars = stars.materialize()
        # Both rounds leave stars as they are and change any other graph.
        now = stars.count(), stars.sum("check")
        if now == before:
            break
        before = now
    spread: ray.data.Dataset = stars.union(best).repartition(partitions, keys=_A)
    return spread.map_batches(partial(star_verdicts, reason=reason), **TASK)


def both_ways(edges: pa.Table) -> pa.Table:
    """Every link from either end."""
    frame = _frame(edges)
    return _stars(pl.concat([frame, _turned(frame)]))


def later_first(edges: pa.Table) -> pa.Table:
    """Every link from its later end."""
    frame = _frame(edges)
    later = _earlier("b", "a")
    return _stars(pl.concat([frame.filter(later), _turned(frame.filter(~later))]))


def large_star(links: pa.Table) -> pa.Table:
    """All later neighbours of each row, linked to its earliest neighbour, or to itself if it is earlier."""
    frame = _first_neighbour(links)
    own = _earlier("a", "m")
    centre = [pl.when(own).then(f"a_{name}").otherwise(f"m_{name}").alias(f"b_{name}") for name in _PLACE]
    later = frame.filter(_earlier("a", "b"))
    return _stars(later.select(*(pl.col(f"b_{name}").alias(f"a_{name}") for name in _PLACE), *centre))


def small_star(links: pa.Table) -> pa.Table:
    """Each row and all its neighbours, which are earlier, linked to the earliest of them."""
    frame = _first_neighbour(links)
    centre = [pl.col(f"m_{name}").alias(f"b_{name}") for name in _PLACE]
    neighbours = frame.filter(_earlier("m", "b"))
    others = neighbours.select(*(pl.col(f"b_{name}").alias(f"a_{name}") for name in _PLACE), *centre)
    own = frame.unique(_A).select(*(f"a_{name}" for name in _PLACE), *centre)
    return _stars(pl.concat([others, own]))


def best_scores(edges: pa.Table) -> pa.Table:
    """The best score of each row that a link touches, without the far end."""
    frame = _frame(edges)
    near = pl.concat([frame, _turned(frame)]).with_columns(pl.lit(None, pl.UInt64).alias(name) for name in _B[:3])
    near = near.with_columns(pl.lit(None, pl.UInt32).alias(name) for name in _B[3:])
    return _stars(near.sort("score", descending=True).unique(_A, keep="first"))


def star_verdicts(links: pa.Table, reason: str) -> pa.Table:
    """`VERDICTS` on the rows that stars link to their centres, with the scores that came along."""
    frame = _frame(links).with_columns(best=pl.col("score").max().over(_A))
    spare = frame.filter(pl.col("b_row").is_not_null()).sort(*_A).to_arrow()
    rows = pa.table([spare.column(f"a_{name}") for name in NODE.names], schema=NODE)
    twin = {f"twin_{half}": spare.column(f"b_id_{half}") for half in ("hi", "lo")}
    return verdicts(rows, reason, **twin, score=spare.column("best"))


def _first_neighbour(links: pa.Table) -> pl.DataFrame:
    """Distinct links, with the earliest neighbour ``m_…`` of their near end."""
    frame = _frame(links).unique([*_A, "b_shard", "b_row"]).sort(*_A, *_B)
    return frame.with_columns(pl.first(f"b_{name}").over(_A).alias(f"m_{name}") for name in _PLACE)


def _earlier(left: str, right: str) -> pl.Expr:
    """Whether one end comes before the other in the order of preference."""
    result = pl.lit(False)
    for name in reversed(_PLACE):
        x, y = pl.col(f"{left}_{name}"), pl.col(f"{right}_{name}")
        result = (x < y) | ((x == y) & result)
    return result


def _turned(frame: pl.DataFrame) -> pl.DataFrame:
    swap = {f"{x}_{name}": f"{y}_{name}" for x, y in ("ab", "ba") for name in _PLACE}
    return frame.rename(swap).select(frame.columns)


def _frame(links: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(links)
    assert isinstance(frame, pl.DataFrame)
    return frame.select(EDGES.names)


def _stars(frame: pl.DataFrame) -> pa.Table:
    ends = [frame[f"{end}_{name}"].fill_null(0).to_numpy().astype(np.uint64) for end in "ab" for name in NODE.names[:2]]
    check = np.zeros(len(frame), np.uint64)
    for values in ends:
        check = mix(check * np.uint64(0x9E3779B97F4A7C15) + values + np.uint64(1))
    score = frame["score"].to_arrow() if "score" in frame.columns else pa.nulls(len(frame), pa.float64())
    columns = [frame[name].to_arrow() for name in EDGES.names[:-1]]
    return pa.table([*columns, score, pa.array((check >> np.uint64(32)).astype(np.int64))], schema=_STARS)
