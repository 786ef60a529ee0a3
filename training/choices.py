"""Which of a row's texts and target pictures a task reads.

What belongs together (a question and its answers, an expression and its mask) shares an item. A task reads one item:
of those that have, together with what has no item, everything that the task needs, one is drawn. If what has no item is
enough, nothing is drawn and items do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omnimill.errors import OmnimillError
from omnimill.mixtures.config import Task
from omnimill.mixtures.rows import RowLengths
from omnimill.rng import choose, subkey
from omnimill.training.draws import Purpose, role_number

# A role of texts, or of target pictures.
Need = tuple[str, bool]


def needs(task: Task) -> list[Need]:
    """What a task chooses from a row, in a fixed order: (role, whether it is a target picture).

    Texts that a denoising objective reads are not among them: it reads all of a role.
    """
    texts = set(task.prompt_roles)
    if task.target_role and task.objective != "text_denoising":
        texts.add(task.target_role)
    return [*((role, False) for role in sorted(texts)), *([(task.target_picture, True)] if task.target_picture else [])]


class Choices:
    """The choices for one example.

    Args:
        key: of the example.

    Raises:
        OmnimillError: the row lacks something that the task needs.
    """

    def __init__(self, task: Task, lengths: RowLengths, key: int) -> None:
        self._task = task
        self._lengths = lengths
        self._key = key
        self.item = self._item()

    def text(self, role: str) -> int:
        """The segment that stands for a role: of the current picture or clip if there are any, drawn among several."""
        lengths = self._lengths
        found = self._of_item([i for i, _ in self._texts(role)], lengths.text_items)
        image, clip = len(lengths.image_patches) - 1, len(lengths.audio_patches) - 1
        current = [i for i in found if lengths.text_images[i] == image or lengths.text_audio[i] == clip]
        options = current or found
        return options[choose(subkey(self._key, Purpose.TEXT, role_number(role)), len(options))]

    def picture(self, role: str) -> int:
        """The target picture of a role, drawn among several."""
        options = self._of_item([i for i, _ in self._pictures(role)], self._lengths.target_items)
        return options[choose(subkey(self._key, Purpose.TARGET_PICTURE), len(options))]

    def _of_item(self, found: list[int], items: Sequence[int | None]) -> list[int]:
        own = [i for i in found if items[i] == self.item]
        return own or [i for i in found if items[i] is None]

    def _item(self) -> int | None:
        held = [{item for _, item in self._held(*need)} for need in needs(self._task)]
        if all(None in items for items in held):
            return None
        complete = [
            item
            for item in sorted({item for items in held for item in items if item is not None})
            if all(item in items or None in items for items in held)
        ]
        if not complete:
            roles = ", ".join(role for role, _ in needs(self._task))
            raise OmnimillError(f"task {self._task.name!r} needs {roles}, which no item of the example has together")
        return complete[choose(subkey(self._key, Purpose.ITEM), len(complete))]

    def _held(self, role: str, picture: bool) -> Iterator[tuple[int, int | None]]:
        return self._pictures(role) if picture else self._texts(role)

    def _texts(self, role: str) -> Iterator[tuple[int, int | None]]:
        """Segments of a role that are not empty, and their items."""
        lengths = self._lengths
        for i, (name, tokens, item) in enumerate(
            zip(lengths.text_roles, lengths.text_lengths, lengths.text_items, strict=True)
        ):
            if name == role and tokens:
                yield i, item

    def _pictures(self, role: str) -> Iterator[tuple[int, int | None]]:
        """Target pictures of a role that were encoded, and their items."""
        lengths = self._lengths
        for i, (name, codes, item) in enumerate(
            zip(lengths.target_roles, lengths.target_codes_lengths, lengths.target_items, strict=True)
        ):
            if name == role and codes:
                yield i, item
