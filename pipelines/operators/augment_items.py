"""What operators of task augmentation share: an example's items, its classes, and places for new items.

They read what adapters write (roles of `omnimill.schema`), look at the current picture (the last) only, and add items
whose roles no other task reads, so that every task finds what it found before. Which ones are added is drawn by the
example's id.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from omnimill.pipelines.decoders.masks import Mask
from omnimill.rng import generator
from omnimill.schema import Annotation, Example, Text

Box = tuple[float, float, float, float]


@dataclass
class Item:
    """Texts by role, and annotations, that belong together."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    annotations: list[Annotation] = field(default_factory=list)

    def boxes(self, role: str) -> list[Annotation]:
        """Its boxes of one role."""
        return [one for one in self.annotations if one.box is not None and role_of(one) == role]

    def mask(self) -> bytes | None:
        """Its mask, if it has exactly one."""
        found = [one.mask for one in self.annotations if one.mask is not None]
        return found[0] if len(found) == 1 else None


def draws(example: Example, operator: str) -> np.random.Generator:
    """What an operator draws for an example."""
    return generator("augment", operator, example.id)


def free_item(example: Example) -> int:
    """The first number that no item has."""
    used = [
        *(text.item for text in example.text),
        *(annotation.item for annotation in example.annotations),
        *(target.item for target in example.targets),
    ]
    return max((item for item in used if item is not None), default=-1) + 1


def corners(annotation: Annotation) -> Box:
    """The box of an annotation that has one."""
    y1, x1, y2, x2 = annotation.box or [0.0] * 4
    return y1, x1, y2, x2


def role_of(annotation: Annotation) -> str:
    """The role of a box, or the kind of another annotation where it has no role."""
    return annotation.role or ("boxes" if annotation.kind == "box" else annotation.kind)


def items(example: Example) -> list[Item]:
    """The items of the current picture, in the order of their numbers."""
    found: dict[int, Item] = {}
    for text in example.text:
        if text.item is not None and _current(example, text.image):
            found.setdefault(text.item, Item()).texts.setdefault(text.role, []).append(text.text)
    for annotation in example.annotations:
        if annotation.item is not None and _current(example, annotation.image):
            found.setdefault(annotation.item, Item()).annotations.append(annotation)
    return [found[number] for number in sorted(found)]


def texts(example: Example, role: str) -> list[str]:
    """Texts of a role about the current picture, those without an item too."""
    return [text.text for text in example.text if text.role == role and _current(example, text.image)]


def listed_boxes(example: Example) -> dict[str, list[Box]]:
    """All labelled boxes of the current picture by class, of the list of all; empty where there is none."""
    found: dict[str, list[Box]] = {}
    for one in example.annotations:
        whole = one.item is None and one.form is None and role_of(one) == "boxes"
        if whole and one.box is not None and one.label and _current(example, one.image):
            found.setdefault(one.label, []).append(corners(one))
    return found


def incomplete_classes(example: Example) -> set[str]:
    """Classes of which that list lacks objects, as its source noted (``meta.tags['incomplete']``): crowds, mostly."""
    return set(filter(None, example.meta.tags.get("incomplete", "").split("; ")))


def boxes_by_class(example: Example) -> dict[str, list[Box]]:
    """Boxes of all objects of each class that is known completely: of the list of all boxes, else of classes' items."""
    if listed := listed_boxes(example):
        incomplete = incomplete_classes(example)
        return {name: boxes for name, boxes in listed.items() if name not in incomplete}
    found = {}
    for item in items(example):
        labels, boxes = item.texts.get("label", []), item.boxes("boxes")
        if labels and boxes:
            found[labels[0]] = [corners(one) for one in boxes]
    return found


def add_texts(example: Example, item: int, **by_role: str) -> None:
    """Texts of a new item, about the current picture."""
    image = current(example)
    example.text.extend(Text(role=role, text=text, image=image, item=item) for role, text in by_role.items())


def current(example: Example) -> int | None:
    """Index of the current picture; None when there are no pictures."""
    return len(example.images) - 1 if example.images else None


def read_mask(png: bytes) -> Mask:
    """A mask as it was stored: bool [H, W]."""
    with Pillow.open(io.BytesIO(png), formats=("PNG",)) as picture:
        return np.asarray(picture.convert("L")) >= 128


def sample(rng: np.random.Generator, options: Sequence[str], count: int) -> list[str]:
    """So many different options, or all if there are fewer, in random order."""
    order: NDArray[np.int64] = rng.permutation(len(options))[:count]
    return [options[place] for place in order]


def any_of(names: Sequence[str]) -> str:
    """Names in words: ``a, b or c``."""
    return " or ".join([part for part in (", ".join(names[:-1]), names[-1]) if part])


def _current(example: Example, image: int | None) -> bool:
    return image is None or image == current(example)
