"""Boxes: intersection over union, one box sought, detection, localisation and reading of words, tracking.

Intersection over union does not change when a picture is stretched, so boxes are compared in shares of their picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from omnimill.tokenizers.places import Box
from omnimill.training.metrics.answers import normalise, precision_recall
from omnimill.training.metrics.average_precision import COCO_THRESHOLDS, Compared, mean_precision
from omnimill.training.metrics.score import mean, paired

Array = npt.NDArray[np.float64]
Shape = TypeVar("Shape")

# Overlap above which a box repeats an earlier one (arXiv 2312.17172, section E.3).
REPEATED = 0.8
# Overlaps above which a frame counts as a success, of a tracker's curve (Wu, Lim and Yang, OTB-2015).
_SUCCESS = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class Finding(Generic[Shape]):
    """Something in a picture. label: empty when it is not said what it is. confidence: of a prediction."""

    shape: Shape
    label: str = ""
    confidence: float = 1.0


def box_ious(boxes: Sequence[Box], others: Sequence[Box]) -> Array:
    """Intersection over union of each with each: float64 [boxes, others]; 0 where both are empty."""
    one = np.asarray(boxes, np.float64).reshape(-1, 1, 4)
    other = np.asarray(others, np.float64).reshape(1, -1, 4)
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    common = np.maximum(sides, 0.0).prod(axis=-1)
    union = _areas(one) + _areas(other) - common
    return np.asarray(common / np.where(union > 0, union, 1.0))


def _areas(boxes: Array) -> Array:
    return np.asarray(np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0).prod(axis=-1))


def without_repeated(found: Sequence[Finding[Box]], above: float = REPEATED) -> list[Finding[Box]]:
    """The boxes that no box before them repeats: one of the same label with a larger overlap than `above`.

    A model that writes a list gives no confidences; what it wrote first goes first.
    """
    overlaps = box_ious([one.shape for one in found], [one.shape for one in found])
    kept: list[int] = []
    for place, one in enumerate(found):
        if not any(found[earlier].label == one.label and overlaps[earlier, place] > above for earlier in kept):
            kept.append(place)
    return [found[place] for place in kept]


def single_box(predictions: Sequence[Box | None], references: Sequence[Sequence[Box]]) -> dict[str, float | None]:
    """One box that is sought.

    Args:
        references: the boxes that are right, usually one; the one closest to the prediction counts.

    Returns:
        ``acc_50``: share with an intersection over union above 0.5, as referring expressions are judged (Mao et al.,
        arXiv 1511.02283); ``mean_iou``.
    """
    paired(predictions, references)
    overlaps = _overlaps(predictions, references)
    return {"acc_50": mean([value > 0.5 for value in overlaps]), "mean_iou": mean(overlaps)}


def boxes_in_order(
    predictions: Sequence[Sequence[Finding[Box]] | None], references: Sequence[Sequence[Finding[Box]]]
) -> dict[str, float | None]:
    """Boxes of several things that were asked for in turn: as :func:`single_box`, each compared with the one in its
    place; a box that is missing counts as wrong, and so does one too many.
    """
    paired(predictions, references)
    overlaps: list[float] = []
    for found, wanted in zip(predictions, references, strict=True):
        ours = [one.shape for one in found or ()]
        pairs = box_ious(ours, [one.shape for one in wanted])
        both = min(pairs.shape)
        overlaps += [*np.diag(pairs).tolist(), *[0.0] * (max(len(ours), len(wanted)) - both)]
    return {"acc_50": mean([value > 0.5 for value in overlaps]), "mean_iou": mean(overlaps)}


def tracking(predictions: Sequence[Box | None], references: Sequence[Sequence[Box]]) -> dict[str, float | None]:
    """Boxes of followed objects, one for each frame.

    Returns:
        ``mean_iou``: the average overlap, and ``success_50``, the share above 0.5 (GOT-10k, arXiv 1810.11981);
        ``success_auc``: area under the share of overlaps above a threshold, over thresholds 0, 0.05 … 1 (OTB-2015).
    """
    paired(predictions, references)
    overlaps = np.array(_overlaps(predictions, references))
    if not len(overlaps):
        return {"mean_iou": None, "success_50": None, "success_auc": None}
    curve = (overlaps[None] > _SUCCESS[:, None]).mean(axis=1)
    return {
        "mean_iou": float(overlaps.mean()),
        "success_50": float((overlaps > 0.5).mean()),
        "success_auc": float(curve.mean()),
    }


def _overlaps(predictions: Sequence[Box | None], references: Sequence[Sequence[Box]]) -> list[float]:
    return [
        0.0 if found is None else float(box_ious([found], wanted).max(initial=0.0))
        for found, wanted in zip(predictions, references, strict=True)
    ]


def compared(
    predictions: Sequence[Sequence[Finding[Shape]] | None],
    references: Sequence[Sequence[Finding[Shape]]],
    similarity: Callable[[Sequence[Shape], Sequence[Shape]], Array],
) -> list[list[Compared]]:
    """For each class of the references, in alphabetical order, all pictures. Labels are compared in lower case."""
    classes: dict[str, list[Compared]] = {
        name: [] for name in sorted({normalise(one.label) for wanted in references for one in wanted})
    }
    for found, wanted in zip(predictions, references, strict=True):
        ours, theirs = _by_label(found or ()), _by_label(wanted)
        for name in classes.keys() & (ours.keys() | theirs.keys()):
            one, other = ours.get(name, []), theirs.get(name, [])
            overlaps = similarity([finding.shape for finding in one], [finding.shape for finding in other])
            classes[name].append(Compared(overlaps, np.array([finding.confidence for finding in one], np.float64)))
    return list(classes.values())


def _by_label(findings: Sequence[Finding[Shape]]) -> dict[str, list[Finding[Shape]]]:
    groups: dict[str, list[Finding[Shape]]] = {}
    for one in findings:
        groups.setdefault(normalise(one.label), []).append(one)
    return groups


def detection(
    predictions: Sequence[Sequence[Finding[Box]] | None], references: Sequence[Sequence[Finding[Box]]]
) -> dict[str, float | None]:
    """COCO's average precisions (arXiv 1405.0312), over boxes of all sizes, and GRIT's localisation.

    As in COCO's evaluation, classes without a reference in any picture are not judged.

    Returns:
        ``ap``: the mean over thresholds 0.50 … 0.95; ``ap_50``; ``ap_75``; ``localisation``: see :func:`localisation`.
    """
    paired(predictions, references)
    found = mean_precision(compared(predictions, references, box_ious), COCO_THRESHOLDS)
    precisions: dict[str, float | None] = {"ap": None, "ap_50": None, "ap_75": None}
    if found is not None:
        precisions = {"ap": float(found.mean()), "ap_50": float(found[0]), "ap_75": float(found[5])}
    return {**precisions, "localisation": localisation(predictions, references)}


def localisation(
    predictions: Sequence[Sequence[Finding[Box]] | None], references: Sequence[Sequence[Finding[Box]]]
) -> float | None:
    """GRIT's score of a picture (arXiv 2204.13653), the mean over pictures: the sum of overlaps of the best one-to-one
    assignment over the number of findings and of references that were missed. Boxes of different labels do not match.

    It needs no confidences. Nothing found where there is nothing is 1.
    """
    return mean(
        [
            0.0 if found is None else assignment_score(_same_label(found, wanted))
            for found, wanted in zip(predictions, references, strict=True)
        ]
    )


def assignment_score(similarity: Array) -> float:
    """Sum of the best assignment's similarities over the number of findings (rows) and of references without one."""
    found, wanted = similarity.shape
    if not found and not wanted:
        return 1.0
    pairs = assigned(similarity)
    return float(similarity[pairs].sum() / (found + wanted - np.count_nonzero(similarity[pairs] > 0)))


def assigned(similarity: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the one-to-one assignment with the largest sum."""
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - half a second that only evaluation needs

    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return rows, columns


def _same_label(found: Sequence[Finding[Box]], wanted: Sequence[Finding[Box]]) -> Array:
    overlaps = box_ious([one.shape for one in found], [one.shape for one in wanted])
    same = [[normalise(one.label) == normalise(other.label) for other in wanted] for one in found]
    return overlaps * np.array(same, np.float64).reshape(overlaps.shape)


def spotting(
    predictions: Sequence[Sequence[Finding[Box]] | None], references: Sequence[Sequence[Finding[Box]]]
) -> dict[str, float | None]:
    """Words and where they stand: precision, recall and F1 of boxes (overlap above 0.5), and of boxes read rightly.

    One-to-one, over the words of all pictures together, case apart (ICDAR 2015's protocol of robust reading).
    """
    paired(predictions, references)
    boxes = words = found = wanted = 0
    for ours, theirs in zip(predictions, references, strict=True):
        findings = list(ours or ())
        found, wanted = found + len(findings), wanted + len(theirs)
        overlaps = box_ious([one.shape for one in findings], [one.shape for one in theirs]) > 0.5
        read = overlaps & (_same_label(findings, theirs) > 0.5)
        boxes += int(overlaps[assigned(overlaps.astype(np.float64))].sum())
        words += int(read[assigned(read.astype(np.float64))].sum())
    return {**precision_recall("box", boxes, found, wanted), **precision_recall("word", words, found, wanted)}
