"""Which rows of a token shard hold everything that a task needs, decided from the length columns alone."""

from __future__ import annotations

import polars as pl

from omnimill.mixtures.config import Task

SEGMENT_COLUMNS = ("text_roles", "text_lengths")
# Span corruption needs one token to hide and one to keep.
_DENOISING_TOKENS = 2


def reasons(lengths: pl.DataFrame, task: Task) -> pl.Series:
    """Why each row cannot serve the task: a code per row, null for rows that can.

    A row that lacks several things is counted under the first of them, in the order below.

    - ``no_image``, ``no_audio``: the task reads the current one and there is none, or it has no patches.
    - ``no_image_history``, ``no_audio_history``: the task reads what came before and there are fewer than two.
    - ``no_image_codes``, ``no_audio_codes``: the target is the current one and it was not encoded.
    - ``no_text:<role>``: the target or some prompt asks for a text that is missing or empty.
    - ``target_too_short``: a text to denoise of fewer than two tokens.

    Args:
        lengths: the `omnimill.tokens.LENGTH_COLUMNS` of the rows.

    Returns:
        A string series as long as `lengths`.
    """
    roles = sorted(task.roles)
    frame = pl.concat([lengths, role_tokens(lengths, roles)], how="horizontal")
    lacks = {**_media(task), **{f"no_text:{role}": pl.col(_tokens(role)) == 0 for role in roles}}
    if task.objective == "text_denoising" and task.target_role:
        lacks["target_too_short"] = pl.col(_tokens(task.target_role)) < _DENOISING_TOKENS
    found = [pl.when(missing.fill_null(True)).then(pl.lit(reason)) for reason, missing in lacks.items()]
    return frame.select(reason=pl.coalesce([*found, pl.lit(None, dtype=pl.String)])).to_series()


def role_tokens(lengths: pl.DataFrame, roles: list[str]) -> pl.DataFrame:
    """Tokens of every row's texts by role, one column per role, rows in order; 0 where there is none."""
    numbered = lengths.select(role="text_roles", tokens="text_lengths").with_row_index("row")
    sums = [pl.col("tokens").filter(pl.col("role") == role).sum().alias(_tokens(role)) for role in roles]
    totals = numbered.explode("role", "tokens").group_by("row").agg(sums)
    # Rows without any text may or may not survive `explode`, depending on the version of polars.
    return numbered.select("row").join(totals, on="row", how="left", maintain_order="left").drop("row").fill_null(0)


def _tokens(role: str) -> str:
    return f"tokens:{role}"


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
