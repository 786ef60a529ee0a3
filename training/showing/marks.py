"""Boxes and points that a row's text segments speak of, for people to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from omnimill.body_parts import PARTS
from omnimill.errors import BadRecord
from omnimill.locations import UNIT
from omnimill.mixtures.row_columns import RowContent
from omnimill.tokenizers import keypoints, places
from omnimill.tokenizers.cuboids import CuboidLayout
from omnimill.tokenizers.number_format import NumberFormat
from omnimill.tokenizers.places import Frame
from omnimill.tokenizers.vocabulary import TextVocabulary

Side = Literal["read", "written"]
# A picture that is as large as its canvas: what is read stays in shares of the canvas.
_CANVAS = Frame(1, 1, 1)


@dataclass(frozen=True)
class Mark:
    """A box (y1, x1, y2, x2) or a point (y, x) in shares of the canvas of picture `picture`, with its label.

    side: whether the model reads it or is to write it.
    """

    picture: int
    numbers: tuple[float, ...]
    label: str
    side: Side


def segment_marks(
    content: RowContent, segment: int, side: Side, numbers: NumberFormat, vocabulary: TextVocabulary
) -> list[Mark]:
    """What a text segment marks in the row's pictures; nothing if its role is not one of places.

    Augmented properties and formats of boxes are not places, whatever their numbers.
    """
    role, ids = content.text_roles[segment], content.text_ids[segment].tolist()
    image = content.text_images[segment]
    current = len(content.image_data) - 1
    try:
        if role == "track":
            return list(_track(ids, side, numbers, vocabulary))
        if current < 0 or role not in _READERS:
            return []
        shown = current if image is None else image
        return [Mark(shown, place, label, side) for place, label in _READERS[role](ids, numbers)]
    except BadRecord:
        # A form that only looks alike; the text shows what there is.
        return []


_Places = list[tuple[tuple[float, ...], str]]


def _boxes(ids: Sequence[int], numbers: NumberFormat) -> _Places:
    return [(tuple(box), label.strip()) for box, label in places.decode_boxes(ids, _CANVAS, numbers)]


def _region(ids: Sequence[int], numbers: NumberFormat) -> _Places:
    """A region is asked for by a box or by points."""
    try:
        return _boxes(ids, numbers)
    except BadRecord:
        return _points(ids, numbers)


def _points(ids: Sequence[int], numbers: NumberFormat) -> _Places:
    found = places.decode_points(ids, _CANVAS, numbers)
    return [((flat[i], flat[i + 1]), label.strip()) for flat, label in found for i in range(0, len(flat), 2)]


def _keypoints(ids: Sequence[int], numbers: NumberFormat) -> _Places:
    found = zip(keypoints.decode_keypoints(ids, _CANVAS, numbers), PARTS, strict=True)
    return [((point.y, point.x), part) for point, part in found if point.visibility]


def _cuboids(ids: Sequence[int], numbers: NumberFormat) -> _Places:
    """The boxes in the picture."""
    found: _Places = []
    for part in numbers.read(ids, (*(UNIT,) * 4, *CuboidLayout().ranges)):
        if isinstance(part, str):
            found[-1:] = [(place, part.strip()) for place, _ in found[-1:]]
        else:
            found.append((part[:4], ""))
    return found


def _track(ids: Sequence[int], side: Side, numbers: NumberFormat, vocabulary: TextVocabulary) -> Iterator[Mark]:
    markers = {vocabulary.image_history(k + 1): k for k in range(vocabulary.layout.history)}
    starts = [place for place, token in enumerate(ids) if token in markers]
    for start, stop in pairwise([*starts, len(ids)]):
        for box, label in _boxes(ids[start + 1 : stop], numbers):
            yield Mark(markers[ids[start]], box, label, side)


_READERS: dict[str, Callable[[Sequence[int], NumberFormat], _Places]] = {
    **dict.fromkeys(("boxes", "boxes_in_order", "focus", "object", "person", "subject", "within"), _boxes),
    **dict.fromkeys(("place", "point", "points"), _points),
    "cuboids": _cuboids,
    "keypoints": _keypoints,
    "region": _region,
}
