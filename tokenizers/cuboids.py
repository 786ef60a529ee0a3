"""Boxes in space as twelve numbers, relative to the object's box in the picture.

Unified-IO 2 (arXiv 2312.17172, sections B.1 and D.5) writes u, v, virtual depth, log w, h, l and a rotation of six
numbers; what they mean is Cube R-CNN's (arXiv 2207.10660, section 4): u, v place the projected centre in the box, the
virtual depth is the one at which a camera of fixed focal length and picture height would see the object as large, and
the rotation is allocentric: relative to the ray to the object, so that what looks alike has one rotation. Six numbers
for a rotation are the first two columns of its matrix (arXiv 1812.07035, section 4.2).

Axes are a camera's: x right, y down, z into the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omnimill.config import Config
from omnimill.errors import BadRecord
from omnimill.locations import SINE, UNIT, Range
from omnimill.tokenizers.number_format import NumberFormat
from omnimill.tokenizers.places import Box, Frame
from omnimill.tokenizers.sparse import decode_vector, encode_vector

Matrix = npt.NDArray[np.float64]

_ORTHOGONAL = 1e-3  # how far a rotation matrix may be from one


class CuboidLayout(Config):
    """Ranges of the twelve numbers, and the virtual camera.

    offset: of u and v, in sides of the box; the reference's. depth: virtual, in metres. log_size: natural logarithm of
    metres, here 1 cm to 100 m. The reference's own ranges of depth and size go with units that it does not state.
    focal, height: of the virtual camera, in pixels.
    """

    offset: Range = Range(low=-0.1, high=1.1)
    depth: Range = Range(low=0.0, high=100.0)
    log_size: Range = Range(low=math.log(0.01), high=math.log(100.0))
    focal: float = 512.0
    height: float = 512.0

    @property
    def ranges(self) -> tuple[Range, ...]:
        return (self.offset,) * 2 + (self.depth,) + (self.log_size,) * 3 + (SINE,) * 6


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: focal length, principal point (x, y) and picture height in pixels."""

    focal: float
    centre: tuple[float, float]
    height: float

    def ray(self, x: float, y: float) -> Matrix:
        """Direction through a pixel: float64 [3], z is 1."""
        return np.array([(x - self.centre[0]) / self.focal, (y - self.centre[1]) / self.focal, 1.0])


@dataclass(frozen=True)
class Region:
    """The object's box in the picture, in pixels."""

    y1: float
    x1: float
    y2: float
    x2: float

    def __post_init__(self) -> None:
        if not (self.y2 > self.y1 and self.x2 > self.x1):
            raise BadRecord("region_empty", f"found y {self.y1} to {self.y2}, x {self.x1} to {self.x2}")


@dataclass(frozen=True)
class Cuboid:
    """centre: x, y, z in metres. size: width, height, length in metres. rotation: float64 [3, 3], object to camera."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    rotation: Matrix


def encode_cuboid(
    cuboid: Cuboid, region: Region, camera: Camera, numbers: NumberFormat, layout: CuboidLayout | None = None
) -> list[int]:
    """Twelve numbers: u, v, virtual depth, log w, h, l, two columns of the allocentric rotation.

    Raises:
        BadRecord: ``cuboid_behind_camera``, ``cuboid_size_invalid``, ``rotation_invalid``, ``number_not_finite``.
    """
    layout = layout or CuboidLayout()
    return encode_vector(_twelve(cuboid, region, camera, layout), layout.ranges, numbers)


def _twelve(cuboid: Cuboid, region: Region, camera: Camera, layout: CuboidLayout) -> list[float]:
    x, y, z = cuboid.centre
    if z <= 0:
        raise BadRecord("cuboid_behind_camera", f"found a centre at depth {z}")
    if min(cuboid.size) <= 0:
        raise BadRecord("cuboid_size_invalid", f"found {cuboid.size}")
    column, row = camera.focal * x / z + camera.centre[0], camera.focal * y / z + camera.centre[1]
    return [
        (column - region.x1) / (region.x2 - region.x1),
        (row - region.y1) / (region.y2 - region.y1),
        z * _virtual(camera, layout),
        *(math.log(side) for side in cuboid.size),
        *rotation_to_six(_turn_to(camera.ray(column, row)).T @ cuboid.rotation),
    ]


def decode_cuboid(
    ids: Sequence[int], region: Region, camera: Camera, numbers: NumberFormat, layout: CuboidLayout | None = None
) -> Cuboid:
    """Inverse of :func:`encode_cuboid`, within :func:`cuboid_error`.

    Raises:
        BadRecord: ``numbers_malformed``, ``rotation_invalid``.
    """
    layout = layout or CuboidLayout()
    return _of_twelve(decode_vector(ids, layout.ranges, numbers), region, camera, layout)


def _of_twelve(values: Sequence[float], region: Region, camera: Camera, layout: CuboidLayout) -> Cuboid:
    u, v, depth, *rest = values
    column = region.x1 + u * (region.x2 - region.x1)
    row = region.y1 + v * (region.y2 - region.y1)
    z = depth / _virtual(camera, layout)
    ray = camera.ray(column, row)
    x, y, z = (float(value) for value in ray * z)
    width, height, length = (math.exp(value) for value in rest[:3])
    return Cuboid((x, y, z), (width, height, length), _turn_to(ray) @ six_to_rotation(rest[3:]))


def from_values(values: Sequence[float], height: float) -> tuple[Cuboid, Camera]:
    """A cuboid and its camera from the numbers of an annotation (`omnimill.schema.Annotation.values`).

    Args:
        values: centre x, y, z, size w, h, l, rotation (9, row by row), focal length, principal point x, y.
        height: of the picture, in pixels.

    Raises:
        BadRecord: ``cuboid_invalid`` when there are not 18 finite numbers, or the focal length is not positive.
    """
    if len(values) != 18 or not all(map(math.isfinite, values)) or values[15] <= 0:
        raise BadRecord(
            "cuboid_invalid",
            f"found {len(values)} numbers {list(values)[:18]}; allowed: 18 finite ones, a focal length above 0",
        )
    x, y, z, width, tall, length, *turn, focal, column, row = values
    rotation = np.array(turn, np.float64).reshape(3, 3)
    return Cuboid((x, y, z), (width, tall, length), rotation), Camera(focal, (column, row), height)


def encode_object(
    cuboid: Cuboid, box: Box, camera: Camera, frame: Frame, numbers: NumberFormat, label: str = ""
) -> list[int]:
    """A box of a picture in shares of it, the twelve numbers of the cuboid in it, and a label: one group of 16 numbers.

    Raises:
        BadRecord: as :func:`encode_cuboid`; ``region_empty``.
    """
    layout = CuboidLayout()
    twelve = _twelve(cuboid, _region(box, frame), camera, layout)
    return numbers.write([[*frame.to_canvas(box), *twelve], label], (*(UNIT,) * 4, *layout.ranges))


def decode_objects(
    ids: Sequence[int], camera: Camera, frame: Frame, numbers: NumberFormat
) -> list[tuple[Cuboid, Box, str]]:
    """Inverse of :func:`encode_object`, for any number of objects in a row.

    The box comes back within :meth:`Frame.error`, the cuboid within :func:`cuboid_error` of the box that came back, its
    projected centre by as much more as the box's edges moved.

    Raises:
        BadRecord: ``numbers_malformed``, ``region_empty``, ``rotation_invalid``.
    """
    layout = CuboidLayout()
    found: list[tuple[Cuboid, Box, str]] = []
    for part in numbers.read(ids, (*(UNIT,) * 4, *layout.ranges)):
        if isinstance(part, str):
            if not found:
                raise BadRecord(
                    "numbers_malformed", f"found the words {part[:40]!r} first; allowed: numbers, then a label"
                )
            found[-1] = (*found[-1][:2], part)
        else:
            box = Box(*frame.to_picture(part[:4]))
            found.append((_of_twelve(part[4:], _region(box, frame), camera, layout), box, ""))
    return found


@dataclass(frozen=True)
class CuboidError:
    """Largest differences: pixels of the projected centre (column, row), metres of depth, the factor of a side, radians
    of the allocentric rotation and of the rotation seen from the camera."""

    column: float
    row: float
    depth: float
    size: float
    allocentric: float
    rotation: float


def cuboid_error(
    region: Region, camera: Camera, numbers: NumberFormat, layout: CuboidLayout | None = None
) -> CuboidError:
    """What :func:`decode_cuboid` may be off by, for a cuboid whose twelve numbers are inside their ranges.

    Each of the six numbers of a rotation is off by at most e, a column by e * sqrt(3): the first axis turns by that,
    the second and third by up to twice and three times that, the whole by less than 3 * sqrt(3) * e. The ray to a
    centre that moved in the picture turns by no more than the pixels that it moved over the focal length, and the
    rotation that goes with it by less than twice that.
    """
    layout = layout or CuboidLayout()
    offset, entry = numbers.error(layout.offset), numbers.error(SINE)
    column, row = offset * (region.x2 - region.x1), offset * (region.y2 - region.y1)
    allocentric = min(3 * math.sqrt(3) * entry, math.pi)
    return CuboidError(
        column=column,
        row=row,
        depth=numbers.error(layout.depth) / _virtual(camera, layout),
        size=math.exp(numbers.error(layout.log_size)),
        allocentric=allocentric,
        rotation=min(allocentric + 2 * math.hypot(column, row) / camera.focal, math.pi),
    )


def rotation_to_six(rotation: Matrix) -> tuple[float, ...]:
    """The first two columns of a rotation matrix, one after the other.

    Raises:
        BadRecord: ``rotation_invalid`` when the matrix is not a rotation.
    """
    matrix = np.asarray(rotation, np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise BadRecord("rotation_invalid", f"found {matrix.shape} with values {matrix.ravel()[:9].tolist()}")
    off = float(np.abs(matrix.T @ matrix - np.eye(3)).max())
    if off > _ORTHOGONAL or np.linalg.det(matrix) < 0:
        raise BadRecord(
            "rotation_invalid",
            f"columns are off from orthonormal by {off:.3g}, determinant {np.linalg.det(matrix):.3g}; allowed: "
            f"{_ORTHOGONAL} and 1",
        )
    return tuple(matrix[:, :2].T.ravel().tolist())


def six_to_rotation(values: Sequence[float]) -> Matrix:
    """The rotation whose first two columns are nearest to six numbers in Gram-Schmidt's sense: float64 [3, 3].

    Raises:
        BadRecord: ``rotation_invalid`` when the two columns have no length or one direction.
    """
    first, second = np.asarray(values, np.float64).reshape(2, 3)
    axis = _unit(first)
    other = _unit(second - (axis @ second) * axis)
    return np.stack([axis, other, np.cross(axis, other)], axis=1)


def _region(box: Box, frame: Frame) -> Region:
    return Region(box.y1 * frame.height, box.x1 * frame.width, box.y2 * frame.height, box.x2 * frame.width)


def _unit(vector: Matrix) -> Matrix:
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise BadRecord("rotation_invalid", f"columns {vector.tolist()} span no rotation")
    unit: Matrix = vector / length
    return unit


def _virtual(camera: Camera, layout: CuboidLayout) -> float:
    """Virtual depth of a metre of depth."""
    return layout.focal / camera.focal * camera.height / layout.height


def _turn_to(ray: Matrix) -> Matrix:
    """The smallest rotation that takes the optical axis to a ray (Rodrigues' formula): float64 [3, 3]."""
    x, y, z = _unit(ray)
    return np.array(
        [
            [1 - x * x / (1 + z), -x * y / (1 + z), x],
            [-x * y / (1 + z), 1 - y * y / (1 + z), y],
            [-x, -y, z],
        ]
    )
