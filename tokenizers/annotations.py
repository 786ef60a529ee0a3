"""Annotations as text segments: places, shapes and numbers, joined by role, item and picture.

An annotation is written by its kind, and the segment that it becomes has its role or the one that goes with its kind
(`ROLES`). Annotations of one role, item and picture are one segment, in their order; findings (`boxes`, `cuboids`) in
an order drawn by the example's id, as the reference orders boxes in training. Role ``track`` is one segment for all
pictures: for each but the last (the current one) its marker and the box on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from omnimill.body_parts import PARTS
from omnimill.errors import BadRecord
from omnimill.locations import Range
from omnimill.schema import Annotation, Example, Image
from omnimill.tokenizers import box_variants, cuboids, embodied, keypoints, places
from omnimill.tokenizers.places import Box, Frame
from omnimill.tokenizers.segment import Segment, only_picture, picture, picture_marker
from omnimill.tokenizers.store import Tokenizers

# The kinds of annotations, and the role of the segment that each becomes.
ROLES = {
    "box": "boxes",
    "points": "points",
    "region": "region",
    "keypoints": "keypoints",
    "cuboid": "cuboids",
    "values": "values",
    "table_steps": "action",
}
TRACK = "track"

# What an annotation of a kind can hold.
_CONTENT = {
    "box": {"box"},
    "points": {"points"},
    "region": {"box", "points", "mask"},
    "keypoints": {"values"},
    "cuboid": {"box", "values"},
    "values": {"values"},
    "table_steps": {"values"},
}
# Roles of segments in which the order of what is found means nothing.
_UNORDERED = {"boxes", "cuboids"}


@dataclass(frozen=True)
class Placed:
    """An annotation, and what it becomes part of. image: None for numbers that belong to no picture."""

    annotation: Annotation
    role: str
    image: int | None
    item: int | None


def placed(example: Example) -> list[Placed]:
    """Every annotation of an example with its role, picture and item; a region without an item gets one of its own.

    Raises:
        BadRecord: ``annotation_kind_unknown``, ``annotation_invalid`` when it holds what its kind does not have,
            ``annotation_without_image``, ``image_index_invalid``.
    """
    parts = (example.text, example.annotations, example.targets)
    free = 1 + max((one.item for part in parts for one in part if one.item is not None), default=-1)
    found: list[Placed] = []
    for annotation in example.annotations:
        _check(annotation)
        index = annotation.image
        if annotation.kind != "values" or index is not None:
            index = only_picture(example, index, f"a {annotation.kind}")
        item = annotation.item
        if item is None and annotation.kind == "region":
            item, free = free, free + 1
        found.append(Placed(annotation, annotation.role or ROLES[annotation.kind], index, item))
    return found


def annotation_segments(example: Example, tokenizers: Tokenizers) -> Iterator[Segment]:
    """The segments of an example's annotations, in the order in which each begins.

    Raises:
        BadRecord: as :func:`placed`; ``box_invalid``, ``box_inverted``, ``box_form_unknown``, ``values_range``,
            ``keypoints_invalid``, ``cuboid_invalid``, ``table_steps_invalid``, ``number_not_finite`` and what the
            structures' modules raise.
    """
    groups: dict[tuple[str, int | None, int | None], list[Placed]] = {}
    for one in placed(example):
        groups.setdefault((one.role, one.item, None if one.role == TRACK else one.image), []).append(one)
    for (role, item, image), group in groups.items():
        if role == TRACK:
            ids = _track(example, group, tokenizers)
        else:
            drawn = places.shuffled(group, example.id, role, f"{item}", f"{image}") if role in _UNORDERED else group
            ids = [token for one in drawn for token in _written(example, one, tokenizers)]
        if ids:
            yield Segment(role, ids, image, item=item)


def _check(annotation: Annotation) -> None:
    content = _CONTENT.get(annotation.kind)
    if content is None:
        raise BadRecord("annotation_kind_unknown", f"found {annotation.kind!r}; allowed: {', '.join(ROLES)}")
    given = {name for name in ("box", "points", "mask", "values") if getattr(annotation, name) is not None}
    if given - content:
        raise BadRecord(
            "annotation_invalid",
            f"kind {annotation.kind} with {', '.join(sorted(given - content))}; it has {', '.join(sorted(content))}",
        )


def _written(example: Example, one: Placed, tokenizers: Tokenizers) -> list[int]:
    if one.image is None:
        return _values(one.annotation, tokenizers)
    return _WRITERS[one.annotation.kind](one.annotation, picture(example, one.image), tokenizers)


def _track(example: Example, group: Sequence[Placed], tokenizers: Tokenizers) -> list[int]:
    ids: list[int] = []
    for one in sorted(group, key=lambda one: one.image or 0):
        if one.annotation.kind != "box" or one.image is None:
            raise BadRecord("annotation_invalid", f"kind {one.annotation.kind} in a track; allowed: box")
        if one.image < len(example.images) - 1:
            ids.append(picture_marker(example, one.image, tokenizers.text.vocabulary))
            ids += _box(one.annotation, example.images[one.image], tokenizers)
    return ids


def _box(annotation: Annotation, shown: Image, tokenizers: Tokenizers) -> list[int]:
    box, frame, label = _corners(annotation), _frame(shown, tokenizers), annotation.label or ""
    if annotation.form is None:
        return places.encode_boxes([(box, label)], frame, tokenizers.numbers)
    return box_variants.encode_form(box, annotation.form, frame, tokenizers.numbers, label)


def _points(annotation: Annotation, shown: Image, tokenizers: Tokenizers) -> list[int]:
    frame = _frame(shown, tokenizers)
    return places.encode_points(annotation.points or [], frame, tokenizers.numbers, annotation.label or "")


def _region(annotation: Annotation, shown: Image, tokenizers: Tokenizers) -> list[int]:
    frame, ids = _frame(shown, tokenizers), list[int]()
    if annotation.box is not None:
        ids += places.encode_boxes([(_corners(annotation), "")], frame, tokenizers.numbers)
    if annotation.points is not None:
        ids += places.encode_points(annotation.points, frame, tokenizers.numbers)
    return ids + (tokenizers.text.encode(annotation.label) if annotation.label else [])


def _keypoints(annotation: Annotation, shown: Image, tokenizers: Tokenizers) -> list[int]:
    values = annotation.values or []
    if len(values) != 3 * len(PARTS) or not {*values[2::3]} <= {0.0, 1.0, 2.0}:
        raise BadRecord(
            "keypoints_invalid", f"found {len(values)} numbers; allowed: y, x and visibility 0, 1 or 2 of each part"
        )
    points = [keypoints.Keypoint(y, x, int(seen)) for y, x, seen in zip(*[iter(values)] * 3, strict=True)]
    return keypoints.encode_keypoints(points, _frame(shown, tokenizers), tokenizers.numbers)


def _cuboid(annotation: Annotation, shown: Image, tokenizers: Tokenizers) -> list[int]:
    cuboid, camera = cuboids.from_values(annotation.values or [], shown.height)
    return cuboids.encode_object(
        cuboid, _corners(annotation), camera, _frame(shown, tokenizers), tokenizers.numbers, annotation.label or ""
    )


def _values(annotation: Annotation, tokenizers: Tokenizers) -> list[int]:
    values, low, high = annotation.values or [], annotation.low, annotation.high
    if not values or low is None or high is None or not (math.isfinite(high - low) and low <= high):
        raise BadRecord("values_range", f"found {len(values)} numbers within {low} and {high}")
    within = [Range(low=low, high=high)] * len(values)
    return tokenizers.numbers.write([values, annotation.label or ""], within)


def _table_steps(annotation: Annotation, tokenizers: Tokenizers) -> list[int]:
    values, kind = annotation.values or [], annotation.label
    if kind not in embodied.TABLE_STEPS or not values or len(values) % 6:
        raise BadRecord(
            "table_steps_invalid",
            f"{len(values)} numbers of {kind!r}; allowed: six for each step, {' or '.join(embodied.TABLE_STEPS)}",
        )
    poses = [embodied.TablePose(*pose) for pose in zip(*[iter(values)] * 3, strict=True)]
    steps = [embodied.TableStep(kind, *both) for both in zip(poses[::2], poses[1::2], strict=True)]
    return embodied.encode_table_steps(steps, tokenizers.numbers)


_WRITERS: dict[str, Callable[[Annotation, Image, Tokenizers], list[int]]] = {
    "box": _box,
    "points": _points,
    "region": _region,
    "keypoints": _keypoints,
    "cuboid": _cuboid,
    "values": lambda annotation, _, tokenizers: _values(annotation, tokenizers),
    "table_steps": lambda annotation, _, tokenizers: _table_steps(annotation, tokenizers),
}


def _corners(annotation: Annotation) -> Box:
    corners = annotation.box or []
    if len(corners) != 4:
        raise BadRecord("box_invalid", f"found {len(corners)} numbers; allowed: y1, x1, y2, x2")
    return places.checked(Box(*corners))


def _frame(shown: Image, tokenizers: Tokenizers) -> Frame:
    return Frame(shown.height, shown.width, tokenizers.layout.image.input_size)
