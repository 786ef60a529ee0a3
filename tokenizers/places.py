"""Points and boxes of a picture, as shares of the padded canvas that the encoder sees it on.

Unified-IO 2 (arXiv 2312.17172, section B.1) writes a point as y, x and a box as y1, x1, y2, x2, normalised by the
canvas after resizing and padding; a label follows as text. A coordinate comes back within `numbers.error(UNIT)` of the
canvas, which is :meth:`Frame.error` of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from omnimill.errors import BadRecord
from omnimill.locations import UNIT
from omnimill.rng import Key, generator
from omnimill.tokenizers.image import placement
from omnimill.tokenizers.number_format import NumberFormat, Numbers

T = TypeVar("T")

_POINT = (UNIT, UNIT)
_BOX = (UNIT,) * 4


@dataclass(frozen=True)
class Frame:
    """A picture of `height` x `width` pixels, scaled to fit a square canvas of `canvas` pixels a side."""

    height: int
    width: int
    canvas: int

    def to_canvas(self, points: Sequence[float]) -> list[float]:
        """Coordinates y, x, y, x, … in shares of the picture, as shares of the canvas."""
        starts, spans = self._starts, self._spans
        return [starts[i % 2] + value * spans[i % 2] for i, value in enumerate(points)]

    def to_picture(self, points: Sequence[float]) -> list[float]:
        """Inverse of :meth:`to_canvas`; what lies in the padding is moved to the picture's edge."""
        starts, spans = self._starts, self._spans
        return [min(max((value - starts[i % 2]) / spans[i % 2], 0.0), 1.0) for i, value in enumerate(points)]

    def error(self, numbers: NumberFormat) -> tuple[float, float]:
        """Largest differences of y and x that come back, in shares of the picture."""
        height, width = self._spans
        return min(numbers.error(UNIT) / height, 1.0), min(numbers.error(UNIT) / width, 1.0)

    @property
    def _starts(self) -> tuple[float, float]:
        rows, columns = placement(self.height, self.width, self.canvas)
        return rows.start / self.canvas, columns.start / self.canvas

    @property
    def _spans(self) -> tuple[float, float]:
        longer = max(self.height, self.width)
        return self.height / longer, self.width / longer


class Box(NamedTuple):
    """A rectangle in shares of its picture or of the canvas."""

    y1: float
    x1: float
    y2: float
    x2: float


def checked(box: Box) -> Box:
    """The box itself; BadRecord ``box_inverted`` when an edge lies before its opposite."""
    if box.y1 > box.y2 or box.x1 > box.x2:
        raise BadRecord("box_inverted", f"found y {box.y1} to {box.y2}, x {box.x1} to {box.x2}")
    return box


def encode_points(points: Sequence[float], frame: Frame, numbers: NumberFormat, label: str = "") -> list[int]:
    """Points y, x, y, x, … in shares of a picture, and the label that they share.

    Raises:
        BadRecord: ``vector_length`` for half a point, ``number_not_finite``.
    """
    placed = frame.to_canvas(points)
    return numbers.write([*(placed[i : i + 2] for i in range(0, len(placed), 2)), label], _POINT)


def decode_points(ids: Sequence[int], frame: Frame, numbers: NumberFormat) -> list[tuple[list[float], str]]:
    """Inverse of :func:`encode_points`, for any number of labelled groups of points in a row.

    Neighbouring groups without a label come back as one.

    Raises:
        BadRecord: ``numbers_malformed``.
    """
    found: list[tuple[list[float], str]] = []
    labelled = True
    for part in numbers.read(ids, _POINT):
        if isinstance(part, str):
            found[-1:] = [(_last(found, part)[0], part)]
        elif labelled:
            found.append((frame.to_picture(part), ""))
        else:
            found[-1][0].extend(frame.to_picture(part))
        labelled = isinstance(part, str)
    return found


def encode_boxes(boxes: Sequence[tuple[Box, str]], frame: Frame, numbers: NumberFormat) -> list[int]:
    """Boxes of a picture in the given order, each followed by its label, which may be empty.

    Raises:
        BadRecord: ``box_inverted`` when an edge lies before its opposite, ``number_not_finite``.
    """
    parts: list[list[float] | str] = []
    for box, label in boxes:
        parts += [frame.to_canvas(checked(box)), label]
    return numbers.write(parts, _BOX)


def decode_boxes(ids: Sequence[int], frame: Frame, numbers: NumberFormat) -> list[tuple[Box, str]]:
    """Inverse of :func:`encode_boxes`.

    Raises:
        BadRecord: ``numbers_malformed``.
    """
    found: list[tuple[Numbers, str]] = []
    for part in numbers.read(ids, _BOX):
        if isinstance(part, str):
            found[-1:] = [(_last(found, part)[0], part)]
        else:
            found.append((part, ""))
    return [(Box(*frame.to_picture(corners)), label) for corners, label in found]


def _last(found: list[tuple[T, str]], words: str) -> tuple[T, str]:
    if not found:
        raise BadRecord(
            "numbers_malformed", f"found the words {words[:40]!r} first; allowed: numbers, then their label"
        )
    return found[-1]


def shuffled(boxes: Sequence[T], *keys: Key) -> list[T]:
    """Boxes in a random order that the keys decide, as the reference orders them in training."""
    return [boxes[i] for i in generator("box_order", *keys).permutation(len(boxes))]
