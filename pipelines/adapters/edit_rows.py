"""Edited pictures in rows: the picture, what is to be done to it, and the picture after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from omnimill.errors import RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines.adapters.row_files import RowFiles
from omnimill.pipelines.adapters.row_pictures import media_url, picture_path, row_picture
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.fields import fact_values, field_value
from omnimill.pipelines.decoders.images import ImageSettings
from omnimill.pipelines.sources.examples import make_example
from omnimill.schema import Example, Image, Meta, Provenance, Target, Text


class EditRows(RowFiles):
    """Base of adapters of rows with a picture before and after an edit.

    source_field, target_field: the pictures: bytes, a struct with ``bytes``, or a path below `pictures`.
    instruction_field: what is to be done; several wordings in a list are instructions of the same item. Rows without
        any are dropped as ``no_instruction``.
    """

    source_field: str
    instruction_field: str
    target_field: str
    pictures: str | None = None
    rows_per_unit: int = Field(200, ge=1)
    images: ImageSettings = ImageSettings()

    def fields(self) -> Sequence[str]:
        named = (self.source_field, self.instruction_field, self.target_field, *self.tag_fields.values())
        return list(dict.fromkeys(named))

    def media(self, row: Mapping[str, Any]) -> Sequence[str]:
        values = (field_value(row, field) for field in (self.source_field, self.target_field))
        return [media_url(self._folder(), path) for value in values if (path := picture_path(value)) is not None]

    def earlier(self, row: Mapping[str, Any]) -> tuple[list[Image], list[str]]:  # noqa: ARG002 - a subclass uses it
        """The pictures before the one that is edited, and what was asked of them."""
        return [], []

    def picture(self, row: Mapping[str, Any], field: str) -> Image:
        """A picture of a row; raises BadRecord."""
        return row_picture(field_value(row, field), field, self._folder(), self.images)

    def instructions(self, row: Mapping[str, Any]) -> list[str]:
        """What is to be done, in one or several wordings; raises BadRecord."""
        return [text.strip() for text in fact_values(row, self.instruction_field) if text.strip()]

    def example(self, unit: Unit, key: str, provenance: Provenance, row: Mapping[str, Any]) -> Sequence[Example]:
        asked = self.instructions(row)
        if not asked:
            raise RecordDropped("no_instruction")
        before, done = self.earlier(row)
        images = [*before, self.picture(row, self.source_field)]
        edited = self.picture(row, self.target_field)
        instructions = [
            "\n".join([*(f"Before: {text}" for text in done), f"Now: {now}"] if done else [now]) for now in asked
        ]
        return [edit_example(self, unit, key, provenance, images, instructions, edited, Meta(tags=self.tags(row)))]

    def _folder(self) -> str:
        return self.pictures or self.path


class EditRowsSource(EditRows):
    """Rows with a picture before and after an edit: ``instruction``, and the edited picture as target ``edited``.

    Defaults are the fields of InstructPix2Pix as Parquet.
    """

    type: Literal["edit_rows"]
    include: tuple[str, ...] = ("**/*.parquet",)
    tag_fields: dict[str, str] = Field(default_factory=lambda: {"before": "original_prompt", "after": "edited_prompt"})
    source_field: str = "original_image"
    instruction_field: str = "edit_prompt"
    target_field: str = "edited_image"


def edit_example(
    source: Source,
    unit: Unit,
    key: str,
    provenance: Provenance,
    images: Sequence[Image],
    instructions: Sequence[str],
    edited: Image,
    meta: Meta,
) -> Example:
    """The example of an edit: the last of the images is edited, by any of the instructions."""
    return make_example(
        source,
        unit,
        key,
        provenance,
        text=[
            Text(role="instruction", text=text, image=len(images) - 1, item=0) for text in dict.fromkeys(instructions)
        ],
        images=list(images),
        targets=[Target(kind="picture", data=edited.data, format=edited.format, role="edited", item=0)],
        meta=meta,
    )
