"""Sparse structures as location tokens: points, boxes, camera poses, robot states and actions.

What a number becomes is said by :mod:`omnimill.locations`.
"""

from __future__ import annotations

from collections.abc import Sequence

from omnimill.errors import BadRecord
from omnimill.locations import UNIT, Range, from_bin, to_bin
from omnimill.schema import View
from omnimill.tokenizers.image import placement
from omnimill.tokenizers.vocabulary import TextVocabulary


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


def encode_camera(view: View, vocabulary: TextVocabulary) -> list[int]:
    """Four location ids: theta, sin phi, cos phi, r of a camera relative to its example's first (ranges `CAMERA`)."""
    return [vocabulary.location(location_bin) for location_bin in view.bins]
