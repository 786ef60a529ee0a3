"""New tasks from masks of classes (arXiv 2312.17172, section D.11)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from omnimill.pipelines.decoders.masks import Mask, mask_png
from omnimill.pipelines.operators.augment_items import (
    Box,
    add_texts,
    any_of,
    current,
    draws,
    free_item,
    incomplete_classes,
    items,
    listed_boxes,
    read_mask,
    sample,
)
from omnimill.pipelines.operators.augmentation import Augmentation
from omnimill.schema import Annotation, Example

Variant = Literal["any_of", "none_of", "within"]
# Sides of a drawn box, as shares of the picture's.
_SIDES = (0.2, 0.6)


class AugmentSegmentation(Augmentation):
    """Adds masks that the masks of classes add up to; families segmentation-any-of, -none-of, -within.

    any_of: an item of ``any_of`` (two to four classes, some of which may be absent) and the pixels of all of them.
    none_of: of ``none_of`` (one to four classes) and the pixels of no one of them.
    within: of ``wanted`` (a class), ``within`` (a box) and the pixels of the class in the box.

    Absent are classes whose mask is empty and, where the example lists all its boxes, the names of `vocabulary` that
    are not among them.

    variants: which are made. items: of each. vocabulary: all classes that the dataset annotates.
    """

    reads: ClassVar[tuple[str, ...]] = ("images", "text", "annotations", "meta")
    writes: ClassVar[tuple[str, ...]] = ("text", "annotations")

    op: Literal["augment_segmentation"]
    variants: tuple[Variant, ...] = Field(("any_of", "none_of", "within"), min_length=1)
    items: int = Field(1, ge=1)
    vocabulary: tuple[str, ...] = ()

    def augment(self, example: Example) -> None:
        masks = {
            item.texts["classes"][0]: read_mask(png)
            for item in items(example)
            if "classes" in item.texts and (png := item.mask()) is not None
        }
        shape = next((mask.shape for mask in masks.values()), None)
        present = {name: mask for name, mask in masks.items() if mask.any() and mask.shape == shape}
        if not present:
            return
        listed = listed_boxes(example)
        known = {*listed, *incomplete_classes(example), *masks}
        unseen = [name for name in self.vocabulary if listed and name not in known]
        absent = [*(name for name, mask in masks.items() if not mask.any()), *unseen]
        rng = draws(example, self.op)
        for variant in self.variants:
            for _ in range(self.items):
                if variant == "within":
                    _add_within(example, present, rng)
                else:
                    _add_union(example, variant, present, absent, rng)


def _add_union(
    example: Example,
    variant: Literal["any_of", "none_of"],
    present: dict[str, Mask],
    absent: list[str],
    rng: np.random.Generator,
) -> None:
    fewest = 2 if variant == "any_of" else 1
    count = int(rng.integers(fewest, 5))
    shown = sample(rng, list(present), int(rng.integers(1, count + 1)))
    names = sample(rng, [*shown, *sample(rng, absent, count - len(shown))], count)
    if len(names) < fewest:
        names = sample(rng, list(present), fewest)
    if len(names) < fewest:
        return
    union = np.logical_or.reduce([present[name] for name in names if name in present])
    wanted = union if variant == "any_of" else ~union
    if wanted.any():
        _add(example, wanted, free_item(example), **{variant: any_of(names)})


def _add_within(example: Example, present: dict[str, Mask], rng: np.random.Generator) -> None:
    (name,) = sample(rng, list(present), 1)
    mask = present[name]
    places = np.argwhere(mask)
    edges = [
        _span(rng, int(place), side) for place, side in zip(places[rng.integers(len(places))], mask.shape, strict=True)
    ]
    (y1, y2), (x1, x2) = edges
    wanted = np.zeros_like(mask)
    wanted[y1:y2, x1:x2] = mask[y1:y2, x1:x2]
    item, (height, width) = free_item(example), mask.shape
    box: Box = (y1 / height, x1 / width, y2 / height, x2 / width)
    example.annotations.append(Annotation(kind="box", role="within", image=current(example), box=list(box), item=item))
    _add(example, wanted, item, wanted=name)


def _span(rng: np.random.Generator, place: int, side: int) -> tuple[int, int]:
    """First and last pixel but one of a drawn stretch that holds a place."""
    length = max(round(side * float(rng.uniform(*_SIDES))), 1)
    first = int(rng.integers(place - length + 1, place + 1))
    return max(first, 0), min(first + length, side)


def _add(example: Example, mask: Mask, item: int, **by_role: str) -> None:
    add_texts(example, item, **by_role)
    example.annotations.append(Annotation(kind="region", image=current(example), mask=mask_png(mask), item=item))
