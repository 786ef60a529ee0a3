"""Which of a row's texts and target pictures an example of a task reads, drawn among those that it may read."""

from __future__ import annotations

from omnimill.errors import OmnimillError
from omnimill.mixtures.config import Task
from omnimill.mixtures.items import complete_items, needs, pictures, texts
from omnimill.mixtures.row_columns import RowLengths
from omnimill.rng import choose, subkey
from omnimill.training.planning.draws import Purpose, role_number


class Choices:
    """The choices for one example; `omnimill.mixtures.items` says what there is to choose from.

    Args:
        key: of the example.

    Raises:
        OmnimillError: the row has no item with all that the task needs.
    """

    def __init__(self, task: Task, lengths: RowLengths, key: int) -> None:
        needed = needs(task)
        items = complete_items(lengths, needed)
        if not items:
            roles = ", ".join((*needed.texts, *needed.pictures))
            raise OmnimillError(f"task {task.name!r} needs {roles}, which no item of the example has together")
        self._lengths = lengths
        self._key = key
        self._item = items[choose(subkey(key, Purpose.ITEM), len(items))]

    def text(self, role: str) -> int:
        """The segment that stands for a role."""
        found = texts(self._lengths, role, self._item)
        return found[choose(subkey(self._key, Purpose.TEXT, role_number(role)), len(found))]

    def texts(self, role: str) -> list[int]:
        """The segments that could stand for a role."""
        return texts(self._lengths, role, self._item)

    def picture(self, role: str) -> int:
        """The target picture that stands for a role."""
        found = pictures(self._lengths, role, self._item)
        return found[choose(subkey(self._key, Purpose.TARGET_PICTURE), len(found))]
