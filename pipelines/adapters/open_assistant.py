"""Trees of conversations as Open Assistant publishes them; the path of the best-ranked replies is the conversation."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from omnimill.pipelines.base import Source


class OpenAssistantSource(Source):
    """Message trees as JSON Lines: a tree a line (``*_trees.jsonl.gz``) or a message a line (``*_messages.jsonl.gz``).

    From the prompt on, the reply of lowest rank is followed (of replies without rank, the first). Each of the
    assistant's turns is an item: ``answer``, and as ``question`` all turns before it. Messages that were deleted or
    did not pass review end the path. A record is a tree.

    languages: of the prompt; others are dropped as ``language``; no condition when empty.
    trees_per_unit: of files of messages, which are sorted by tree once on each machine.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "trees_per_unit")

    type: Literal["open_assistant"]
    path: str
    include: tuple[str, ...] = ("**/*.jsonl", "**/*.jsonl.gz")
    exclude: tuple[str, ...] = ()
    languages: tuple[str, ...] = ("en",)
    trees_per_unit: int = Field(1000, ge=1)
