"""Conversations about pictures or about nothing to be seen, as LLaVA and ShareGPT write them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.row_files import RowFiles
from omnimill.pipelines.decoders.images import ImageSettings


class ConversationsSource(RowFiles):
    """Rows with a list of turns: each of the assistant's is an item, its ``question`` all that was said before.

    A turn is an object with who speaks (``from`` or ``role``: human, user, gpt, assistant, system and their like) and
    what is said (``value`` or ``content``). ``<image>`` in a turn is where the next picture is looked at: it is left
    out where there is one picture, and becomes `omnimill.schema.PICTURE_MARK` where there are several.

    turns_field: the list. id_field: unique in its file; without it a row is named by its place.
    image_field: a path below `pictures`, or a list of them; rows need not have it.
    pictures: folder below `path` in which the paths begin.
    max_turns: of a conversation that are read; later ones are left out.
    max_pictures: a row with more is dropped as ``too_many_pictures``.
    """

    type: Literal["conversations"]
    include: tuple[str, ...] = ("**/*.json", "**/*.jsonl", "**/*.jsonl.gz", "**/*.parquet")
    turns_field: str = "conversations"
    id_field: str | None = "id"
    image_field: str | None = "image"
    pictures: str = ""
    tag_fields: dict[str, str] = Field(default_factory=dict)
    max_turns: int = Field(32, ge=2)
    max_pictures: int = Field(8, ge=1)
    images: ImageSettings = ImageSettings()
