"""Which item of a row a task reads, and which of its texts and target pictures stand for a role then.

What belongs together in an example (a question and its answers, an expression and its mask) shares an item; what has
no item belongs to the whole example. A task reads one item: one that has, together with what has no item, all that the
task needs. What some item has is no part of the others even where the whole example has it too: boxes of all objects
are not those of the class that an item names. Where everything that a task needs is there without an item, items do
not matter.

These are the rules for one row; `omnimill.mixtures.eligibility` has the first of them for a shard at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnimill.mixtures.config import Task

if TYPE_CHECKING:
    from omnimill.mixtures.row_columns import RowLengths


@dataclass(frozen=True)
class Needs:
    """Roles that one item has to have, in order. texts: of text segments. pictures: of target pictures."""

    texts: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()


def needs(task: Task) -> Needs:
    """What a task needs of an item; a text that it reads whole is no part of that, whatever items its segments have."""
    whole = {task.target_role} if task.reads_whole else set()
    return Needs(tuple(sorted(task.roles - whole)), (task.target_picture,) if task.target_picture else ())


def complete_items(lengths: RowLengths, needed: Needs) -> list[int | None]:
    """The items that have all that is needed, ascending; [None] when it is all there without an item, [] for none."""
    having = [_items(lengths.text_items, _texts(lengths, role)) for role in needed.texts]
    having += [_items(lengths.target_items, _pictures(lengths, role)) for role in needed.pictures]
    if all(None in items for items in having):
        return [None]
    named = {item for items in having for item in items if item is not None}
    # What only the whole example has serves every item; what some item has, each must have for itself.
    general = [items == {None} for items in having]
    return [
        item
        for item in sorted(named)
        if all(item in items or all_of_it for items, all_of_it in zip(having, general, strict=True))
    ]


def texts(lengths: RowLengths, role: str, item: int | None) -> list[int]:
    """Text segments that stand for a role once an item is chosen, in order; empty ones are left out.

    Those of the item, or where it has none those without an item; of these, those of the current (last) picture or the
    current clip if there are any.
    """
    own = _own(lengths.text_items, _texts(lengths, role), item)
    image, clip = len(lengths.image_patches) - 1, len(lengths.audio_patches) - 1
    return [i for i in own if lengths.text_images[i] == image or lengths.text_audio[i] == clip] or own


def pictures(lengths: RowLengths, role: str, item: int | None) -> list[int]:
    """Target pictures that stand for a role once an item is chosen, in order; chosen as :func:`texts` are."""
    own = _own(lengths.target_items, _pictures(lengths, role), item)
    image = len(lengths.image_patches) - 1
    return [i for i in own if lengths.target_images[i] == image] or own


def _texts(lengths: RowLengths, role: str) -> list[int]:
    return [i for i, name in enumerate(lengths.text_roles) if name == role and lengths.text_lengths[i] > 0]


def _pictures(lengths: RowLengths, role: str) -> list[int]:
    return [i for i, name in enumerate(lengths.target_roles) if name == role and lengths.target_codes_lengths[i] > 0]


def _items(items: Sequence[int | None], found: Sequence[int]) -> set[int | None]:
    return {items[i] for i in found}


def _own(items: Sequence[int | None], found: Sequence[int], item: int | None) -> list[int]:
    own = [i for i in found if items[i] == item]
    return own or [i for i in found if items[i] is None]
