"""What a model put out, as the structures that metrics compare; what cannot be read is None.

Text ids are read by the tokenizers' own decoders, and codes by the set's networks; a canvas is then cut to its
picture. References can be read the same way from the ids of a rendered task, with the loss of writing numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from omnimill.body_parts import MISSING
from omnimill.errors import BadRecord
from omnimill.locations import UNIT, Range
from omnimill.tokenizers import cuboids, dense, embodied, keypoints, places, sparse
from omnimill.tokenizers.cuboids import Camera, Cuboid
from omnimill.tokenizers.dense import DEPTH_MAXIMUM
from omnimill.tokenizers.image import FloatArray, placement
from omnimill.tokenizers.optical_flow import decode_flow
from omnimill.tokenizers.places import Box, Frame
from omnimill.tokenizers.sparse import CameraChange
from omnimill.tokenizers.store import Tokenizers
from omnimill.training.metrics.boxes import Finding
from omnimill.training.metrics.keypoints import Person
from omnimill.training.metrics.maps import Mask
from omnimill.training.metrics.vectors import Vector

TextReading = Literal["text", "box", "boxes", "keypoints", "cuboids", "camera", "vector", "action"]
CanvasReading = Literal["picture", "mask", "depth", "normals", "flow"]
# A prediction of the last kind is no output but its loss.
Reading = TextReading | CanvasReading | Literal["sound", "loss"]

# Lengths of the vectors that are read without being told their ranges.
_MEASURES = (1, 2, 3, 4)


@dataclass(frozen=True)
class Shown:
    """What is known of an example before its answer is read.

    height, width: of the current picture in pixels. label: of what was asked for, which findings without a label have.
    camera: of the picture, for cuboids. ranges: of a vector; None: shares of the canvas, of up to four numbers.
    depth_maximum, flow_maximum: what full levels stand for, in metres and pixels.
    """

    height: int = 1
    width: int = 1
    label: str = ""
    camera: Camera | None = None
    ranges: tuple[Range, ...] | None = None
    depth_maximum: float = DEPTH_MAXIMUM
    flow_maximum: float = 1.0


def read_text(reading: Reading, ids: Sequence[int], shown: Shown, tokenizers: Tokenizers) -> Any | None:
    """What text ids say, by one of `TEXT_READINGS`; None when they do not say such a thing."""
    try:
        return _TEXT[reading](ids, shown, tokenizers)
    except BadRecord:
        return None


def read_canvas(reading: Reading, canvas: FloatArray | None, shown: Shown) -> Any | None:
    """What a target canvas [size, size, 3] shows, by one of `CANVAS_READINGS`, at its picture's size (a picture: at the
    canvas's scale).

    Args:
        canvas: bytes, or 0..1; None: could not be read.
    """
    if canvas is None:
        return None
    if reading == "picture":
        return dense.shares(canvas[placement(shown.height, shown.width, len(canvas))])
    return _CANVAS[reading](dense.from_canvas(canvas, shown.height, shown.width), shown)


def read_codes(codes: Sequence[Sequence[int]], tokenizers: Tokenizers) -> list[FloatArray | None]:
    """The canvases of pictures' codes, float32 [size, size, 3] in 0..1; None where they are not as many as a canvas has
    or no codes of the book.

    Raises:
        OmnimillError: the tokenizers have no picture network.
    """
    layout = tokenizers.layout.image
    return _decoded(codes, layout.target_grid**2, layout.codes, tokenizers.image.decode)


def read_sound(codes: Sequence[Sequence[int]], tokenizers: Tokenizers) -> list[FloatArray | None]:
    """The log-mel spectrograms of clips' codes, float32 [frames, mels]; None as :func:`read_codes`.

    Raises:
        OmnimillError: the tokenizers have no sound network.
    """
    layout = tokenizers.layout.audio
    time, mels = layout.target_grid
    return _decoded(codes, time * mels, layout.codes, tokenizers.audio.decode)


def as_reference(reading: Reading, found: Any, shown: Shown) -> Any:
    """What was read from a rendered task's own target, as the reference of a metric of that reading.

    Raises:
        ValueError: it could not be read.
    """
    if found is None:
        raise ValueError(f"a reference of reading {reading!r} that cannot be read")
    if reading in ("text", "box"):
        return (found,)
    return Mask(found, shown.label) if reading == "mask" else found


def _decoded(
    codes: Sequence[Sequence[int]], count: int, book: int, decode: Callable[[list[Sequence[int]]], FloatArray]
) -> list[FloatArray | None]:
    """What a network makes of the rows that have `count` codes of the book."""
    good = [len(row) == count and all(0 <= code < book for code in row) for row in codes]
    valid = [row for row, fine in zip(codes, good, strict=True) if fine]
    made = iter(decode(valid) if valid else ())
    return [next(made) if fine else None for fine in good]


def _frame(shown: Shown, tokenizers: Tokenizers) -> Frame:
    return Frame(shown.height, shown.width, tokenizers.layout.image.input_size)


def _boxes(ids: Sequence[int], shown: Shown, tokenizers: Tokenizers) -> list[Finding[Box]]:
    found = places.decode_boxes(ids, _frame(shown, tokenizers), tokenizers.numbers)
    return [Finding(places.checked(box), label or shown.label) for box, label in found]


def _box(ids: Sequence[int], shown: Shown, tokenizers: Tokenizers) -> Box:
    found = _boxes(ids, shown, tokenizers)
    if len(found) != 1:
        raise BadRecord("boxes_count", f"found {len(found)} boxes; allowed: one")
    return found[0].shape


def _keypoints(ids: Sequence[int], shown: Shown, tokenizers: Tokenizers) -> Person:
    points = keypoints.decode_keypoints(ids, _frame(shown, tokenizers), tokenizers.numbers)
    return Person(np.array(points, np.float64) * (shown.height, shown.width, 1.0))


def _cuboids(ids: Sequence[int], shown: Shown, tokenizers: Tokenizers) -> list[Finding[Cuboid]]:
    if shown.camera is None:
        raise ValueError("cuboids are read with their picture's camera")
    found = cuboids.decode_objects(ids, shown.camera, _frame(shown, tokenizers), tokenizers.numbers)
    return [Finding(cuboid, label or shown.label) for cuboid, _, label in found]


def _camera(ids: Sequence[int], _: Shown, tokenizers: Tokenizers) -> CameraChange:
    return sparse.decode_camera(ids, tokenizers.numbers)


def _vector(ids: Sequence[int], shown: Shown, tokenizers: Tokenizers) -> Vector:
    if shown.ranges is not None:
        return Vector(sparse.decode_vector(ids, shown.ranges, tokenizers.numbers), shown.ranges)
    if tokenizers.text.decode(ids).split()[:1] == [MISSING]:
        return Vector((), (), (MISSING,))
    for count in _MEASURES:
        try:
            values = sparse.decode_vector(ids, (UNIT,) * count, tokenizers.numbers)
        except BadRecord:
            continue
        return Vector(values, (UNIT,) * count)
    raise BadRecord("numbers_malformed", f"found no vector of {', '.join(map(str, _MEASURES))} numbers")


def _action(ids: Sequence[int], shown: Shown, tokenizers: Tokenizers) -> Vector:
    """A vector where ranges are known, numbered steps on a table otherwise."""
    if shown.ranges is not None:
        return _vector(ids, shown, tokenizers)
    steps = embodied.decode_table_steps(ids, tokenizers.numbers)
    values = [value for step in steps for pose in (step.start, step.end) for value in pose]
    return Vector(tuple(values), embodied.TABLE * (2 * len(steps)), tuple(step.kind for step in steps))


_TEXT: Mapping[Reading, Callable[[Sequence[int], Shown, Tokenizers], Any]] = {
    "text": lambda ids, _, tokenizers: tokenizers.text.decode(ids),
    "box": _box,
    "boxes": _boxes,
    "keypoints": _keypoints,
    "cuboids": _cuboids,
    "camera": _camera,
    "vector": _vector,
    "action": _action,
}
# From what of a canvas is the picture.
_CANVAS: Mapping[Reading, Callable[[FloatArray, Shown], Any]] = {
    "mask": lambda rgb, _: dense.decode_mask(rgb),
    "depth": lambda rgb, shown: dense.decode_depth(rgb, shown.depth_maximum),
    "normals": lambda rgb, _: dense.decode_normals(rgb),
    "flow": lambda rgb, shown: decode_flow(rgb, shown.flow_maximum),
}
TEXT_READINGS: tuple[TextReading, ...] = get_args(TextReading)
CANVAS_READINGS: tuple[CanvasReading, ...] = get_args(CanvasReading)
