"""Which rows of a token shard hold everything that a task needs, decided from the length columns alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from omnimill.mixtures.config import Task
from omnimill.mixtures.items import needs

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Span corruption needs one token to hide and one to keep.
_DENOISING_TOKENS = 2

# Roles, items and lengths of text segments and of target pictures.
_TEXTS = ("text_roles", "text_items", "text_lengths")
_PICTURES = ("target_roles", "target_items", "target_codes_lengths")
# Stands for no item, below every item.
_NO_ITEM = -(1 << 31) - 1


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
    texts = _held(lengths, _TEXTS, sorted(task.roles))
    pictures = _held(lengths, _PICTURES, needed.pictures)
    together = [texts[role] for role in needed.texts] + list(pictures.values())
    lacks = _media(task)
    lacks |= {f"no_text:{role}": _lacking(held) for role, held in texts.items()}
    lacks |= {f"no_image:{role}": _lacking(held) for role, held in pictures.items()}
    if together:
        lacks["no_item"] = pl.lit(pl.Series(~_complete(len(lengths), together)))
    if task.denoises_text:
        lacks["target_too_short"] = _lacking(texts[task.target_role or ""], _DENOISING_TOKENS)
    why = [pl.when(missing.fill_null(True)).then(pl.lit(reason)) for reason, missing in lacks.items()]
    return lengths.select(reason=pl.coalesce([*why, pl.lit(None, dtype=pl.String)])).to_series()


@dataclass(frozen=True)
class _Held:
    """What rows hold of one role: row and item of each segment (or target picture) that is not empty, and by row the
    length of all of them."""

    row: Int64s
    item: Int64s
    totals: Int64s


def _held(lengths: pl.DataFrame, columns: tuple[str, str, str], roles: Sequence[str]) -> dict[str, _Held]:
    """What the rows hold of each role."""
    if not roles:
        return {}
    counts = lengths[columns[0]].list.len()
    rows = np.repeat(np.arange(len(lengths)), counts.to_numpy())
    # A list without entries would be exploded to one null.
    role, item, length = (lengths[name].filter(counts > 0).explode() for name in columns)
    items = item.cast(pl.Int64).fill_null(_NO_ITEM).to_numpy()
    sizes = length.to_numpy()
    found = {}
    for one in roles:
        held = np.flatnonzero((role == one).to_numpy() & (sizes > 0))
        totals = np.bincount(rows[held], sizes[held], len(lengths)).astype(np.int64)
        found[one] = _Held(rows[held], items[held], totals)
    return found


def _lacking(held: _Held, least: int = 1) -> pl.Expr:
    """Whether a row has less than the least length of a role."""
    return pl.lit(pl.Series(held.totals < least))


def _complete(rows: int, wanted: Sequence[_Held]) -> Bools:
    """By row, whether some item, with what has no item, has all of the wanted."""
    loose = np.zeros((len(wanted), rows), np.bool_)
    for number, held in enumerate(wanted):
        loose[number, held.row[held.item == _NO_ITEM]] = True
    complete = np.asarray(loose.all(axis=0), np.bool_)
    # One number for row and item, of each segment whose row is still in question.
    named = [np.flatnonzero((held.item != _NO_ITEM) & ~complete[held.row]) for held in wanted]
    for number, (held, own) in enumerate(zip(wanted, named, strict=True)):
        loose[number, held.row[own]] = False  # what some item has, each must have for itself
    keys = [
        held.row[own] * (1 << 32) + (held.item[own] - _NO_ITEM - 1) for held, own in zip(wanted, named, strict=True)
    ]
    every, places = np.unique(np.concatenate(keys), return_inverse=True)
    row = every >> 32
    has = loose[:, row]
    for number, own in enumerate(np.split(places, np.cumsum([len(one) for one in keys])[:-1])):
        has[number, own] = True
    complete[row[has.all(axis=0)]] = True
    return complete


def _media(task: Task) -> dict[str, pl.Expr]:
    """Reason -> whether a row lacks it, for images and audio."""
    reads = {*task.inputs, task.own_stream}
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
