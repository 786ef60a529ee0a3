"""What is right for an example, and what is known of it before its answer is read."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from omnimill.locations import Range
from omnimill.mixtures.config import SPARSE_ROLES
from omnimill.mixtures.row_columns import RowContent
from omnimill.tokenizers.store import Tokenizers
from omnimill.training.choices import Choices
from omnimill.training.metrics.reading import Shown
from omnimill.training.recipe import Recipe


def right_texts(recipe: Recipe, content: RowContent, tokenizers: Tokenizers) -> tuple[str, ...]:
    """Every text that stands for the target's role, the drawn one among them; none for other targets, numbers and
    texts that are denoised."""
    role = recipe.task.target_role
    if role is None or role in SPARSE_ROLES or recipe.task.objective != "generate":
        return ()
    segments = Choices(recipe.task, content, recipe.key).texts(role)
    return tuple(dict.fromkeys(tokenizers.text.decode(content.text_ids[i].tolist()) for i in segments))


def shown(recipe: Recipe, content: RowContent, tokenizers: Tokenizers) -> Shown:
    """What of an example its answer is read with.

    The scale of depth and flow and a picture's camera are no part of token rows: depth is in shares of the usual
    maximum, and cuboids cannot be read.
    """
    height, width = _size(recipe, content)
    return Shown(
        height=height,
        width=width,
        label=_label(recipe, content, tokenizers),
        ranges=_ranges(recipe, content, tokenizers),
    )


def _size(recipe: Recipe, content: RowContent) -> tuple[int, int]:
    """Of the current or the target picture; of what has none, a pixel."""
    if recipe.target_picture is not None:
        return content.target_heights[recipe.target_picture], content.target_widths[recipe.target_picture]
    if not content.image_data:
        return 1, 1
    with Image.open(io.BytesIO(content.image_data[-1])) as picture:
        return picture.height, picture.width


def _label(recipe: Recipe, content: RowContent, tokenizers: Tokenizers) -> str:
    """The words that the example's prompt is about, such as a class."""
    segments = [piece for piece in recipe.head if isinstance(piece, int)]
    words: Sequence[int] = [i for i in segments if content.text_roles[i] not in SPARSE_ROLES]
    return " ".join(tokenizers.text.decode(content.text_ids[i].tolist()) for i in words)


def _ranges(recipe: Recipe, content: RowContent, tokenizers: Tokenizers) -> tuple[Range, ...] | None:
    """Of a state or an action of the example's source, where the tokenizers learnt them."""
    known = tokenizers.ranges.get(content.source)
    found = {"state": known.state, "action": known.action} if known is not None else {}
    return found.get(recipe.task.target_role or "") or None
