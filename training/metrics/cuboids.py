"""Boxes in space: the volume that two turned boxes share, and average precision by it.

The common part of two boxes is convex: its corners are the points in which three of the twelve planes meet and that no
plane cuts off, and its volume is that of the pyramids from a point inside over its faces. This is exact for every
turn, with what coincides counted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from omnimill.tokenizers.cuboids import Cuboid
from omnimill.training.metrics.average_precision import mean_precision
from omnimill.training.metrics.boxes import Finding, compared
from omnimill.training.metrics.score import paired

Array = npt.NDArray[np.float64]

# Overlaps that Omni3D averages over (arXiv 2207.10660, section 5).
OMNI3D_THRESHOLDS = tuple(np.linspace(0.05, 0.5, 10).tolist())
_TRIPLES = np.array(list(combinations(range(12), 3)))
# In units of the smaller box's longest side: what lies on a plane, and planes that are one.
_ON = 1e-7
# Least determinant of three normals that meet in a point.
_MEET = 1e-9


def cuboid_ious(found: Sequence[Cuboid], wanted: Sequence[Cuboid]) -> Array:
    """Intersection over union of the volumes of each with each: float64 [found, wanted]."""
    return np.array([[cuboid_iou(one, other) for other in wanted] for one in found]).reshape(len(found), len(wanted))


def cuboid_iou(one: Cuboid, other: Cuboid) -> float:
    """Intersection over union of two volumes; 0 when one has none."""
    sides = np.array([one.size, other.size], np.float64)
    if sides.min() <= 0:
        return 0.0
    apart = float(np.linalg.norm(np.subtract(one.centre, other.centre)))
    if apart >= np.linalg.norm(sides, axis=1).sum() / 2.0:
        return 0.0
    common = _common_volume(one, other)
    return float(min(common / (sides.prod(axis=1).sum() - common), 1.0))


def cuboid_detection(
    predictions: Sequence[Sequence[Finding[Cuboid]] | None], references: Sequence[Sequence[Finding[Cuboid]]]
) -> dict[str, float | None]:
    """``ap_3d``: COCO's average precision, with overlaps of volumes from 0.05, 0.10 … 0.50 on (arXiv 2207.10660);
    ``ap_3d_25`` and ``ap_3d_50``: at 0.25 and at 0.50.
    """
    paired(predictions, references)
    precision = mean_precision(compared(predictions, references, cuboid_ious), OMNI3D_THRESHOLDS)
    if precision is None:
        return {"ap_3d": None, "ap_3d_25": None, "ap_3d_50": None}
    return {
        "ap_3d": float(precision.mean()),
        "ap_3d_25": float(precision[4]),
        "ap_3d_50": float(precision[9]),
    }


def _common_volume(one: Cuboid, other: Cuboid) -> float:
    # Around the first box's centre and in units of the smaller box, so that one tolerance fits all.
    unit = min(max(one.size), max(other.size))
    normals, offsets = map(np.concatenate, zip(_planes(one, one, unit), _planes(other, one, unit), strict=True))
    corners = _corners(normals, offsets)
    if len(corners) < 4:
        return 0.0
    inside = corners.mean(axis=0)
    volume = 0.0
    for index, (normal, offset) in enumerate(zip(normals, offsets, strict=True)):
        twin = (np.abs(normals[:index] - normal).max(axis=1, initial=0.0) < _ON) & (
            np.abs(offsets[:index] - offset) < _ON
        )
        on_face = corners[np.abs(corners @ normal - offset) < _ON]
        if not twin.any() and len(on_face) >= 3:
            volume += _area(on_face, normal) * float(offset - normal @ inside) / 3.0
    return volume * unit**3


def _planes(box: Cuboid, around: Cuboid, unit: float) -> tuple[Array, Array]:
    """A box as normal @ x <= offset: float64 [6, 3] and [6]."""
    axes = np.asarray(box.rotation, np.float64).T
    normals = np.concatenate([axes, -axes])
    centre = np.subtract(box.centre, around.centre) / unit
    return normals, normals @ centre + np.tile(np.asarray(box.size, np.float64), 2) / 2.0 / unit


def _corners(normals: Array, offsets: Array) -> Array:
    """Where three planes meet and no plane cuts off: float64 [n, 3], corners of four or more planes several times."""
    matrices = normals[_TRIPLES]
    meets = np.abs(np.linalg.det(matrices)) > _MEET
    points = np.linalg.solve(matrices[meets], offsets[_TRIPLES][meets][..., None])[..., 0]
    return np.asarray(points[(points @ normals.T <= offsets + _ON).all(axis=1)])


def _area(points: Array, normal: Array) -> float:
    """Of the convex polygon of points in a plane."""
    middle = points.mean(axis=0)
    arms = points - middle
    along = arms[np.square(arms).sum(axis=1).argmax()]
    length = float(np.linalg.norm(along))
    if length < _ON:
        return 0.0
    across = np.cross(normal, along / length)
    x, y = arms @ (along / length), arms @ across
    order = np.argsort(np.arctan2(y, x))
    x, y = x[order], y[order]
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2.0
