"""Natural Instructions v2 (Super-NaturalInstructions): a JSON file per task, with definition, examples and instances."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from omnimill.pipelines.base import Source


class NaturalInstructionsSource(Source):
    """Task files: an instance is a record; its question is the definition, examples that are shown, and the input.

    Several outputs of an instance are several answers of its item. Tags: ``task``, ``category``.

    include: task files below `path`.
    tasks: a file below `path` with a task on each line (``splits/default/train_tasks.txt``); others are dropped as
        ``other_split``.
    excluded: a file below `path` with tasks that are dropped as ``excluded``.
    languages: a task with an input or output in another one is dropped as ``language``; no condition when empty.
    shown: positive examples that come before the input, as many as there are.
    instances_per_unit: of one task.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "instances_per_unit")

    type: Literal["natural_instructions"]
    path: str
    include: tuple[str, ...] = ("tasks/task*.json",)
    exclude: tuple[str, ...] = ()
    tasks: str | None = None
    excluded: str | None = None
    languages: tuple[str, ...] = ("English",)
    shown: int = Field(0, ge=0)
    instances_per_unit: int = Field(10_000, ge=1)
    max_bytes: int = Field(256 << 20, ge=1)
