"""Poses of people: object keypoint similarity, and average precision by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omnimill.tokenizers.keypoints import NOT_LABELLED
from omnimill.training.metrics.average_precision import COCO_THRESHOLDS, mean_precision
from omnimill.training.metrics.boxes import Finding, compared
from omnimill.training.metrics.score import mean, paired

Array = npt.NDArray[np.float64]

# COCO's deviations of how people place the 17 parts, in shares of the root of the person's area (its keypoint page).
_DEVIATIONS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000.0


@dataclass(frozen=True)
class Person:
    """points: float64 [17, 3]: y and x in pixels, and COCO's visibility. area: of the person's mask in pixels; None:
    that of the box around the labelled parts, as GRIT takes it (arXiv 2204.13653).
    """

    points: Array
    area: float | None = None


def keypoint_similarities(found: Sequence[Person], wanted: Sequence[Person]) -> Array:
    """Object keypoint similarity of each with each: float64 [found, wanted].

    The mean over the labelled parts of exp(-d^2 / (2 area (2 s)^2)) with the part's deviation s (COCO's keypoint
    evaluation); 0 for a reference without a labelled part. What visibility a finding states does not matter.
    """
    similarities = np.zeros((len(found), len(wanted)))
    for column, person in enumerate(wanted):
        labelled = person.points[:, 2] > NOT_LABELLED
        if not labelled.any():
            continue
        places = person.points[labelled, :2]
        area = float(np.ptp(places, axis=0).prod()) if person.area is None else person.area
        scale = 2.0 * (area + np.spacing(1.0)) * (2.0 * _DEVIATIONS[labelled]) ** 2
        for row, one in enumerate(found):
            distance = np.square(one.points[labelled, :2] - places).sum(axis=1)
            similarities[row, column] = np.exp(-distance / scale).mean()
    return similarities


def single_pose(predictions: Sequence[Person | None], references: Sequence[Person]) -> dict[str, float | None]:
    """The pose of a person whose box was given: mean similarity, and shares from 0.5 and 0.75 on."""
    paired(predictions, references)
    values = [
        0.0 if found is None else float(keypoint_similarities([found], [wanted])[0, 0])
        for found, wanted in zip(predictions, references, strict=True)
    ]
    return {
        "oks": mean(values),
        "oks_50": mean([value >= 0.5 for value in values]),
        "oks_75": mean([value >= 0.75 for value in values]),
    }


def pose_detection(
    predictions: Sequence[Sequence[Finding[Person]] | None], references: Sequence[Sequence[Finding[Person]]]
) -> dict[str, float | None]:
    """Average precision of all people of whole pictures: over similarities 0.50 … 0.95, at 0.50 and at 0.75.

    COCO keeps 20 findings of a picture and leaves out people without labelled parts; so should the caller.
    """
    paired(predictions, references)
    found = mean_precision(compared(predictions, references, keypoint_similarities), COCO_THRESHOLDS)
    if found is None:
        return {"ap": None, "ap_50": None, "ap_75": None}
    return {"ap": float(found.mean()), "ap_50": float(found[0]), "ap_75": float(found[5])}
