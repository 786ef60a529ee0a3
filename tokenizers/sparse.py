"""Sparse structures as location tokens: points, boxes, camera poses, robot states and actions.

A value v of a range [low, high] becomes bin ``floor((v - low) / (high - low) * 999)``, and bin b stands for
``low + b / 999 * (high - low)`` (Unified-IO 2, arXiv 2312.17172, section B.1 and its released code). What comes back
lies at most one 999th of the range below what went in, and encodes to the same bin again. Values outside are clipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from pydantic import model_validator

from omnimill.config import Config
from omnimill.errors import BadRecord
from omnimill.schema import View
from omnimill.tokenizers.image import placement
from omnimill.tokenizers.vocabulary import LOCATIONS, TextVocabulary

_TOP = LOCATIONS - 1
# Lifts values that rounding left just under their bin's edge; far below any difference that data carry.
_ROUNDING = 1e-9


class Range(Config):
    """The values that the 1,000 location tokens spread over; a range of no width has one value, at bin 0."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"a range goes from a low to a high finite number, found {self.low} to {self.high}")
        return self

    @property
    def error(self) -> float:
        """Largest difference between a value inside and what its token decodes to."""
        return (self.high - self.low) / _TOP


UNIT = Range(low=0.0, high=1.0)
ANGLE = Range(low=-math.pi, high=math.pi)
SINE = Range(low=-1.0, high=1.0)
# Change of the camera's distance; the reference's range, in object radii here.
RADIUS_CHANGE = Range(low=-0.7, high=0.7)
CAMERA = (ANGLE, SINE, SINE, RADIUS_CHANGE)


def to_bin(value: float, within: Range) -> int:
    """Bin 0 … 999 of a value.

    Raises:
        BadRecord: ``number_not_finite``.
    """
    if not math.isfinite(value):
        raise BadRecord("number_not_finite", f"found {value}")
    if within.high == within.low:
        return 0
    share = (value - within.low) / (within.high - within.low)
    return math.floor(min(max(share, 0.0), 1.0) * _TOP + _ROUNDING)


def from_bin(location_bin: int, within: Range) -> float:
    """The value a bin stands for."""
    return within.low + location_bin / _TOP * (within.high - within.low)


def encode_vector(values: Sequence[float], ranges: Sequence[Range], vocabulary: TextVocabulary) -> list[int]:
    """One location id per value.

    Raises:
        BadRecord: ``vector_length`` when there are not as many values as ranges, ``number_not_finite``.
    """
    if len(values) != len(ranges):
        raise BadRecord("vector_length", f"found {len(values)} values where {len(ranges)} have a range")
    return [vocabulary.location(to_bin(value, within)) for value, within in zip(values, ranges, strict=True)]


def decode_vector(ids: Sequence[int], ranges: Sequence[Range], vocabulary: TextVocabulary) -> list[float]:
    """Inverse of :func:`encode_vector`, up to quantisation."""
    return [from_bin(vocabulary.location_bin(token), within) for token, within in zip(ids, ranges, strict=True)]


def on_canvas(points: Sequence[float], height: int, width: int, size: int) -> list[float]:
    """Coordinates y, x, y, x, … in shares of a picture, as shares of the padded canvas it is scaled to fit.

    Args:
        points: shares of the picture's height and width, in turns.
        height, width: the picture's, in pixels.
        size: side of the canvas of :func:`omnimill.tokenizers.image.to_canvas`, in pixels.
    """
    rows, columns = placement(height, width, size)
    longer = max(height, width)
    starts = (rows.start / size, columns.start / size)
    spans = (height / longer, width / longer)
    return [starts[i % 2] + value * spans[i % 2] for i, value in enumerate(points)]


def encode_points(points: Sequence[float], height: int, width: int, size: int, vocabulary: TextVocabulary) -> list[int]:
    """Points (y, x, …) or a box (y1, x1, y2, x2) in shares of a picture, as location ids on the padded canvas."""
    placed = on_canvas(points, height, width, size)
    return encode_vector(placed, (UNIT,) * len(placed), vocabulary)


def camera_pose(view: View, reference: View) -> tuple[float, float, float, float]:
    """A camera relative to another: turn of azimuth (-pi..pi), sine and cosine of the lift, change of radius."""
    turn = math.remainder(view.theta - reference.theta, 2 * math.pi)
    lift = view.phi - reference.phi
    return turn, math.sin(lift), math.cos(lift), view.radius - reference.radius


def encode_camera(view: View, reference: View, vocabulary: TextVocabulary) -> list[int]:
    """Four location ids: theta, sin phi, cos phi, r of a camera relative to another (ranges `CAMERA`)."""
    return encode_vector(camera_pose(view, reference), CAMERA, vocabulary)
