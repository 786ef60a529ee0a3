"""Conversations about pictures or about nothing to be seen, as LLaVA and ShareGPT write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines.adapters.dialogue import Exchange, Turn, exchanges, read_turns
from omnimill.pipelines.adapters.row_files import RowFiles
from omnimill.pipelines.adapters.row_pictures import media_url, picture_path, row_picture
from omnimill.pipelines.decoders.fields import field_value
from omnimill.pipelines.decoders.images import ImageSettings
from omnimill.pipelines.sources.examples import make_example
from omnimill.schema import PICTURE_MARK, Example, Meta, Provenance, Text

_MARK, _ONLY_MARK = re.compile(r"<image>\n*"), re.compile(r"\s*<image>\s*")


class ConversationsSource(RowFiles):
    """Rows with a list of turns: each of the assistant's is an item, its ``question`` all that was said before.

    A turn is an object with who speaks (``from`` or ``role``: human, user, gpt, assistant, system and their like) and
    what is said (``value`` or ``content``). ``<image>`` in a turn is where the next picture is looked at: it is left
    out where there is one picture, and becomes `omnimill.schema.PICTURE_MARK` where there are several. A row makes an
    example; where pictures come in the midst of the conversation, one for each run of turns that sees the same ones.
    Rows in which nothing is answered are dropped as ``no_answer``.

    turns_field: the list.
    image_field: a path below `pictures`, bytes, or a list of these; rows need not have it.
    pictures: the folder in which paths of pictures begin, where it is not `path`.
    earlier_characters: of the turns before the last one in a question; older ones are left out.
    max_turns: of a conversation that are read; later ones are left out.
    max_pictures: a row with more is dropped as ``too_many_pictures``; no more than training reads of earlier pictures
        and the last one, for marks count from the first.
    """

    type: Literal["conversations"]
    include: tuple[str, ...] = ("**/*.json", "**/*.jsonl", "**/*.jsonl.gz", "**/*.parquet")
    tag_fields: dict[str, str] = Field(default_factory=lambda: {"id": "id"})
    turns_field: str = "conversations"
    image_field: str | None = "image"
    pictures: str | None = None
    earlier_characters: int = Field(1200, ge=0)
    max_turns: int = Field(32, ge=2)
    max_pictures: int = Field(5, ge=1)
    images: ImageSettings = ImageSettings()

    def fields(self) -> Sequence[str]:
        image = [] if self.image_field is None else [self.image_field]
        return list(dict.fromkeys([self.turns_field, *image, *self.tag_fields.values()]))

    def media(self, row: Mapping[str, Any]) -> Sequence[str]:
        paths = [path for value in self._pictures(row) if (path := picture_path(value)) is not None]
        return [media_url(self._folder(), path) for path in paths]

    def example(self, unit: Unit, key: str, provenance: Provenance, row: Mapping[str, Any]) -> Sequence[Example]:
        turns = read_turns(field_value(row, self.turns_field), self.turns_field)[: self.max_turns]
        values = self._pictures(row)
        if len(values) > self.max_pictures:
            raise RecordDropped("too_many_pictures")
        marks = sum(turn.text.count("<image>") for turn in turns)
        if marks > len(values):
            raise BadRecord("picture_count", f"{marks} marks of pictures, and {len(values)} pictures")
        pairs = list(exchanges([_marked(turn, len(values)) for turn in turns], self.earlier_characters))
        if not pairs:
            raise RecordDropped("no_answer")
        name = self.image_field or ""
        pictures = [row_picture(value, name, self._folder(), self.images) for value in values]
        # Pictures that no turn points at are seen from the beginning.
        unmarked = len(pictures) - (marks if len(pictures) > 1 else 0)
        runs = [(seen + unmarked, list(run)) for seen, run in groupby(pairs, lambda pair: pair.pictures)]
        return [
            make_example(
                self,
                unit,
                key if len(runs) == 1 else f"{key}#{number}",
                provenance,
                text=_texts(run, count),
                images=pictures[:count],
                meta=Meta(tags=self.tags(row)),
            )
            for number, (count, run) in enumerate(runs)
        ]

    def _pictures(self, row: Mapping[str, Any]) -> list[Any]:
        value = None if self.image_field is None else field_value(row, self.image_field)
        return value if isinstance(value, list) else [] if value is None else [value]

    def _folder(self) -> str:
        return self.pictures or self.path


def _marked(turn: Turn, pictures: int) -> Turn:
    """A turn with its marks of pictures as the schema has them; without, where there is at most one picture."""
    text = _MARK.sub(PICTURE_MARK, turn.text) if pictures > 1 else _ONLY_MARK.sub("\n", turn.text)
    return Turn(turn.speaker, text.strip())


def _texts(pairs: Sequence[Exchange], pictures: int) -> list[Text]:
    image = 0 if pictures == 1 else None
    return [
        Text(role=role, text=text, image=image, item=item)
        for item, pair in enumerate(pairs)
        for role, text in (("question", pair.question), ("answer", pair.answer))
    ]
