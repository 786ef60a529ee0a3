"""Examples turned into tasks that make pictures: filling a hole, and painting over a segmentation.

Unlike other augmentation these change the picture that the model reads, so they make a source of its own: what belonged
to the old picture is left out.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from omnimill.pipelines.base import Operator
from omnimill.pipelines.decoders.pixels import Encoding, Picture, load_rgb
from omnimill.pipelines.operators.augment_items import Box, boxes_by_class, corners, draws, items, read_mask, texts
from omnimill.rng import uniform
from omnimill.schema import Annotation, Example, Image, Target, Text


class AugmentInpainting(Operator):
    """Cuts the box of an object out of the picture; family image-inpainting.

    The example becomes the picture with a black hole, ``label`` (the object), ``region`` (the hole, in whole pixels)
    and the target ``picture``, as it was. The object is drawn among those whose box covers at least `min_share` of the
    picture (a tenth in Unified-IO 2, for COCO); one without is dropped as ``no_large_object``.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("images", "text", "annotations")
    writes: ClassVar[tuple[str, ...]] = ("images", "text", "annotations", "targets")

    op: Literal["augment_inpainting"]
    min_share: float = Field(0.1, gt=0, le=1)

    def looks_at(self, width: int, height: int) -> tuple[int, int]:
        return width, height

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._cut(example) for example in examples]

    def _cut(self, example: Example) -> str | None:
        if not example.images:
            return "no_picture"
        large = [
            (label, box) for label, box in _objects(example) if (box[2] - box[0]) * (box[3] - box[1]) >= self.min_share
        ]
        if not large:
            return "no_large_object"
        label, box = large[int(draws(example, self.op).integers(len(large)))]
        shown = example.images[-1]
        pixels = load_rgb(shown)[: shown.height, : shown.width].copy()
        height, width = pixels.shape[:2]
        y1, x1 = int(box[0] * height), int(box[1] * width)
        y2, x2 = min(int(np.ceil(box[2] * height)), height), min(int(np.ceil(box[3] * width)), width)
        pixels[y1:y2, x1:x2] = 0
        hole = [y1 / height, x1 / width, y2 / height, x2 / width]
        example.text = [Text(role="label", text=label, image=0, item=0)]
        example.annotations = [Annotation(kind="region", image=0, box=hole, item=0)]
        _ask_for(example, pixels, item=0)
        return None


class AugmentControl(Operator):
    """Makes the masks of classes a picture that steers another; family controllable-image-editing.

    The example becomes the segmentation, a colour per class (the same in every picture), its ``control``
    ("segmentation") and ``caption``, and the target ``picture``, as it was. One without masks of classes is dropped as
    ``no_class_masks``, one without caption as ``no_caption``.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("images", "text", "annotations")
    writes: ClassVar[tuple[str, ...]] = ("images", "text", "annotations", "targets")

    op: Literal["augment_control"]

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._replace(example) for example in examples]

    def _replace(self, example: Example) -> str | None:
        found = [(item.texts["classes"][0], item.mask()) for item in items(example) if "classes" in item.texts]
        masks = [(name, read_mask(png)) for name, png in found if png is not None]
        masks = [(name, mask) for name, mask in masks if mask.any() and mask.shape == masks[0][1].shape]
        if not masks:
            return "no_class_masks"
        captions = texts(example, "caption")
        if not captions:
            return "no_caption"
        pixels = np.zeros((*masks[0][1].shape, 3), np.uint8)
        # Large classes first, so that what lies on them stays to be seen.
        for name, mask in sorted(masks, key=lambda one: (-int(one[1].sum()), one[0])):
            pixels[mask] = _colour(name)
        example.text = [
            Text(role="control", text="segmentation", image=0),
            *(Text(role="caption", text=caption, image=0) for caption in captions),
        ]
        example.annotations = []
        _ask_for(example, pixels, item=None)
        return None


def _objects(example: Example) -> list[tuple[str, Box]]:
    """Labels and boxes of objects: of complete lists, else of single regions."""
    known = [(label, box) for label, boxes in boxes_by_class(example).items() for box in boxes]
    if known:
        return known
    found = []
    for item in items(example):
        regions = item.boxes("region")
        if len(regions) == 1 and item.texts.get("label"):
            found.append((item.texts["label"][0], corners(regions[0])))
    return found


def _ask_for(example: Example, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], item: int | None) -> None:
    """Show these pixels, and ask for the current picture as it was."""
    old: Image = example.images[-1]
    shown = Picture.of_pixels(pixels, Encoding(), digest=old.digest, uri=old.uri, time=old.time)
    example.targets = [Target(kind="picture", role="picture", image=0, item=item, data=old.data, format=old.format)]
    example.images = [shown]


def _colour(name: str) -> tuple[int, int, int]:
    """A bright colour that depends on the name alone."""
    red, green, blue = colorsys.hsv_to_rgb(uniform("class colour", name), 0.5 + uniform("saturation", name) / 2, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
