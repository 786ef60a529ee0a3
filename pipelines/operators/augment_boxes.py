"""New tasks from the box of one thing: its properties, and other ways to write it (arXiv 2312.17172, section D.11)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from omnimill.pipelines.operators.augment_items import (
    Box,
    add_texts,
    boxes_by_class,
    corners,
    current,
    draws,
    free_item,
    items,
    sample,
)
from omnimill.pipelines.operators.augmentation import Augmentation
from omnimill.schema import Annotation, Example

Variant = Literal["property", "format"]

# What prompts call the properties and the formats of `omnimill.tokenizers.box_variants`.
PROPERTIES = {
    "height": "height",
    "width": "width",
    "area": "area",
    "centre": "centre",
    "top_left": "top left corner",
    "top_right": "top right corner",
    "bottom_left": "bottom left corner",
    "bottom_right": "bottom right corner",
    "distance_to_top": "distance to the top edge",
    "distance_to_left": "distance to the left edge",
    "distance_to_bottom": "distance to the bottom edge",
    "distance_to_right": "distance to the right edge",
    "top_half": "top half",
    "bottom_half": "bottom half",
    "left_half": "left half",
    "right_half": "right half",
}
FORMATS = {
    "xyxy": "x1 y1 x2 y2",
    "xywh": "x1 y1 width height",
    "centre_xywh": "centre x, centre y, width, height",
}


class AugmentBoxes(Augmentation):
    """Adds what can be said of one box besides its edges, of a thing that some words single out; families box-property
    and box-format.

    The words are a referring expression, or a class with one object in the picture.

    property: an item of ``query`` (the words), ``property`` (see `PROPERTIES`) and ``measure``.
    format: of ``query``, ``format`` (see `FORMATS`) and ``written``, the box in that format.

    variants: which are made. items: of each.
    """

    reads: ClassVar[tuple[str, ...]] = ("images", "text", "annotations")
    writes: ClassVar[tuple[str, ...]] = ("text", "annotations")

    op: Literal["augment_boxes"]
    variants: tuple[Variant, ...] = Field(("property", "format"), min_length=1)
    items: int = Field(1, ge=1)

    def augment(self, example: Example) -> None:
        boxes = single_boxes(example)
        rng = draws(example, self.op)
        for variant in self.variants:
            forms, role = (PROPERTIES, "measure") if variant == "property" else (FORMATS, "written")
            for query, form in zip(sample(rng, list(boxes), self.items), _forms(rng, forms, self.items), strict=False):
                item = free_item(example)
                add_texts(example, item, query=query, **{variant: forms[form]})
                add_box(example, item, role, boxes[query], form)


def single_boxes(example: Example) -> dict[str, Box]:
    """Words that single out one thing in the current picture, and its box; words that are said of two are left out."""
    meant: dict[str, set[Box]] = {
        name: set(boxes) for name, boxes in boxes_by_class(example).items() if len(boxes) == 1
    }
    for item in items(example):
        boxes = item.boxes("boxes")
        if len(boxes) == 1:
            for words in item.texts.get("expression", []):
                meant.setdefault(words, set()).add(corners(boxes[0]))
    return {words: next(iter(boxes)) for words, boxes in meant.items() if len(boxes) == 1}


def add_box(
    example: Example, item: int, role: str, box: Box, form: str | None = None, label: str | None = None
) -> None:
    """A box of a new item, in the current picture."""
    example.annotations.append(
        Annotation(kind="box", role=role, image=current(example), box=list(box), item=item, form=form, label=label)
    )


def _forms(rng: np.random.Generator, forms: dict[str, str], count: int) -> list[str]:
    return [list(forms)[int(rng.integers(len(forms)))] for _ in range(count)]
