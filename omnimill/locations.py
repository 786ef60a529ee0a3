"""Numbers as one of n bins: what location tokens stand for, and the ranges that poses and places have.

A value v of a range [low, high] becomes bin ``floor((v - low) / (high - low) * (n - 1))``, and bin b stands for
``low + b / (n - 1) * (high - low)``; n is 1,000 in Unified-IO 2 (arXiv 2312.17172, section B.1 and its released code).
What comes back lies at most one (n - 1)-th of the range below what went in, and encodes to the same bin again. Values
outside are clipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from pydantic import model_validator

from omnimill.config import Config
from omnimill.errors import BadRecord
from omnimill.schema import View

LOCATIONS = 1000

# Lifts values that rounding left just under their bin's edge; far below any difference that data carry.
_ROUNDING = 1e-9


class Range(Config):
    """The values that location tokens spread over; a range of no width has one value, at bin 0."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not (math.isfinite(self.high - self.low) and self.low <= self.high):
            raise ValueError(f"a range goes from a low to a high finite number, found {self.low} to {self.high}")
        return self

    def error(self, locations: int = LOCATIONS) -> float:
        """Largest difference between a value inside and what its token decodes to."""
        return (self.high - self.low) / (locations - 1)


UNIT = Range(low=0.0, high=1.0)
ANGLE = Range(low=-math.pi, high=math.pi)
SINE = Range(low=-1.0, high=1.0)
# Change of the camera's distance; the reference's range, in object radii here.
RADIUS_CHANGE = Range(low=-0.7, high=0.7)
# theta, sin phi, cos phi, r.
CAMERA = (ANGLE, SINE, SINE, RADIUS_CHANGE)


def to_bin(value: float, within: Range, locations: int = LOCATIONS) -> int:
    """Bin 0 … `locations` - 1 of a value.

    Raises:
        BadRecord: ``number_not_finite``.
    """
    if not math.isfinite(value):
        raise BadRecord("number_not_finite", f"found {value}")
    if within.high == within.low:
        return 0
    share = (value - within.low) / (within.high - within.low)
    return math.floor(min(max(share, 0.0), 1.0) * (locations - 1) + _ROUNDING)


def from_bin(location_bin: int, within: Range, locations: int = LOCATIONS) -> float:
    """The value a bin stands for."""
    return within.low + location_bin / (locations - 1) * (within.high - within.low)


def camera_pose(
    pose: tuple[float, float, float], reference: tuple[float, float, float]
) -> tuple[float, float, float, float]:
    """A camera relative to another: change of polar angle, sine and cosine of the turn, change of radius.

    Poses are (theta, phi, radius) as in :class:`~omnimill.schema.View`. The turn is given by sine and cosine because
    only the azimuth goes round (Zero-1-to-3, arXiv 2303.11328, whose distances of 1.5 to 2.2 give the range of r).
    """
    turn = pose[1] - reference[1]
    return pose[0] - reference[0], math.sin(turn), math.cos(turn), pose[2] - reference[2]


def spherical_views(poses: Sequence[tuple[float, float, float]]) -> list[View]:
    """The views of one object: image i was taken from pose i (theta, phi, radius); bins are relative to the first."""
    return [
        View(
            image=image,
            theta=pose[0],
            phi=pose[1],
            radius=pose[2],
            sin_phi=math.sin(pose[1]),
            cos_phi=math.cos(pose[1]),
            bins=[to_bin(value, within) for value, within in zip(camera_pose(pose, poses[0]), CAMERA, strict=True)],
        )
        for image, pose in enumerate(poses)
    ]
