"""Choices for many examples at once: what `omnimill.training.rendering.choices` draws, as array operations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from omnimill.errors import OmnimillError
from omnimill.mixtures.config import Task
from omnimill.mixtures.items import needs
from omnimill.rng import Int64s, UInt64s, choose_many, subkey_many
from omnimill.training.planning.draws import Purpose, role_number
from omnimill.training.planning.row_batch import NO_ITEM, Lists, RowBatch, role_code

Mask = npt.NDArray[np.bool_]


class BulkChoices:
    """The choices for n examples of one task.

    Args:
        keys: uint64 [n]; of the examples.

    Raises:
        OmnimillError: a row has no item with all that the task needs.
    """

    def __init__(self, task: Task, batch: RowBatch, keys: UInt64s) -> None:
        self._task = task
        self._keys = keys
        self._batch = batch
        needed = needs(task)
        self._texts = {role: _Found(batch.texts, role, "lengths") for role in needed.texts}
        self._pictures = {role: _Found(batch.targets, role, "codes") for role in needed.pictures}
        self._items = self._choose_items([*self._texts.values(), *self._pictures.values()])

    def text(self, role: str) -> Int64s:
        """Tokens of the segment that stands for a role: int64 [n]."""
        key = (Purpose.TEXT, role_number(role))
        return self._choose(self._texts[role], {"images": self._batch.pictures, "audio": self._batch.clips}, key)

    def picture(self, role: str) -> Int64s:
        """Codes of the target picture that stands for a role: int64 [n]."""
        return self._choose(self._pictures[role], {"images": self._batch.pictures}, (Purpose.TARGET_PICTURE,))

    def _choose(self, found: _Found, media: dict[str, Lists], purpose: tuple[int, ...]) -> Int64s:
        own = found.items == self._items[found.rows]
        chosen = self._prefer(own, found.items == NO_ITEM, found.rows)
        current = np.zeros(len(found.rows), np.bool_)
        for column, lists in media.items():
            current |= found.column(column) == (lists.counts - 1)[found.rows]
        chosen = self._prefer(chosen & current, chosen, found.rows)
        counts = np.bincount(found.rows[chosen], minlength=len(self._keys))
        if not counts.all():
            raise self._lacking()
        lengths: Int64s = found.lengths[chosen]
        if len(lengths) == len(self._keys):
            return lengths
        drawn: Int64s = lengths[np.cumsum(counts) - counts + choose_many(subkey_many(self._keys, *purpose), counts)]
        return drawn

    def _prefer(self, first: Mask, second: Mask, rows: Int64s) -> Mask:
        """Entries of `first`, and of `second` for rows that have none of those."""
        if first.all():
            return first
        has = np.zeros(len(self._keys), np.bool_)
        has[rows[first]] = True
        return first | (second & ~has[rows])

    def _choose_items(self, found: Sequence[_Found]) -> Int64s:
        """The item that every example reads, `NO_ITEM` where items do not matter: int64 [n]."""
        count = len(self._keys)
        chosen = np.full(count, NO_ITEM, np.int64)
        # Bit k of a row: it has the k-th thing needed without an item.
        without = np.zeros(count, np.int64)
        for k, one in enumerate(found):
            without[one.rows[one.items == NO_ITEM]] |= 1 << k
        everything = (1 << len(found)) - 1
        open_rows = without != everything
        if not open_rows.any():
            return chosen
        for k, one in enumerate(found):
            without[one.rows[one.items != NO_ITEM]] &= ~(1 << k)  # what some item has, each must have for itself
        # One number for every item of a row, ascending; bit k: the item, or its row without one, has the k-th thing.
        width = 1 + max((int(one.items.max()) for one in found if len(one.items)), default=0)
        pairs = [one.rows * width + one.items for one in found]
        named = np.unique(np.concatenate([pair[one.items != NO_ITEM] for pair, one in zip(pairs, found, strict=True)]))
        has = without[named // width]
        for k, (pair, one) in enumerate(zip(pairs, found, strict=True)):
            has[np.searchsorted(named, pair[one.items != NO_ITEM])] |= 1 << k
        complete = named[(has == everything) & open_rows[named // width]]
        counts = np.bincount(complete // width, minlength=count)
        if not counts[open_rows].all():
            raise self._lacking()
        place = np.cumsum(counts) - counts + choose_many(subkey_many(self._keys, Purpose.ITEM), np.maximum(counts, 1))
        chosen[open_rows] = complete[place[open_rows]] % width
        return chosen

    def _lacking(self) -> OmnimillError:
        return OmnimillError(f"task {self._task.name!r}: a row lacks something that the task needs of one item")


class _Found:
    """Entries of one role that are not empty. rows, items, lengths: int64, one each."""

    def __init__(self, lists: Lists, role: str, lengths: str) -> None:
        self._lists = lists
        self._entries = np.flatnonzero((lists.columns["roles"] == role_code(role)) & (lists.columns[lengths] > 0))
        self.rows = lists.rows[self._entries]
        self.items = self.column("items")
        self.lengths = self.column(lengths)

    def column(self, name: str) -> Int64s:
        """A column of these entries."""
        return self._lists.columns[name][self._entries].astype(np.int64)
