"""New tasks from relationships between objects (arXiv 2312.17172, section D.11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from omnimill.pipelines.operators.augment_boxes import add_box
from omnimill.pipelines.operators.augment_items import Box, add_texts, corners, draws, free_item, items, sample
from omnimill.pipelines.operators.augmentation import Augmentation
from omnimill.schema import Example

Variant = Literal["of_box", "of_class"]


class AugmentRelations(Augmentation):
    """Adds lists of relationships; families relations-of-box and relations-of-class.

    of_box: an item of ``focus`` (an object's box and label) and ``relations``, all those that it is the subject of.
    of_class: of ``of_class`` (a class) and ``relations``, all those that an object of the class is the subject of.

    variants: which are made. items: of each. most: an example of more relationships is left alone, because its source
    may have taken only so many of them (`ObjectSettings.relations`), and then a list would not be all.
    """

    reads: ClassVar[tuple[str, ...]] = ("images", "text", "annotations")
    writes: ClassVar[tuple[str, ...]] = ("text", "annotations")

    op: Literal["augment_relations"]
    variants: tuple[Variant, ...] = Field(("of_box", "of_class"), min_length=1)
    items: int = Field(1, ge=1)
    most: int = Field(15, ge=1)

    def augment(self, example: Example) -> None:
        found = _relations(example)
        if not found or len(found) > self.most:
            return
        rng = draws(example, self.op)
        by_box: dict[tuple[str, Box], list[str]] = {}
        by_class: dict[str, list[str]] = {}
        for name, box, predicate, other in found:
            by_box.setdefault((name, box), []).append(f"{predicate} {other}")
            by_class.setdefault(name, []).append(f"{name} {predicate} {other}")
        subjects = list(by_box)
        for variant in self.variants:
            if variant == "of_box":
                for place in rng.permutation(len(subjects))[: self.items]:
                    name, box = subjects[place]
                    item = free_item(example)
                    add_texts(example, item, relations=_list(by_box[name, box]))
                    add_box(example, item, "focus", box, label=name)
            else:
                for name in sample(rng, list(by_class), self.items):
                    add_texts(example, free_item(example), of_class=name, relations=_list(by_class[name]))


def _relations(example: Example) -> list[tuple[str, Box, str, str]]:
    """Label and box of the subject, predicate, label of the object."""
    found = []
    for item in items(example):
        subjects, objects, predicates = item.boxes("subject"), item.boxes("object"), item.texts.get("predicate", [])
        if len(subjects) == len(objects) == 1 and predicates:
            label, other = subjects[0].label or "", objects[0].label or ""
            found += [(label, corners(subjects[0]), predicate, other) for predicate in predicates]
    return found


def _list(relations: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(relations))
