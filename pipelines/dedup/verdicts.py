"""Verdicts of steps, from rows to what a selection stores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa

from omnimill.infra.dataset import Dataset
from omnimill.infra.selections import SELECTION_SCHEMA, LeftOut, left_out, publish_left_out
from omnimill.pipelines.dedup.base import VERDICTS
from omnimill.pipelines.dedup.facts import hexadecimal
from omnimill.pipelines.dedup.view import Shard


def verdicts(
    rows: pa.Table,
    reason: str,
    *,
    twin_hi: pa.Array | None = None,
    twin_lo: pa.Array | None = None,
    score: pa.Array | None = None,
    votes: pa.Array | None = None,
) -> pa.Table:
    """`VERDICTS` on all of `rows`, which hold the columns of `NODE`; votes: 1 when not given."""
    given = {
        "reason": pa.array([reason] * rows.num_rows, pa.string()),
        "twin_hi": twin_hi,
        "twin_lo": twin_lo,
        "score": score,
        "votes": pa.array(np.ones(rows.num_rows, np.uint32)) if votes is None else votes,
    }
    columns = []
    for field in VERDICTS:
        column = given[field.name] if field.name in given else rows.column(field.name)
        columns.append(pa.nulls(rows.num_rows, field.type) if column is None else column)
    return pa.table(columns, schema=VERDICTS)


def keep_first(rows: pl.DataFrame, reason: str, by: list[str], together: str | None = None) -> pa.Table:
    """`VERDICTS` on all rows but the preferred one of each group that agrees in the columns `by`.

    Args:
        rows: `NODE` and the columns named in `by` and `together`.
        together: a column in which rows of a group that agree with the preferred one are kept with it.
    """
    ordered = rows.sort("prefer", "id_hi", "id_lo", "shard", "row")
    spare = pl.int_range(pl.len()).over(by) > 0 if together is None else pl.col(together) != pl.first(together).over(by)
    twins = [pl.first(f"id_{half}").over(by).alias(f"twin_{half}") for half in ("hi", "lo")]
    dropped = ordered.select("shard", "row", "id_hi", "id_lo", *twins, spare=spare).filter("spare").to_arrow()
    return verdicts(dropped, reason, twin_hi=dropped.column("twin_hi"), twin_lo=dropped.column("twin_lo"))


def leave_out(dataset: Dataset, step: str, found: pa.Table, shards: Mapping[int, Shard]) -> dict[int, LeftOut]:
    """Store verdicts beside what earlier steps have left out of the same shards.

    Args:
        found: `VERDICTS`; all those on a row must be among them.
        shards: by index.

    Returns:
        What is left out now of every shard that loses rows by these verdicts.
    """
    frame = pl.from_arrow(found)
    assert isinstance(frame, pl.DataFrame)
    decided = (
        frame.sort("shard", "row", "reason", "twin_hi", "twin_lo", "score")
        .group_by("shard", "row", maintain_order=True)
        .agg(pl.all().first(), pl.len().alias("given"))
        .filter(pl.col("given") >= pl.col("votes"))
    )
    result = {}
    for (index,), part in decided.group_by(["shard"], maintain_order=True):
        assert isinstance(index, int)
        shard = shards[index]
        tables = [_stored(part, step)]
        if shard.left is not None:
            tables.append(left_out(dataset, shard.left.file))
        result[index] = publish_left_out(dataset, shard.file.digest, pa.concat_tables(tables))
    return result


def _stored(part: pl.DataFrame, step: str) -> pa.Table:
    twins: list[str | None] = [None] * len(part)
    known = part["twin_hi"].is_not_null().to_numpy()
    if known.any():
        high, low = (part[name].fill_null(0).to_numpy() for name in ("twin_hi", "twin_lo"))
        twins = [twin if there else None for twin, there in zip(hexadecimal(high, low), known, strict=True)]
    return pa.table(
        [
            pa.array(part["row"].to_numpy(), pa.uint32()).cast(pa.int64()),
            pa.array(hexadecimal(part["id_hi"].to_numpy(), part["id_lo"].to_numpy()), pa.string()),
            pa.array([step] * len(part), pa.string()),
            part["reason"].to_arrow().cast(pa.string()),
            pa.array(twins, pa.string()),
            part["score"].to_arrow(),
        ],
        schema=SELECTION_SCHEMA,
    )
