"""What annotated objects of a picture become: texts, boxes and masks in the roles that the task families read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from pydantic import Field

from omnimill import rng
from omnimill.config import Config
from omnimill.errors import BadRecord
from omnimill.pipelines.adapters.annotated_pictures import Described
from omnimill.pipelines.decoders.masks import Mask, mask_png
from omnimill.pipelines.decoders.numbers import is_finite_number
from omnimill.schema import Annotation, Image

T = TypeVar("T")
# Sides of a picture and of what was annotated may differ by so much when one was scaled.
_SAME_SHAPE = 0.02


class ObjectSettings(Config):
    """What the objects of a picture are made into, and how much of it an example holds at most.

    Where there is more than a limit allows, so much is drawn, the same every time; 0 leaves a kind out.

    boxes: all labelled boxes of the picture as one list (object detection); of more, the largest.
    classes: items of a ``label`` and the boxes of all its objects (object localization).
    regions: items of a ``region`` and its ``label``, or its ``phrase`` (region classification and captioning).
    masks: items of a ``region`` with its class, and its mask (localized segmentation).
    class_masks: items of ``classes`` and the mask of all pixels of that class (semantic segmentation).
    people: items of a person's ``region`` and ``keypoints``.
    relations: items of a ``subject``, an ``object`` and the ``predicate`` between them.
    """

    boxes: int = Field(64, ge=0)
    classes: int = Field(16, ge=0)
    regions: int = Field(16, ge=0)
    masks: int = Field(8, ge=0)
    class_masks: int = Field(8, ge=0)
    people: int = Field(8, ge=0)
    relations: int = Field(16, ge=0)


@dataclass(frozen=True)
class Thing:
    """An annotated object. label: its class. box: y1, x1, y2, x2 as shares of the picture.

    mask: draws its mask.
    single: False for a crowd or group, which counts for masks of classes alone; its class has no list of all its boxes.
    complete: whether all objects of its class are annotated in the picture.
    """

    label: str
    box: list[float] | None = None
    mask: Callable[[], Mask] | None = None
    single: bool = True
    complete: bool = True


def describe_objects(found: Described, things: Sequence[Thing], settings: ObjectSettings, key: str) -> None:
    """Add what objects become, within the limits of `settings`; `key`, of the record, decides what is drawn.

    Classes of which the list of all boxes lacks objects (of crowds, beyond the limit) are noted as incomplete, so that
    nobody takes them for absent, or their boxes for all.
    """
    boxed = [thing for thing in things if thing.box is not None and thing.single]
    largest = sorted(boxed, key=lambda thing: -area(thing.box or []))[: settings.boxes]
    found.annotations += [box_annotation(thing) for thing in boxed if any(thing is one for one in largest)]
    crowds = {thing.label for thing in things if not thing.single}
    counted = [label for label in labels_of(boxed) if label not in crowds]
    if largest:
        left_out = {thing.label for thing in boxed if not any(thing is one for one in largest)}
        found.incomplete |= left_out | crowds | {thing.label for thing in things if not thing.complete}
    for label in drawn(counted, settings.classes, "classes", key):
        item = found.item()
        found.say("label", label, item)
        found.annotations += [box_annotation(thing, item) for thing in boxed if thing.label == label]
    for thing in drawn(boxed, settings.regions, "regions", key):
        item = found.item()
        found.annotations.append(Annotation(kind="region", image=0, item=item, box=thing.box))
        found.say("label", thing.label, item)
    masked = [thing for thing in things if thing.mask is not None]
    for thing in drawn([thing for thing in masked if thing.single and thing.box], settings.masks, "masks", key):
        add_mask(found, thing.mask, item=found.item(), box=thing.box, label=thing.label)
    for label in drawn(labels_of(masked), settings.class_masks, "class masks", key):
        item = found.item()
        found.say("classes", label, item)
        add_mask(found, partial(_union, [thing.mask for thing in masked if thing.label == label]), item=item)


def add_mask(found: Described, mask: Callable[[], Mask] | None, **facts: Any) -> None:
    """Add a mask as an annotation of kind ``region``; `facts`: its other columns."""
    if mask is not None:
        found.annotations.append(Annotation(kind="region", image=0, mask=mask_png(mask()), **facts))


def _union(parts: Sequence[Callable[[], Mask] | None]) -> Mask:
    return np.logical_or.reduce([part() for part in parts if part is not None])  # type: ignore[no-any-return]


def labels_of(things: Sequence[Thing]) -> list[str]:
    """The classes of which all objects are annotated, in the order in which they come."""
    partial = {thing.label for thing in things if not thing.complete}
    return [label for label in dict.fromkeys(thing.label for thing in things) if label not in partial]


def box_annotation(thing: Thing, item: int | None = None) -> Annotation:
    """A box: labelled in the list of all (no item), without its label in the item of its class."""
    return Annotation(kind="box", image=0, item=item, box=thing.box, label=thing.label if item is None else None)


def drawn(values: Sequence[T], limit: int, *keys: str) -> list[T]:
    """So many of the values, in their order; which ones depends on the keys and their number alone."""
    if len(values) <= limit:
        return list(values)
    order = sorted(range(len(values)), key=lambda place: rng.digest64(*keys, place))
    return [values[place] for place in sorted(order[:limit])]


def area(box: Sequence[float]) -> float:
    """The share of the picture that a box y1, x1, y2, x2 covers."""
    return (box[2] - box[0]) * (box[3] - box[1]) if box else 0.0


def pixel_box(value: Any, height: float, width: float) -> list[float] | None:
    """A box x, y, width, height in pixels as shares y1, x1, y2, x2, cut off at the picture's borders.

    Returns:
        None for one without area.

    Raises:
        BadRecord: ``boxes_malformed``.
    """
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_finite_number, value)):
        raise BadRecord("boxes_malformed", f"a box that is {str(value)[:80]}, not x, y, width, height")
    left, top, wide, high = map(float, value)
    return edges(left, top, left + wide, top + high, height, width)


def edges(
    left: float, top: float, right: float, bottom: float, height: float = 1.0, width: float = 1.0
) -> list[float] | None:
    """Edges in units of which the picture has `height` x `width` as shares y1, x1, y2, x2; None without area."""
    shares = [top / height, left / width, bottom / height, right / width]
    y1, x1, y2, x2 = (min(max(share, 0.0), 1.0) for share in shares)
    return [y1, x1, y2, x2] if y1 < y2 and x1 < x2 else None


def annotated_size(image: Image, told: Any) -> tuple[int, int]:
    """Height and width that a picture was annotated at, as the annotation says.

    Raises:
        BadRecord: ``picture_size_mismatch`` when the picture is not of this shape (scaled is fine);
            ``missing_field``, ``wrong_type``.
    """
    sides = [told.get(name) if isinstance(told, dict) else None for name in ("height", "width")]
    if not all(type(side) is int and 0 < side < 1 << 20 for side in sides):
        raise BadRecord("wrong_type", f"height and width are {sides}, not numbers of pixels")
    height, width = int(sides[0] or 0), int(sides[1] or 0)
    if abs(height * image.width - width * image.height) > _SAME_SHAPE * height * image.width:
        raise BadRecord(
            "picture_size_mismatch",
            f"annotated as {width} x {height} pixels, the picture has {image.width} x {image.height}",
        )
    return height, width
