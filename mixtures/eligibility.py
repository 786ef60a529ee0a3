"""Which rows of a token shard hold everything that a task needs, decided from the length columns alone."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from omnimill.mixtures.config import Task
from omnimill.mixtures.items import needs

# Span corruption needs one token to hide and one to keep.
_DENOISING_TOKENS = 2

# Columns of text segments and of target pictures, under the names that both have here.
_COLUMNS = {
    "text": {"role": "text_roles", "item": "text_items", "length": "text_lengths"},
    "image": {"role": "target_roles", "item": "target_items", "length": "target_codes_lengths"},
}


# What rows hold of what is wanted, as a table.
_HELD = {"row": pl.UInt32, "item": pl.Int32, "length": pl.Int32, "need": pl.Int32}


def reasons(lengths: pl.DataFrame, task: Task) -> pl.Series:
    """Why each row cannot serve the task: a code per row, null for rows that can.

    A row that lacks several things is counted under the first of them, in the order below. Streams that the task reads
    where they are (`optional`) are never missing.

    - ``no_image``, ``no_audio``: the task reads the current one and there is none, or it has no patches.
    - ``no_image_history``, ``no_audio_history``: the task reads what came before and there are fewer than two.
    - ``no_image_codes``, ``no_audio_codes``: the target is the current one and it was not encoded.
    - ``no_text:<role>``: the target or some prompt asks for a text that is missing or empty.
    - ``no_image:<role>``: the target is a target picture that is missing.
    - ``no_item``: all of these are there, but no item has them together (`omnimill.mixtures.items.complete_items`).
    - ``target_too_short``: a text to denoise of fewer than two tokens.

    Args:
        lengths: the `omnimill.tokens.LENGTH_COLUMNS` of the rows.

    Returns:
        A string series as long as `lengths`.
    """
    needed = needs(task)
    wanted = [("text", role) for role in sorted(task.roles)] + [("image", role) for role in needed.pictures]
    held = _held(lengths, wanted)
    of_items = [
        i for i, (medium, role) in enumerate(wanted) if role in (needed.texts, needed.pictures)[medium == "image"]
    ]
    found = pl.concat(
        [lengths, _totals(len(lengths), held, len(wanted)), _complete(len(lengths), held, of_items)], how="horizontal"
    )
    lacks = _media(task) | {f"no_{medium}:{role}": pl.col(_total(i)) == 0 for i, (medium, role) in enumerate(wanted)}
    lacks["no_item"] = ~pl.col("complete")
    if task.objective == "text_denoising":
        lacks["target_too_short"] = pl.col(_total(wanted.index(("text", task.target_role or "")))) < _DENOISING_TOKENS
    why = [pl.when(missing.fill_null(True)).then(pl.lit(reason)) for reason, missing in lacks.items()]
    return found.select(reason=pl.coalesce([*why, pl.lit(None, dtype=pl.String)])).to_series()


def _held(lengths: pl.DataFrame, wanted: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """What is wanted and not empty, of all rows: row, need (which of the wanted it is), item, length."""
    parts = []
    for medium, columns in _COLUMNS.items():
        listed = lengths.select(**columns).with_row_index("row").filter(pl.col("role").list.len() > 0)
        segments = listed.explode("role", "item", "length").filter(pl.col("length") > 0)
        parts += [
            segments.filter(pl.col("role") == role).select("row", "item", "length", need=pl.lit(i))
            for i, (of, role) in enumerate(wanted)
            if of == medium
        ]
    return pl.concat(parts) if parts else pl.DataFrame(schema=_HELD)


def _totals(rows: int, held: pl.DataFrame, wanted: int) -> pl.DataFrame:
    """Length of all that is held of each of the wanted, by row; 0 where there is none."""
    sums = [pl.col("length").filter(pl.col("need") == i).sum().alias(_total(i)) for i in range(wanted)]
    return _by_row(rows, held.group_by("row").agg(sums)).fill_null(0)


def _complete(rows: int, held: pl.DataFrame, wanted: Sequence[int]) -> pl.DataFrame:
    """Whether some item, with what has no item, has all of the wanted: column ``complete``."""
    has = [(pl.col("need") == i).any().alias(f"has:{i}") for i in wanted]
    by_item = held.group_by("row", "item").agg(has)
    loose = by_item.filter(pl.col("item").is_null()).drop("item")
    # What has no item, by itself and beside every item.
    named = by_item.filter(pl.col("item").is_not_null()).join(loose, on="row", how="left", suffix=":loose")
    pairs = [pl.col(f"has:{i}") | pl.col(f"has:{i}:loose").fill_null(False) for i in wanted]
    alone = loose.select("row", complete=pl.all_horizontal(pl.lit(True), *[f"has:{i}" for i in wanted]))
    among = named.select("row", complete=pl.all_horizontal(pl.lit(True), *pairs))
    complete = pl.concat([alone, among]).group_by("row").agg(pl.col("complete").any())
    return _by_row(rows, complete).fill_null(not wanted)


def _by_row(rows: int, values: pl.DataFrame) -> pl.DataFrame:
    """Values by ``row``, one row for each of so many, in order; null where there are none."""
    every = pl.DataFrame({"row": pl.int_range(rows, dtype=pl.UInt32, eager=True)})
    return every.join(values, on="row", how="left", maintain_order="left").drop("row")


def _total(need: int) -> str:
    return f"total:{need}"


def _media(task: Task) -> dict[str, pl.Expr]:
    """Reason -> whether a row lacks it, for images and audio."""
    reads = set(task.inputs)
    if task.objective in ("image_denoising", "audio_denoising"):
        reads.add("image" if task.objective == "image_denoising" else "audio")
    lacks: dict[str, pl.Expr] = {}
    for modality in ("image", "audio"):
        patches, codes = pl.col(f"{modality}_patches"), pl.col(f"{modality}_codes_lengths")
        if modality in reads:
            lacks[f"no_{modality}"] = patches.list.last() == 0
        if f"{modality}_history" in reads:
            lacks[f"no_{modality}_history"] = patches.list.len() < 2
        if task.target == modality:
            lacks[f"no_{modality}_codes"] = codes.list.last() == 0
    return lacks
