"""Token budgets (4M, arXiv 2312.06647): of every modality some tokens are input, and some of the rest the target.

The tokens of both sides are drawn per example, and the share of each modality in them by a Dirichlet distribution. As
in the reference of the method a modality that has fewer tokens than its share leaves the rest unused, and what is asked
for of a picture or clip is what its input does not show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from omnimill.rng import Floats, Int64s, UInt64s, choose_many, subkey_many, unit_many
from omnimill.training.objectives.settings import TokenBudgets
from omnimill.training.objectives.spans import Mask
from omnimill.training.objectives.text import PARADIGMS, Rule, TextSplits
from omnimill.training.planning.draws import Purpose

Modality = Literal["text", "image", "audio"]
MODALITIES: tuple[Modality, ...] = ("text", "image", "audio")
_INPUT, _TARGET = 0, 1
# Shares are rounded to so many parts, so that the last bits of logarithms, in which machines differ, decide nothing.
_PARTS = 1 << 24


@dataclass(frozen=True)
class Medium:
    """The current picture or clip of n examples. valid, codes: int64 [n], its patches and its codes, 0 where there is
    none. most: patches that are kept of it at most. grid: patches of a whole canvas."""

    valid: Int64s
    codes: Int64s
    most: int
    grid: int


@dataclass(frozen=True)
class Portions:
    """What n examples show and ask for: int64 [n] by modality; patches and codes, of text a budget for each side."""

    shown: Mapping[Modality, Int64s]
    asked: Mapping[Modality, Int64s]


def portions(
    settings: TokenBudgets, text: Int64s, target_room: int, media: Mapping[Modality, Medium], keys: UInt64s
) -> Portions:
    """Share both budgets out.

    Args:
        text: int64 [n]; tokens of the target text, 0 where there is none.
        target_room: most tokens of text for the decoder, without EOS.
        media: those that the task reads.
        keys: uint64 [n]; of the examples.

    Returns:
        At least one token is asked for of every example that has any to ask for.
    """
    most_shown = {
        # One patch of what has codes to ask for stays hidden.
        name: np.minimum(np.maximum(one.valid - (one.codes > 0), 0), one.most)
        for name, one in media.items()
    }
    shown = _share(settings.input_tokens, settings.alphas, {"text": text, **most_shown}, keys, _INPUT)
    most_asked = {
        # As many codes as lie in what is not shown, roughly: patches and codes have grids of their own.
        name: np.where(
            (one.valid > 0) & (one.codes > 0), np.maximum(one.codes * (one.valid - shown[name]) // one.grid, 1), 0
        )
        for name, one in media.items()
    }
    room = np.minimum(text, target_room)
    return Portions(shown, _share(settings.target_tokens, settings.alphas, {"text": room, **most_asked}, keys, _TARGET))


def divide(settings: TokenBudgets, whole: Int64s, shown: Int64s, asked: Int64s, keys: UInt64s) -> TextSplits:
    """Text by the budgets of its two sides: spans of it hidden, in the ratio of the two.

    Where one side gets less than a span with its sentinel, or the text has a single token, text is the target as far as
    its budget goes, or input where it has none.

    Args:
        whole: int64 [n]; tokens of the texts. shown, asked: int64 [n]; their budgets.
    """
    both = (shown >= 2) & (asked >= 2) & (whole >= 2)
    rule = Rule(
        rate=np.where(both, asked / np.maximum(shown + asked, 1), 1.0),
        span=np.where(both, settings.mean_span, 0.0),
        moved=np.zeros(len(whole), np.int64),
    )
    window = np.where(both, rule.longest(whole, shown, asked), 0)
    noise, spans = rule.divide(np.maximum(window, 2))
    one_side = np.minimum(whole, np.where(asked > 0, asked, shown))
    window = np.where(both, window, one_side)
    return TextSplits(
        paradigm=np.where(both, PARADIGMS.index("R"), PARADIGMS.index("S")),
        start=choose_many(subkey_many(keys, Purpose.WINDOW), np.maximum(whole - window, 0) + 1),
        length=window,
        noise=np.where(both, noise, np.where(asked > 0, one_side, 0)),
        spans=np.where(both, spans, 0),
        moved=np.zeros(len(whole), np.bool_),
        keys=keys,
    )


def _share(
    budget: tuple[int, int],
    alphas: tuple[float, ...],
    most: Mapping[Modality, Int64s],
    keys: UInt64s,
    side: int,
) -> dict[Modality, Int64s]:
    """A budget in whole tokens: each modality its share rounded down, the largest the rest, none more than its most."""
    low, high = budget
    total = low + choose_many(subkey_many(keys, Purpose.BUDGET, side, 0), np.full(len(keys), high - low + 1))
    drawn = choose_many(subkey_many(keys, Purpose.BUDGET, side, 1), np.full(len(keys), len(alphas)))
    limits = np.stack([most[name] for name in most])
    numbers = np.array([MODALITIES.index(name) for name in most])
    parts = _dirichlet(np.array(alphas)[drawn], limits > 0, subkey_many(keys, Purpose.BUDGET, side, 2), numbers)
    tokens = total * parts // _PARTS
    tokens[parts.argmax(axis=0), np.arange(len(keys))] += total - tokens.sum(axis=0)
    return dict(zip(most, np.minimum(tokens, limits), strict=True))


def _dirichlet(alpha: Floats, present: Mask, keys: UInt64s, numbers: Int64s) -> Int64s:
    """Shares of the modalities that are there, in parts of `_PARTS`: int64 [modalities, n].

    A gamma variable of shape alpha is one of shape alpha + 1 times u^(1 / alpha) for a uniform u, which stays finite
    as a logarithm however small alpha is.
    """
    from scipy.special import gammaincinv  # noqa: PLC0415 - only this objective needs it

    rows = []
    for number, here in zip(numbers, present, strict=True):
        shape, power = (_open(unit_many(subkey_many(keys, int(number), part))) for part in (0, 1))
        rows.append(np.where(here, np.log(gammaincinv(alpha + 1, shape)) + np.log(power) / alpha, -np.inf))
    logs = np.stack(rows)
    top = logs.max(axis=0)
    weights = np.exp(logs - np.where(np.isfinite(top), top, 0.0))
    whole = weights.sum(axis=0)
    found: Int64s = np.rint(weights / np.where(whole > 0, whole, 1.0) * _PARTS).astype(np.int64)
    return found


def _open(points: Floats) -> Floats:
    """Points of [0, 1) moved into (0, 1)."""
    found: Floats = np.maximum(points, 2.0**-53)
    return found
