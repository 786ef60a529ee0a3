"""New tasks from the boxes of several things at once (arXiv 2312.17172, section D.11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from omnimill.pipelines.operators.augment_boxes import add_box, single_boxes
from omnimill.pipelines.operators.augment_items import (
    Box,
    add_texts,
    any_of,
    boxes_by_class,
    draws,
    free_item,
    incomplete_classes,
    listed_boxes,
    sample,
)
from omnimill.pipelines.operators.augmentation import Augmentation
from omnimill.schema import Example

Variant = Literal["any_of", "several", "joint"]

# What prompts call the joint properties.
JOINT = {
    "smallest": "the smallest of them",
    "largest": "the largest of them",
    "overlap": "the area that both have in common",
    "union": "the box around all of them",
}
LABELLING = {True: "with names", False: "without names"}
# Two areas are told apart if the larger is so many times the smaller.
_CLEARLY = 1.2


class AugmentDetection(Augmentation):
    """Adds boxes of some of an example's classes, of several expressions, and what they have in common; families
    detection-any-of, expressions-in-order and joint-boxes.

    any_of: an item of ``any_of`` (one to four classes), ``labelling`` (with or without names) and ``boxes`` of all
        their objects.
    several: of ``several`` (two to four expressions or classes with one object) and ``boxes_in_order``, theirs.
    joint: of ``several``, ``joint`` (see `JOINT`) and ``measure``: a box or, of the overlap of two, its area.

    variants: which are made. items: of each. vocabulary: all classes that the dataset annotates; where an example
    lists all its boxes, a class that is not among them can be asked for too, beside one that is.
    """

    reads: ClassVar[tuple[str, ...]] = ("images", "text", "annotations", "meta")
    writes: ClassVar[tuple[str, ...]] = ("text", "annotations")

    op: Literal["augment_detection"]
    variants: tuple[Variant, ...] = Field(("any_of", "several", "joint"), min_length=1)
    items: int = Field(1, ge=1)
    vocabulary: tuple[str, ...] = ()

    def augment(self, example: Example) -> None:
        classes, singles = boxes_by_class(example), single_boxes(example)
        listed = listed_boxes(example)
        known = {*listed, *incomplete_classes(example)}
        absent = [name for name in self.vocabulary if listed and name not in known]
        rng = draws(example, self.op)
        for variant in self.variants:
            for _ in range(self.items):
                if variant == "any_of" and classes:
                    _add_any_of(example, classes, absent, rng)
                elif variant == "several" and len(singles) > 1:
                    _add_several(example, singles, rng)
                elif variant == "joint" and len(singles) > 1:
                    _add_joint(example, singles, rng)


def _add_any_of(example: Example, classes: dict[str, list[Box]], absent: list[str], rng: np.random.Generator) -> None:
    count = int(rng.integers(1, 5))
    shown = sample(rng, list(classes), int(rng.integers(1, count + 1)))
    names = sample(rng, [*shown, *sample(rng, absent, count - len(shown))], count)
    labelled, item = bool(rng.integers(2)), free_item(example)
    add_texts(example, item, any_of=any_of(names), labelling=LABELLING[labelled])
    for name in names:
        for box in classes.get(name, []):
            add_box(example, item, "boxes", box, label=name if labelled else None)


def _add_several(example: Example, singles: dict[str, Box], rng: np.random.Generator) -> None:
    names, item = sample(rng, list(singles), int(rng.integers(2, 5))), free_item(example)
    add_texts(example, item, several="; ".join(names))
    for name in names:
        add_box(example, item, "boxes_in_order", singles[name])


def _add_joint(example: Example, singles: dict[str, Box], rng: np.random.Generator) -> None:
    joint = list(JOINT)[int(rng.integers(len(JOINT)))]
    names = sample(rng, list(singles), 2 if joint == "overlap" else int(rng.integers(2, 5)))
    boxes = [singles[name] for name in names]
    if joint in ("smallest", "largest") and not _stands_out(boxes, joint):
        joint = "union"
    item = free_item(example)
    add_texts(example, item, several="; ".join(names), joint=JOINT[joint])
    add_box(example, item, "measure", _ANSWERS[joint](boxes), form="area" if joint == "overlap" else None)


def _stands_out(boxes: Sequence[Box], joint: str) -> bool:
    """Whether the smallest or the largest box is clearly that."""
    first, second = sorted(map(_area, boxes), reverse=joint == "largest")[:2]
    return max(first, second) >= _CLEARLY * min(first, second)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(boxes: Sequence[Box]) -> Box:
    """What two boxes have in common; a box without area where they do not meet."""
    first, second = boxes
    y1, x1 = max(first[0], second[0]), max(first[1], second[1])
    y2, x2 = min(first[2], second[2]), min(first[3], second[3])
    return (y1, x1, y2, x2) if y1 < y2 and x1 < x2 else (y1, x1, y1, x1)


def _union(boxes: Sequence[Box]) -> Box:
    y1, x1, y2, x2 = (list(edge) for edge in zip(*boxes, strict=True))
    return min(y1), min(x1), max(y2), max(x2)


_ANSWERS: dict[str, Callable[[Sequence[Box]], Box]] = {
    "smallest": lambda boxes: min(boxes, key=_area),
    "largest": lambda boxes: max(boxes, key=_area),
    "overlap": _overlap,
    "union": _union,
}
