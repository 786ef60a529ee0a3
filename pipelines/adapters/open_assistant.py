"""Trees of conversations as Open Assistant publishes them; the path of the best-ranked replies is the conversation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from omnimill.errors import BadRecord, ConfigError, RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.adapters.annotated_media import AnnotatedMedia
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import json_lines
from omnimill.pipelines.adapters.dialogue import Turn, exchanges, speaker
from omnimill.pipelines.decoders.fields import fact
from omnimill.pipelines.decoders.text import text_value
from omnimill.pipelines.sources.examples import make_example
from omnimill.schema import Example, Meta, Provenance, Text

Message = Mapping[str, Any]


class OpenAssistantSource(AnnotatedMedia):
    """Message trees as JSON Lines: a tree a line (``*.trees.jsonl.gz``) or a message a line (``*.messages.jsonl.gz``).

    From the prompt on, the reply of lowest rank is followed (of replies without rank, the first). Each of the
    assistant's turns on that path is an item: ``answer``, and as ``question`` all turns before it. Messages that were
    deleted or did not pass review are not followed. A record is a tree; one without any answer is dropped as
    ``no_answer``.

    include: files of trees, or of messages; the published folders have both, of the same trees.
    languages: of the prompt; other trees are dropped as ``language``; no condition when empty.
    earlier_characters: of the turns before the last one in a question; older ones are left out.
    """

    bytes_per_medium: ClassVar[int] = 8192

    type: Literal["open_assistant"]
    include: tuple[str, ...] = ("**/*_ready.trees.jsonl", "**/*_ready.trees.jsonl.gz")
    exclude: tuple[str, ...] = ()
    languages: tuple[str, ...] = ("en",)
    earlier_characters: int = Field(1200, ge=0)

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        found = files.find(self.path, self.include, self.exclude)
        if not found:
            raise ConfigError(f"source {self.name}: no file of messages or trees in {self.path}")
        return [("messages", url) for url in found]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:
        for _, line in json_lines(uri):
            prompt = line.get("prompt") if isinstance(line, dict) else None
            if isinstance(line, BadRecord):
                yield Row(None, kind, line)
            elif isinstance(prompt, dict):
                yield from _messages(prompt, str(line.get("message_tree_id")), kind)
            else:
                tree = line.get("message_tree_id") if isinstance(line, dict) else None
                wrong = BadRecord("missing_field", "a line that is neither a tree nor a message of one")
                yield Row(str(tree), kind, line) if isinstance(tree, str) else Row(None, kind, wrong)

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002 - there are none
        return ()

    def example(
        self,
        unit: Unit,
        key: str,
        provenance: Provenance,
        media: Sequence[Any],  # noqa: ARG002 - there are none
        said: Said,
        common: Said,  # noqa: ARG002
    ) -> Sequence[Example]:
        path = _best_path(said["messages"], key)
        language = fact(path[0], "lang")
        if self.languages and language not in self.languages:
            raise RecordDropped("language")
        turns = [Turn(speaker(one.get("role"), "role"), text_value(one.get("text"), "text")) for one in path]
        texts = [
            Text(role=role, text=text, item=item)
            for item, pair in enumerate(exchanges(turns, self.earlier_characters))
            for role, text in (("question", pair.question), ("answer", pair.answer))
        ]
        if not texts:
            raise RecordDropped("no_answer")
        return [make_example(self, unit, key, provenance, text=texts, meta=Meta(language=language))]


def _messages(prompt: Message, tree: str, kind: str) -> Iterator[Row]:
    """The messages of a tree that stands in one line, without their replies; parents before children."""
    waiting: list[tuple[Any, Any]] = [(prompt, None)]
    while waiting:
        message, parent = waiting.pop(0)
        if not isinstance(message, dict):
            yield Row(tree, kind, BadRecord("wrong_type", f"a message is {type(message).__name__}, not an object"))
            continue
        replies = message.get("replies")
        waiting += [(reply, message.get("message_id")) for reply in (replies if isinstance(replies, list) else [])]
        yield Row(tree, kind, {**message, "parent_id": parent, "replies": None})


def _best_path(messages: Sequence[Any], tree: str) -> list[Message]:
    """The prompt of a tree and the best reply to each message, as far as there are any.

    Raises:
        BadRecord: ``tree_malformed`` when there is not exactly one prompt.
        RecordDropped: ``no_answer`` when the prompt is not to be used.
    """
    told: list[Message] = [one for one in messages if isinstance(one, dict)]
    prompts = [one for one in told if one.get("parent_id") is None]
    if len(prompts) != 1:
        raise BadRecord("tree_malformed", f"tree {tree!r} has {len(prompts)} prompts")
    if not _is_usable(prompts[0]):
        raise RecordDropped("no_answer")
    replies: dict[Any, list[Message]] = {}
    for message in filter(_is_usable, told):
        replies.setdefault(message.get("parent_id"), []).append(message)
    path = prompts
    while beside := replies.pop(path[-1].get("message_id"), []):
        path.append(min(enumerate(beside), key=lambda one: (_rank(one[1]), one[0]))[1])
    return path


def _is_usable(message: Message) -> bool:
    return not message.get("deleted") and message.get("review_result") is not False


def _rank(message: Message) -> float:
    rank = message.get("rank")
    return float(rank) if isinstance(rank, int | float) else float("inf")
