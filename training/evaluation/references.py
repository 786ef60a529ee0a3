"""What is right for an example, and what is known of it before its answer is read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

from PIL import Image

from omnimill.errors import BadRecord
from omnimill.locations import Range
from omnimill.mixtures.config import SPARSE_ROLES, Task
from omnimill.mixtures.row_columns import RowContent
from omnimill.schema import Annotation, Example, Target
from omnimill.tokenizers import cuboids
from omnimill.tokenizers.annotations import placed
from omnimill.tokenizers.map_files import decode_npy
from omnimill.tokenizers.optical_flow import largest_flow
from omnimill.tokenizers.store import Tokenizers
from omnimill.training.metrics.families import judging, measures
from omnimill.training.metrics.reading import Shown
from omnimill.training.rendering.choices import Choices
from omnimill.training.rendering.forms import AnyRecipe

# What is read with facts that token rows do not have: a camera, ranges of numbers, the fastest motion.
_OF_EXAMPLES = frozenset({"cuboids", "vector", "action", "flow"})


def needs_example(task: Task) -> bool:
    """Whether the answers of a task may be read with facts that only the example has which its row was made from."""
    family = judging(task.family, task.target)[0]
    return any(measure.reading in _OF_EXAMPLES for measure in measures(family))


def right_texts(recipe: AnyRecipe, content: RowContent, tokenizers: Tokenizers) -> tuple[str, ...]:
    """Every text that stands for the target's role, the drawn one among them; none for other targets, numbers and
    texts that are denoised."""
    role = recipe.task.target_role
    if role is None or role in SPARSE_ROLES or recipe.task.objective != "generate":
        return ()
    segments = Choices(recipe.task, content, recipe.key).texts(role)
    return tuple(dict.fromkeys(tokenizers.text.decode(content.text_ids[i].tolist()) for i in segments))


def shown(recipe: AnyRecipe, content: RowContent, tokenizers: Tokenizers, example: Example | None = None) -> Shown:
    """What of an example its answer is read with.

    Args:
        example: that the row was made from, where it is at hand. Without it flow is in shares of the example's own
            maximum, cuboids have no camera, and numbers of annotations are taken for shares of the canvas.
    """
    height, width = _size(recipe, content)
    ranges = _ranges(recipe, content, tokenizers)
    found = Shown(height=height, width=width, label=_label(recipe, content, tokenizers), ranges=ranges)
    return found if example is None else _with_facts(found, _Target.of(recipe, content), example)


@dataclass(frozen=True)
class _Target:
    """Role, picture and item of what a task asks for."""

    role: str
    image: int | None
    item: int | None

    @classmethod
    def of(cls, recipe: AnyRecipe, content: RowContent) -> _Target:
        if (number := recipe.target_picture) is not None:
            return cls(content.target_roles[number], content.target_images[number], content.target_items[number])
        if not recipe.target_segments:
            return cls("", None, None)
        number = recipe.target_segments[0]
        return cls(content.text_roles[number], content.text_images[number], content.text_items[number])

    def annotations(self, example: Example) -> Iterator[Annotation]:
        """The annotations of an example that the target was made of."""
        for one in placed(example):
            if (one.role, one.image, one.item) == (self.role, self.image, self.item):
                yield one.annotation

    def pictures(self, example: Example) -> Iterator[Target]:
        for one in example.targets:
            if (one.role or one.kind, one.item) == (self.role, self.item) and one.image in (None, self.image):
                yield one


def _with_facts(found: Shown, target: _Target, example: Example) -> Shown:
    for annotation in target.annotations(example):
        if annotation.kind == "cuboid" and target.image is not None:
            # The camera counts in the original picture's pixels.
            picture = example.images[target.image]
            camera = cuboids.from_values(annotation.values or [], picture.height)[1]
            return replace(found, camera=camera, height=picture.height, width=picture.width)
        if annotation.kind == "values" and annotation.low is not None and annotation.high is not None:
            within = Range(low=annotation.low, high=annotation.high)
            return replace(found, ranges=(within,) * len(annotation.values or ()))
    for picture_target in target.pictures(example):
        if picture_target.kind == "flow":
            return replace(found, flow_maximum=_fastest(picture_target))
    return found


def _fastest(flow: Target) -> float:
    """Pixels of full saturation; 1, shares of the maximum, where the file has colours alone."""
    if flow.scale is not None:
        return flow.scale
    try:
        return largest_flow(decode_npy(flow.data, "flow")) if flow.format == "npy" else 1.0
    except BadRecord:
        return 1.0


def _size(recipe: AnyRecipe, content: RowContent) -> tuple[int, int]:
    """Of the current or the target picture; of what has none, a pixel."""
    if recipe.target_picture is not None:
        return content.target_heights[recipe.target_picture], content.target_widths[recipe.target_picture]
    if not content.image_data:
        return 1, 1
    with Image.open(io.BytesIO(content.image_data[-1])) as picture:
        return picture.height, picture.width


def _label(recipe: AnyRecipe, content: RowContent, tokenizers: Tokenizers) -> str:
    """The words that the example's prompt is about, such as a class."""
    segments = [piece for piece in recipe.head if isinstance(piece, int)]
    words = [i for i in segments if content.text_roles[i] not in SPARSE_ROLES]
    return " ".join(tokenizers.text.decode(content.text_ids[i].tolist()) for i in words)


def _ranges(recipe: AnyRecipe, content: RowContent, tokenizers: Tokenizers) -> tuple[Range, ...] | None:
    """Of a state or an action of the example's source, where the tokenizers learnt them."""
    known = tokenizers.ranges.get(content.source)
    found = {"state": known.state, "action": known.action} if known is not None else {}
    return found.get(recipe.task.target_role or "") or None
