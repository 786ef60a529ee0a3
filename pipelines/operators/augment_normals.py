"""New tasks from surface normals (arXiv 2312.17172, section D.11)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydantic import Field

from omnimill.pipelines.decoders.masks import mask_png
from omnimill.pipelines.operators.augment_items import add_texts, current, draws, free_item
from omnimill.pipelines.operators.augmentation import Augmentation
from omnimill.schema import Annotation, Example, Target

Variant = Literal["channels", "point", "facing"]
Directions = Mapping[str, tuple[float, float, float]]

_AXES = "xyz"
_COLOURS = ("red", "green", "blue")
# The level of a component of zero, as in `omnimill.tokenizers.dense`.
_CENTRE = 127.5


class AugmentNormals(Augmentation):
    """Adds what a map of surface normals says besides itself; families normals-channels, -at-point and -facing.

    channels: an item of ``channels`` (which axis each colour shows) and the target ``channels``: the map's colours in
        another order, or only one or two of them and black for the others.
    point: of ``point`` (a place where the normal is known) and ``orientation``, the three numbers of the normal there.
    facing: of ``facing`` (a direction) and the mask of all surfaces whose normal is at most `angle` degrees off it.

    variants: which are made. items: of each. directions: what the axes mean, a vector for each word. By default x is to
    the right, y up and z towards the camera. min_share: of the picture that has to face a direction for it to be asked.
    """

    reads: ClassVar[tuple[str, ...]] = ("images", "targets")
    writes: ClassVar[tuple[str, ...]] = ("text", "annotations", "targets")

    op: Literal["augment_normals"]
    variants: tuple[Variant, ...] = Field(("channels", "point", "facing"), min_length=1)
    items: int = Field(1, ge=1)
    directions: Directions = Field(
        default={
            "to the right": (1, 0, 0),
            "to the left": (-1, 0, 0),
            "up": (0, 1, 0),
            "down": (0, -1, 0),
            "towards the camera": (0, 0, 1),
        }
    )
    angle: float = Field(30, gt=0, le=90)
    min_share: float = Field(0.01, gt=0, le=1)

    def augment(self, example: Example) -> None:
        maps = [one for one in example.targets if one.kind == "normals" and one.item is None]
        if not maps:
            return
        normals = _unit(maps[-1])
        known = np.asarray(normals.any(axis=-1), np.bool_)
        if not known.any():
            return
        rng = draws(example, self.op)
        for variant in self.variants:
            for _ in range(self.items):
                if variant == "channels":
                    _add_channels(example, normals, known, rng)
                elif variant == "point":
                    _add_point(example, normals, known, rng)
                else:
                    self._add_facing(example, normals, rng)

    def _add_facing(self, example: Example, normals: NDArray[np.float64], rng: np.random.Generator) -> None:
        least = np.cos(np.radians(self.angle))
        masks = {}
        for word, vector in self.directions.items():
            mask = normals @ (np.array(vector) / np.linalg.norm(vector)) >= least
            if mask.mean() >= self.min_share:
                masks[word] = mask
        if masks:
            word = list(masks)[int(rng.integers(len(masks)))]
            item = free_item(example)
            add_texts(example, item, facing=word)
            example.annotations.append(
                Annotation(kind="region", image=current(example), mask=mask_png(masks[word]), item=item)
            )


def _add_channels(
    example: Example, normals: NDArray[np.float64], known: NDArray[np.bool_], rng: np.random.Generator
) -> None:
    order = rng.permutation(3)
    shown = np.ones(3, np.bool_)
    if rng.integers(2) or (order == np.arange(3)).all():
        shown[rng.permutation(3)[: int(rng.integers(1, 3))]] = False
    levels = np.rint((normals[..., order] + 1.0) * _CENTRE) * (known[..., None] & shown)
    words = [
        f"{colour} shows {_AXES[axis]}" if seen else f"{colour} is dark"
        for colour, axis, seen in zip(_COLOURS, order, shown, strict=True)
    ]
    item = free_item(example)
    add_texts(example, item, channels=", ".join(words))
    stream = io.BytesIO()
    Pillow.fromarray(levels.astype(np.uint8)).save(stream, "PNG")
    example.targets.append(
        Target(kind="picture", role="channels", image=current(example), item=item, data=stream.getvalue(), format="png")
    )


def _add_point(
    example: Example, normals: NDArray[np.float64], known: NDArray[np.bool_], rng: np.random.Generator
) -> None:
    places = np.argwhere(known)
    row, column = places[int(rng.integers(len(places)))]
    item, image = free_item(example), current(example)
    # The middle of the pixel.
    point = [float((row + 0.5) / known.shape[0]), float((column + 0.5) / known.shape[1])]
    example.annotations += [
        Annotation(kind="points", role="point", image=image, points=point, item=item),
        Annotation(
            kind="values",
            role="orientation",
            image=image,
            values=normals[row, column].tolist(),
            low=-1.0,
            high=1.0,
            item=item,
        ),
    ]


def _unit(target: Target) -> NDArray[np.float64]:
    """A map's normals, [H, W, 3], of length one; zero where they are not known."""
    if target.format == "npy":
        values = np.load(io.BytesIO(target.data), allow_pickle=False).astype(np.float64)
    else:
        with Pillow.open(io.BytesIO(target.data), formats=[target.format.upper()]) as picture:
            levels = np.asarray(picture.convert("RGB"), np.float64)
        values = np.where(levels.any(axis=-1, keepdims=True), levels - _CENTRE, 0.0)
    values = np.where(np.isfinite(values).all(axis=-1, keepdims=True), values, 0.0)
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.asarray(values / np.where(lengths > 0, lengths, 1.0))
