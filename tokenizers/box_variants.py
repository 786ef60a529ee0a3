"""What task augmentation asks of a box: other ways to write it, and its properties (arXiv 2312.17172, section D.11).

Both are shares of the canvas (of its area, for an area) with the range 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omnimill.errors import BadRecord
from omnimill.locations import UNIT
from omnimill.tokenizers.number_format import NumberFormat, Numbers
from omnimill.tokenizers.places import Box, Frame
from omnimill.tokenizers.sparse import decode_vector

# A box as four numbers, and back. An edge that is the sum of two numbers has up to twice the error of one.
_FORMATS: dict[str, tuple[Callable[[Box], Numbers], Callable[[Numbers], Box]]] = {
    "yxyx": (tuple, lambda n: Box(*n)),
    "xyxy": (lambda b: (b.x1, b.y1, b.x2, b.y2), lambda n: Box(n[1], n[0], n[3], n[2])),
    "xywh": (
        lambda b: (b.x1, b.y1, b.x2 - b.x1, b.y2 - b.y1),
        lambda n: Box(n[1], n[0], n[1] + n[3], n[0] + n[2]),
    ),
    "centre_xywh": (
        lambda b: ((b.x1 + b.x2) / 2, (b.y1 + b.y2) / 2, b.x2 - b.x1, b.y2 - b.y1),
        lambda n: Box(n[1] - n[3] / 2, n[0] - n[2] / 2, n[1] + n[3] / 2, n[0] + n[2] / 2),
    ),
}
BOX_FORMATS = tuple(_FORMATS)

_PROPERTIES: dict[str, Callable[[Box], Numbers]] = {
    "height": lambda b: (b.y2 - b.y1,),
    "width": lambda b: (b.x2 - b.x1,),
    "area": lambda b: ((b.y2 - b.y1) * (b.x2 - b.x1),),
    "centre": lambda b: ((b.y1 + b.y2) / 2, (b.x1 + b.x2) / 2),
    "top_left": lambda b: (b.y1, b.x1),
    "top_right": lambda b: (b.y1, b.x2),
    "bottom_left": lambda b: (b.y2, b.x1),
    "bottom_right": lambda b: (b.y2, b.x2),
    "distance_to_top": lambda b: (b.y1,),
    "distance_to_left": lambda b: (b.x1,),
    "distance_to_bottom": lambda b: (1 - b.y2,),
    "distance_to_right": lambda b: (1 - b.x2,),
    "top_half": lambda b: (b.y1, b.x1, (b.y1 + b.y2) / 2, b.x2),
    "bottom_half": lambda b: ((b.y1 + b.y2) / 2, b.x1, b.y2, b.x2),
    "left_half": lambda b: (b.y1, b.x1, b.y2, (b.x1 + b.x2) / 2),
    "right_half": lambda b: (b.y1, (b.x1 + b.x2) / 2, b.y2, b.x2),
}
BOX_PROPERTIES = tuple(_PROPERTIES)


def encode_form(box: Box, form: str, frame: Frame, numbers: NumberFormat, label: str = "") -> list[int]:
    """A box in one of `BOX_FORMATS`, or one of its `BOX_PROPERTIES`, and a label.

    Raises:
        BadRecord: ``box_form_unknown``, ``number_not_finite``.
    """
    written = {**_PROPERTIES, **{name: pair[0] for name, pair in _FORMATS.items()}}.get(form)
    if written is None:
        raise BadRecord("box_form_unknown", f"found {form!r}; allowed: {', '.join((*_FORMATS, *_PROPERTIES))}")
    values = written(_placed(box, frame))
    return numbers.write([values, label], (UNIT,) * len(values))


def decode_box(ids: Sequence[int], form: str, frame: Frame, numbers: NumberFormat) -> Box:
    """Inverse of :func:`encode_form` for one of `BOX_FORMATS`, within twice :meth:`Frame.error`.

    Raises:
        BadRecord: ``numbers_malformed``.
    """
    return Box(*frame.to_picture(_FORMATS[form][1](decode_vector(ids, (UNIT,) * 4, numbers))))


def box_property(box: Box, name: str, frame: Frame) -> Numbers:
    """One of `BOX_PROPERTIES` of a box of a picture; distances are to the canvas's edges."""
    return _PROPERTIES[name](_placed(box, frame))


def decode_property(ids: Sequence[int], name: str, numbers: NumberFormat) -> Numbers:
    """The value of :func:`box_property` from :func:`encode_form`, within `numbers.error(UNIT)`.

    Raises:
        BadRecord: ``numbers_malformed``.
    """
    return decode_vector(ids, (UNIT,) * len(_PROPERTIES[name](Box(0, 0, 1, 1))), numbers)


def _placed(box: Box, frame: Frame) -> Box:
    return Box(*frame.to_canvas(box))
