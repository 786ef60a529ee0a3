"""Average precision as COCO's evaluation computes it, of whatever can be compared: boxes, cuboids, poses.

Lin et al., arXiv 1405.0312, and its program: findings are matched to references greedily by confidence, precision is
interpolated and read at 101 recalls. One thing differs: findings of equal confidence enter together, so that the order
of pictures decides nothing when a model gives no confidences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# 0.50, 0.55 … 0.95.
COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
# Of one picture and class, by confidence; COCO's.
MOST_FINDINGS = 100
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Compared:
    """Findings and references of one class in one picture.

    similarity: float64 [findings, references]. confidence: float64 [findings].
    """

    similarity: Array
    confidence: Array


def average_precision(pictures: Sequence[Compared], thresholds: Sequence[float]) -> Array | None:
    """Of one class: float64 [thresholds], None when no picture has a reference.

    A finding is right when its similarity to a reference, that none before it took, is at least the threshold.
    """
    wanted = sum(one.similarity.shape[1] for one in pictures)
    if not wanted:
        return None
    matched = [_match(one, thresholds) for one in pictures]
    confidence = np.concatenate([kept for kept, _ in matched])
    right = np.concatenate([hits for _, hits in matched], axis=1)
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, np.ones(min(len(order), 1), np.bool_)))
    hits = np.cumsum(right[:, order], axis=1)[:, ends]
    return np.array([_interpolated(row / wanted, row / (ends + 1)) for row in hits])


def mean_precision(
    classes: Sequence[Sequence[Compared]], thresholds: Sequence[float] = COCO_THRESHOLDS
) -> Array | None:
    """The mean over the classes that have references: float64 [thresholds]; None when none has."""
    found = [one for one in (average_precision(pictures, thresholds) for pictures in classes) if one is not None]
    return np.mean(found, axis=0) if found else None


def _match(one: Compared, thresholds: Sequence[float]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Confidences of what is kept, the highest first, and whether each is right: bool [thresholds, kept]."""
    order = np.argsort(-one.confidence, kind="stable")[:MOST_FINDINGS]
    right = np.zeros((len(thresholds), len(order)), np.bool_)
    for row, threshold in enumerate(thresholds):
        free = one.similarity[order].copy()
        for place in range(len(order) if free.shape[1] else 0):
            best = int(free[place].argmax())
            if free[place, best] >= min(threshold, 1.0 - 1e-10):
                right[row, place] = True
                free[:, best] = -1.0
    return one.confidence[order], right


def _interpolated(recall: Array, precision: Array) -> float:
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.append(best, 0.0)[places].mean())
