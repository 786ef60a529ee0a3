"""Boxes in space: the volume that two turned boxes share, and average precision by it.

The surface of the common part consists of what the planes of each box leave of the faces of the other one (Sutherland
and Hodgman's clipping), and its volume is the sum over these of area times distance of the plane from the origin, by
three (the divergence theorem). This is exact for every turn. Faces that coincide would count twice or not at all, so
one box is taken a billionth smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from omnimill.tokenizers.cuboids import Cuboid
from omnimill.training.metrics.average_precision import mean_precision
from omnimill.training.metrics.boxes import Finding, compared
from omnimill.training.metrics.score import paired

Array = npt.NDArray[np.float64]

# Overlaps that Omni3D averages over (arXiv 2207.10660, section 5).
OMNI3D_THRESHOLDS = tuple(np.linspace(0.05, 0.5, 10).tolist())
# By how much; the overlap of a box with itself is six times that below one.
_SHRUNK = 1e-9
# Corners of the faces towards x, y, z, -x, -y, -z, in half sides, around each.
_FACES = np.array(
    [
        [np.roll((sign, u, v), axis) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        for sign in (1, -1)
        for axis in range(3)
    ],
    np.float64,
)


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
    # Around the first box's centre and in units of the smaller box, so that rounding is the same for all sizes.
    unit = min(max(one.size), max(other.size))
    boxes = [_box(one, one, unit, 1.0), _box(other, one, unit, 1.0 - _SHRUNK)]
    volume = 0.0
    for (normals, offsets, faces), (cutting, limits, _) in (boxes, boxes[::-1]):
        for normal, offset, face in zip(normals, offsets, faces, strict=True):
            left = face
            for cut, limit in zip(cutting, limits, strict=True):
                left = _clipped(left, cut, limit)
            volume += float(offset) * _area(left, normal) / 3.0
    return max(volume, 0.0) * unit**3


def _box(box: Cuboid, around: Cuboid, unit: float, scale: float) -> tuple[Array, Array, Array]:
    """A box as its planes, normal @ x <= offset, float64 [6, 3] and [6], and its faces, [6, 4, 3]."""
    axes = np.asarray(box.rotation, np.float64).T
    halves = np.asarray(box.size, np.float64) / 2.0 / unit * scale
    centre = np.subtract(box.centre, around.centre) / unit
    normals = np.concatenate([axes, -axes])
    arms = (_FACES * halves) @ axes
    return normals, normals @ centre + np.tile(halves, 2), centre + arms


def _clipped(polygon: Array, normal: Array, limit: float) -> Array:
    """The part of a convex polygon, float64 [n, 3], with normal @ x <= limit."""
    beyond = polygon @ normal - limit
    inside = beyond <= 0
    if inside.all():
        return polygon
    points = []
    for here, point in enumerate(polygon):
        before = here - 1
        if inside[here] != inside[before]:
            share = beyond[here] / (beyond[here] - beyond[before])
            points.append(point + share * (polygon[before] - point))
        if inside[here]:
            points.append(point)
    return np.array(points).reshape(-1, 3)


def _area(polygon: Array, normal: Array) -> float:
    """Of a convex polygon in the plane of a normal; 0 for fewer than three points."""
    if len(polygon) < 3:
        return 0.0
    arms = polygon[1:] - polygon[0]
    return abs(float(np.cross(arms[:-1], arms[1:]).sum(axis=0) @ normal)) / 2.0
