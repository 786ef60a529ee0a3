"""What adapters of boxes in space share: cuboids as annotations, and cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.numbers import is_finite_number
from omnimill.schema import Annotation

Matrix = npt.NDArray[np.float64]

# How far the two focal lengths of a camera may be apart: the schema's camera has square pixels.
_SQUARE = 0.02


@dataclass(frozen=True)
class Pinhole:
    """focal: length, and x, y: principal point, in pixels."""

    focal: float
    x: float
    y: float


def pinhole(focal_x: float, focal_y: float, x: float, y: float) -> Pinhole:
    """A camera by its two focal lengths, of which the mean is taken.

    Raises:
        BadRecord: ``camera_invalid`` when they are not positive, or more than 2 % apart.
    """
    mean = (focal_x + focal_y) / 2
    if not (min(focal_x, focal_y) > 0 and abs(focal_x - focal_y) <= _SQUARE * mean):
        raise BadRecord("camera_invalid", f"focal lengths {focal_x} and {focal_y}")
    return Pinhole(mean, x, y)


def numbers(value: object, field: str, *shape: int) -> Matrix:
    """Numbers in lists of this shape.

    Raises:
        BadRecord: ``cuboid_malformed``.
    """
    flat: list[float] = []
    rows = [value] if len(shape) == 1 else value
    for row in rows if isinstance(rows, list) else []:
        flat += [float(one) for one in row if is_finite_number(one)] if isinstance(row, list) else []
    if len(flat) != int(np.prod(shape)):
        raise BadRecord("cuboid_malformed", f"{field!r} is {value!r}"[:200] + f"; wanted are numbers {list(shape)}")
    return np.array(flat).reshape(shape)


def cuboid(
    label: str, box: Sequence[float], centre: Matrix, size: Matrix, rotation: Matrix, camera: Pinhole, image: int = 0
) -> Annotation:
    """The annotation of a cuboid.

    Args:
        box: y1, x1, y2, x2 of its projection, in shares of the picture. centre: [3], size: [3] as width, height,
            length, in metres, rotation: [3, 3], object to camera; the camera's axes are x right, y down, z forward.
    """
    values = [*centre.tolist(), *size.tolist(), *rotation.ravel().tolist(), camera.focal, camera.x, camera.y]
    return Annotation(kind="cuboid", image=image, label=label, box=list(box), role="cuboids", values=values)


def clipped(box: Sequence[float]) -> list[float] | None:
    """A box in shares cut at the picture's edges; None when nothing of it is left."""
    y1, x1, y2, x2 = (min(max(side, 0.0), 1.0) for side in box)
    return [y1, x1, y2, x2] if y2 > y1 and x2 > x1 else None
