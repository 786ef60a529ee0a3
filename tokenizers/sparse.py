"""Vectors of numbers as ids, each number with its range: states, actions, camera poses.

A number comes back within `NumberFormat.error` of its range: with location tokens one 999th of the range, downwards;
with decimals half a unit of the last digit. What more a structure's own geometry costs is said where it is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from omnimill.errors import BadRecord
from omnimill.locations import ANGLE, CAMERA, RADIUS_CHANGE, SINE, Range, camera_pose
from omnimill.schema import View
from omnimill.tokenizers.number_format import NumberFormat, Numbers


def encode_vector(values: Sequence[float], ranges: Sequence[Range], numbers: NumberFormat) -> list[int]:
    """One number per range.

    Raises:
        BadRecord: ``vector_length`` when there are not as many values as ranges, ``number_not_finite``.
    """
    return numbers.write([values], ranges)


def decode_vector(ids: Sequence[int], ranges: Sequence[Range], numbers: NumberFormat) -> Numbers:
    """Inverse of :func:`encode_vector`, within `numbers.error` of each range.

    Raises:
        BadRecord: ``numbers_malformed``: the ids are not one vector.
    """
    parts = numbers.read(ids, ranges)
    if len(parts) != 1 or isinstance(parts[0], str):
        words = [part[:40] for part in parts if isinstance(part, str)]
        found = f"the words {words[0]!r}" if words else f"{len(parts)} groups of numbers"
        raise BadRecord("numbers_malformed", f"found {found}; allowed: one group of {len(ranges)}")
    return parts[0]


class CameraChange(NamedTuple):
    """A camera relative to another: change of polar angle, turn (radians, -pi … pi), change of distance."""

    theta: float
    phi: float
    radius: float


def encode_camera(view: View, first: View, numbers: NumberFormat) -> list[int]:
    """Four numbers: theta, sin phi, cos phi, r of a camera relative to its example's first (ranges `CAMERA`)."""
    return encode_vector(camera_pose(_pose(view), _pose(first)), CAMERA, numbers)


def decode_camera(ids: Sequence[int], numbers: NumberFormat) -> CameraChange:
    """Inverse of :func:`encode_camera`, within :func:`camera_error`.

    Raises:
        BadRecord: ``numbers_malformed``.
    """
    theta, sine, cosine, radius = decode_vector(ids, CAMERA, numbers)
    return CameraChange(theta, math.atan2(sine, cosine), radius)


def camera_error(numbers: NumberFormat) -> CameraChange:
    """Largest differences of what comes back; 0.0063, 0.0028 and 0.0014 with 1,000 location tokens.

    A sine and a cosine that are each off by e move a point of the unit circle by up to e * sqrt(2).
    """
    moved = math.sqrt(2) * numbers.error(SINE)
    return CameraChange(numbers.error(ANGLE), math.asin(min(moved, 1.0)), numbers.error(RADIUS_CHANGE))


def _pose(view: View) -> tuple[float, float, float]:
    return view.theta, view.phi, view.radius
