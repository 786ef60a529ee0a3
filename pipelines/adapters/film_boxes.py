"""What adapters of objects in films share: windows of frames, boxes in pixels, and the texts of a track."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from omnimill.schema import Annotation, Text

Box = list[float]


class PixelBox(NamedTuple):
    """Edges in pixels of a frame."""

    x1: float
    y1: float
    x2: float
    y2: float


def shares(box: PixelBox, width: int, height: int) -> Box | None:
    """y1, x1, y2, x2 as shares of a picture of this size, cut off at its borders; None when nothing is left of it."""
    y1, y2 = (min(max(y / height, 0.0), 1.0) for y in (box.y1, box.y2))
    x1, x2 = (min(max(x / width, 0.0), 1.0) for x in (box.x1, box.x2))
    return [y1, x1, y2, x2] if y2 > y1 and x2 > x1 else None


def spread_windows(count: int, size: int, step: int, most: int) -> list[range]:
    """At most `most` windows of `size` places, `step` apart, in `count` places, evenly spread; none if none fits.

    A film that is too short for the step has its places nearer together.
    """
    if count < size:
        return []
    step = min(step, max((count - 1) // (size - 1), 1))
    reach = (size - 1) * step
    free = count - 1 - reach
    number = min(most, free // (reach + 1) + 1)
    starts = [free * index // max(number - 1, 1) for index in range(number)]
    return [range(start, start + reach + 1, step) for start in starts]


def track_boxes(track: Sequence[Box | None], item: int = 0) -> list[Annotation]:
    """One object's boxes by picture: those in earlier ones are its track, that in the last is what is asked for."""
    last = len(track) - 1
    return [
        Annotation(kind="box", image=place, box=box, role="boxes" if place == last else "track", item=item)
        for place, box in enumerate(track)
        if box is not None
    ]


def track_texts(label: str | None, expression: str | None = None, item: int = 0) -> list[Text]:
    """What an object is called."""
    said = (("label", label), ("expression", expression))
    return [Text(role=role, text=text, item=item) for role, text in said if text]
