"""Numbers within their ranges: actions, states, camera poses, measures of boxes, places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omnimill.locations import LOCATIONS, Range
from omnimill.tokenizers.sparse import CameraChange
from omnimill.training.metrics.score import mean, paired

# Differences of bins that still count as the same; one is what writing and reading may cost.
_TOLERANCES = (1, 10)
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Vector:
    """Numbers and the range of each. words: what stands with them (steps on a table), in order."""

    values: tuple[float, ...]
    ranges: tuple[Range, ...]
    words: tuple[str, ...] = ()


def vector_accuracy(predictions: Sequence[Vector | None], references: Sequence[Vector]) -> dict[str, float | None]:
    """Numbers within bins of their ranges, and all words as they should be.

    A bin is a 999th of a range. Vectors of another length or with other words are wrong in every number.

    Returns:
        ``within_1_bin``, ``within_10_bins``: shares of vectors of which every number is that close; ``number_error``:
        mean distance of a number, in shares of its range, 1 for what could not be read.
    """
    paired(predictions, references)
    worst, distances = [], []
    for found, wanted in zip(predictions, references, strict=True):
        apart = _distances(found, wanted)
        worst.append(max(apart, default=0.0))
        # A vector of no numbers (a part that is not in the picture) is right or wrong as a whole.
        distances += [value if math.isfinite(value) else 1.0 for value in apart]
    limits = [(bins + _ROUNDING) / (LOCATIONS - 1) for bins in _TOLERANCES]
    return {
        "within_1_bin": mean([value <= limits[0] for value in worst]),
        "within_10_bins": mean([value <= limits[1] for value in worst]),
        "number_error": mean(distances),
    }


def _distances(found: Vector | None, wanted: Vector) -> list[float]:
    """In shares of ranges; infinite when the vectors are not of one form."""
    if found is None or found.words != wanted.words or len(found.values) != len(wanted.values):
        return [math.inf] * max(len(wanted.values), 1)
    return [
        min(abs(value - right) / (within.high - within.low), 1.0) if within.high > within.low else float(value != right)
        for value, right, within in zip(found.values, wanted.values, wanted.ranges, strict=True)
    ]


def camera_errors(
    predictions: Sequence[CameraChange | None], references: Sequence[CameraChange]
) -> dict[str, float | None]:
    """Changes of a camera around an object.

    Returns:
        ``direction_error``: mean angle in degrees between the camera's places as seen from the object, with the first
        camera on the equator; 180 for what could not be read. ``within_15``: share of smaller angles than 15 degrees.
        ``radius_error``: mean difference of distances; what could not be read has no change of distance.
    """
    paired(predictions, references)
    angles = [
        180.0 if found is None else math.degrees(_angle(found, wanted))
        for found, wanted in zip(predictions, references, strict=True)
    ]
    radii = [
        abs((0.0 if found is None else found.radius) - wanted.radius)
        for found, wanted in zip(predictions, references, strict=True)
    ]
    return {
        "direction_error": mean(angles),
        "within_15": mean([angle < 15.0 for angle in angles]),
        "radius_error": mean(radii),
    }


def _angle(one: CameraChange, other: CameraChange) -> float:
    place, wanted = (
        np.array([math.cos(c.theta) * math.cos(c.phi), math.cos(c.theta) * math.sin(c.phi), math.sin(c.theta)])
        for c in (one, other)
    )
    # Stays exact for small angles, where the arc cosine does not.
    return math.atan2(float(np.linalg.norm(np.cross(place, wanted))), float(place @ wanted))
