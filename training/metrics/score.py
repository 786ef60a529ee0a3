"""What a metric says of a set of predictions.

A metric is a function of predictions and references of equal length, in the same order. A prediction that could not be
read is None: it counts as wrong and is counted, never left out.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """value: None when there is nothing that it could be computed from. count: of references. unread: predictions that
    could not be read.
    """

    name: str
    value: float | None
    count: int
    unread: int = 0


def unread(predictions: Sequence[Any]) -> int:
    """How many predictions could not be read."""
    return sum(prediction is None for prediction in predictions)


def paired(predictions: Sized, references: Sized) -> int:
    """The common length; ValueError when there are not as many predictions as references."""
    if len(predictions) != len(references):
        raise ValueError(f"found {len(predictions)} predictions and {len(references)} references")
    return len(references)


def mean(values: Sequence[float]) -> float | None:
    """None for no values."""
    return float(sum(values) / len(values)) if len(values) else None
