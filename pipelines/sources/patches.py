"""Coloured shapes pasted on the pictures of a dataset, to be found or counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from omnimill import rng
from omnimill.errors import RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Record
from omnimill.pipelines.decoders.pixels import Encoding, Picture, Pixels, load_rgb
from omnimill.pipelines.sources.example_shards import ExampleShards, row_records
from omnimill.pipelines.sources.examples import make_example
from omnimill.schema import Annotation, Example, Image, Meta, Provenance, Text

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 170, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 215, 40),
    "orange": (245, 140, 30),
    "purple": (140, 50, 180),
    "pink": (245, 130, 190),
    "cyan": (50, 200, 220),
    "black": (15, 15, 15),
    "white": (240, 240, 240),
}
# Corners in the unit square, as (x, y).
SHAPES: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": ((0.5, 0), (1, 1), (0, 1)),
    "diamond": ((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
    "hexagon": ((0.25, 0), (0.75, 0), (1, 0.5), (0.75, 1), (0.25, 1), (0, 0.5)),
    "star": tuple(
        (0.5 + radius * math.sin(turn * math.pi / 5), 0.5 - radius * math.cos(turn * math.pi / 5))
        for turn, radius in enumerate([0.5, 0.2] * 5)
    ),
    "circle": (),
}
# Sides of a patch in shares of the picture's shorter side, and what a shape needs to be told from another.
_MIN_SHARE, _MAX_SHARE = 0.06, 0.25
_MIN_PIXELS = 8
_TRIES = 20


@dataclass(frozen=True)
class Patch:
    """A shape of one colour. top, left, side: pixels of the square that it fills."""

    colour: str
    shape: str
    top: int
    left: int
    side: int

    def overlaps(self, other: Patch) -> bool:
        return (
            self.top < other.top + other.side
            and other.top < self.top + self.side
            and self.left < other.left + other.side
            and other.left < self.left + self.side
        )


class PatchesSource(ExampleShards):
    """Pictures of a dataset with shapes on them, as Unified-IO 2 made of LAION aesthetics and RedCaps (appendix C.1).

    A record is an example of the dataset; its first picture gets 1 to `max_patches` shapes that do not overlap, their
    colours, kinds, sizes and places drawn by `seed` and the example's id. The example has that picture, a box with
    label ("red star") for every shape, and a text of role ``count``, their number. Other texts are left behind. One
    without a picture on which a shape has room is dropped as ``no_room``.

    The provenance, and the picture's uri and digest, stay those of the original.
    """

    type: Literal["patches"]
    max_patches: int = Field(10, ge=1, le=64)
    seed: int = 0

    def read(self, unit: Unit) -> Iterator[Record]:
        return row_records(unit, "id", partial(self._patched, unit))

    def _patched(self, unit: Unit, key: str, provenance: Provenance, parent: Example) -> list[Example]:
        if not parent.images:
            raise RecordDropped("no_room")
        image = parent.images[0]
        patches = draw_patches(image.width, image.height, self.max_patches, self.seed, key)
        if not patches:
            raise RecordDropped("no_room")
        picture = _pasted(image, patches)
        boxes = [_annotation(patch, image) for patch in patches]
        count = Text(role="count", text=str(len(patches)), image=0)
        meta = Meta(licence=parent.meta.licence, url=parent.meta.url, tags=parent.meta.tags)
        return [make_example(self, unit, key, provenance, images=[picture], text=[count], annotations=boxes, meta=meta)]


def draw_patches(width: int, height: int, most: int, seed: int, key: str) -> list[Patch]:
    """Shapes for a picture of this size, a function of seed and key; none when there is no room for a single one."""
    draws = rng.generator("patches", seed, key)
    short = min(width, height)
    smallest, largest = max(_MIN_PIXELS, round(short * _MIN_SHARE)), round(short * _MAX_SHARE)
    found: list[Patch] = []
    if largest < smallest:
        return found
    for _ in range(int(draws.integers(1, most, endpoint=True))):
        colour, shape = (str(draws.choice(list(names))) for names in (COLOURS, SHAPES))
        for _ in range(_TRIES):
            side = int(draws.integers(smallest, largest, endpoint=True))
            top, left = (int(draws.integers(0, room - side, endpoint=True)) for room in (height, width))
            patch = Patch(colour, shape, top, left, side)
            if not any(patch.overlaps(other) for other in found):
                found.append(patch)
                break
    return found


def _pasted(image: Image, patches: list[Patch]) -> Image:
    pixels = np.array(load_rgb(image))
    for patch in patches:
        paste(pixels, patch)
    return Picture.of_pixels(pixels, Encoding(), digest=image.digest, uri=image.uri, time=image.time)


def paste(pixels: Pixels, patch: Patch) -> None:
    """Draw a patch into pixels, uint8 [height, width, 3]; it touches all four sides of its square."""
    colour = COLOURS[patch.colour]
    last = patch.side - 1
    square = pixels[patch.top : patch.top + patch.side, patch.left : patch.left + patch.side]
    if patch.shape == "circle":
        rows, columns = np.ogrid[: patch.side, : patch.side]
        square[(rows - last / 2) ** 2 + (columns - last / 2) ** 2 <= (patch.side / 2) ** 2] = colour
        return
    corners = np.array(SHAPES[patch.shape])
    # The star's points stay short of the square's sides: stretched, its box is the square as well.
    corners = (corners - corners.min(0)) / (corners.max(0) - corners.min(0))
    drawn = np.zeros(square.shape[:2], np.uint8)
    cv2.fillPoly(drawn, [np.rint(corners * last).astype(np.int32)], 1)
    square[drawn > 0] = colour


def _annotation(patch: Patch, image: Image) -> Annotation:
    box = [
        patch.top / image.height,
        patch.left / image.width,
        (patch.top + patch.side) / image.height,
        (patch.left + patch.side) / image.width,
    ]
    return Annotation(kind="box", image=0, label=f"{patch.colour} {patch.shape}", box=box)
