"""Conversations as questions and answers: all that was said before an answer is its question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.text import text_value
from omnimill.schema import PICTURE_MARK

Speaker = Literal["system", "person", "assistant"]
_SPEAKERS: dict[str, Speaker] = {
    "system": "system",
    **dict.fromkeys(("human", "user", "prompter", "person"), "person"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model", "bot"), "assistant"),
}
_NAMES: dict[Speaker, str] = {"person": "User", "assistant": "Assistant", "system": "System"}


@dataclass(frozen=True)
class Turn:
    """What one side said. text: with `PICTURE_MARK` where a picture is looked at."""

    speaker: Speaker
    text: str


@dataclass(frozen=True)
class Exchange:
    """An answer and what it answers. pictures: marks of pictures in all turns before it."""

    question: str
    answer: str
    pictures: int


def speaker(value: Any, field: str) -> Speaker:
    """Who speaks, by any of the names in use.

    Raises:
        BadRecord: ``missing_field``, ``wrong_type``, ``speaker_unknown``.
    """
    name = text_value(value, field)
    if name.lower() not in _SPEAKERS:
        raise BadRecord("speaker_unknown", f"{field!r} is {name!r}; known are {', '.join(_SPEAKERS)}")
    return _SPEAKERS[name.lower()]


def read_turns(value: Any, field: str) -> list[Turn]:
    """The turns of a row: objects with ``from`` and ``value``, or with ``role`` and ``content``.

    Raises:
        BadRecord: ``missing_field``, ``wrong_type``, ``speaker_unknown``.
    """
    if not isinstance(value, list):
        raise BadRecord(
            "missing_field" if value is None else "wrong_type", f"{field!r} is {type(value).__name__}, not a list"
        )
    turns = []
    for turn in value:
        if not isinstance(turn, Mapping):
            raise BadRecord("wrong_type", f"a turn is {type(turn).__name__}, not an object")
        who, what = ("from", "value") if "from" in turn else ("role", "content")
        turns.append(Turn(speaker(turn.get(who), who), text_value(turn.get(what), what)))
    return turns


def exchanges(turns: Sequence[Turn], earlier_characters: int) -> Iterator[Exchange]:
    """The answers of a conversation, each with its question.

    A question that nothing came before is as it was asked. Otherwise turns stand on lines that begin with their
    speaker; of the earlier ones the latest are kept that take no more than `earlier_characters`, and what the system
    was told. Marks of pictures in turns that are left out stay, at the beginning.
    """
    before: list[Turn] = []
    for turn in _joined(turns):
        answered = turn.speaker == "assistant" and any(one.speaker == "person" for one in before)
        if answered and turn.text.strip():
            pictures = sum(one.text.count(PICTURE_MARK) for one in before)
            yield Exchange(_question(before, earlier_characters), turn.text.strip(), pictures)
        before.append(turn)


def _joined(turns: Sequence[Turn]) -> list[Turn]:
    """Turns of the same speaker that follow each other as one."""
    joined: list[Turn] = []
    for turn in turns:
        if joined and joined[-1].speaker == turn.speaker:
            joined[-1] = Turn(turn.speaker, f"{joined[-1].text}\n{turn.text}")
        else:
            joined.append(turn)
    return joined


def _question(before: Sequence[Turn], earlier_characters: int) -> str:
    *earlier, asked = before
    told = [turn for turn in earlier if turn.speaker == "system"]
    said = [turn for turn in earlier if turn.speaker != "system"]
    kept: list[Turn] = []
    left = earlier_characters
    for turn in reversed(said):
        left -= len(turn.text)
        if left < 0:
            break
        kept.insert(0, turn)
    marks = PICTURE_MARK * sum(turn.text.count(PICTURE_MARK) for turn in said[: len(said) - len(kept)])
    lines = [turn.text.strip() for turn in told]
    if kept:
        lines += [f"{_NAMES[turn.speaker]}: {turn.text.strip()}" for turn in (*kept, asked)]
    else:
        lines.append(asked.text.strip())
    return marks + "\n".join(line for line in lines if line)
