"""Single parts of people, from all their keypoints."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from omnimill.body_parts import MISSING, PARTS
from omnimill.pipelines.operators.augment_items import add_texts, current, draws, free_item, items
from omnimill.pipelines.operators.augmentation import Augmentation
from omnimill.schema import Annotation, Example


class AugmentKeypoints(Augmentation):
    """Adds single parts of people; family keypoint-of-part.

    An item of ``part`` (its name), ``person`` (the box) and ``place``: the point, or the word MISSING for a part that
    is not labelled. Occluded parts have their points, as all keypoints of a person do.

    items: parts that are asked for, of different people as far as there are so many.
    """

    reads: ClassVar[tuple[str, ...]] = ("images", "text", "annotations")
    writes: ClassVar[tuple[str, ...]] = ("text", "annotations")

    op: Literal["augment_keypoints"]
    items: int = Field(1, ge=1)

    def augment(self, example: Example) -> None:
        people = [
            (boxes[0].box, found[0].values)
            for item in items(example)
            if (boxes := item.boxes("region"))
            and (found := [one for one in item.annotations if one.kind == "keypoints"])
        ]
        rng, image = draws(example, self.op), current(example)
        for place in rng.permutation(len(people))[: self.items]:
            box, values = people[place]
            part = int(rng.integers(len(PARTS)))
            y, x, seen = (values or [])[3 * part : 3 * part + 3]
            item = free_item(example)
            add_texts(example, item, part=PARTS[part])
            example.annotations.append(Annotation(kind="box", role="person", image=image, box=box, item=item))
            if seen:
                example.annotations.append(
                    Annotation(kind="points", role="place", image=image, points=[y, x], item=item)
                )
            else:
                add_texts(example, item, place=MISSING)
