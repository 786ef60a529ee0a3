"""Instructions about pictures that stand in the same row as their bytes, as M3IT publishes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from omnimill.errors import RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines.adapters.paragraphs import paragraph_fields, paragraphs_text
from omnimill.pipelines.adapters.row_files import RowFiles
from omnimill.pipelines.adapters.row_pictures import Spelling, media_url, picture_path, row_picture
from omnimill.pipelines.decoders.fields import fact_values, field_value
from omnimill.pipelines.decoders.images import ImageSettings
from omnimill.pipelines.sources.examples import make_example
from omnimill.schema import Example, Meta, Provenance, Text


class PictureInstructionsSource(RowFiles):
    """Rows with pictures, a question and its answer; of video rows the pictures are its frames.

    Defaults are the fields that M3IT's loading script gives, saved as Parquet or JSON Lines: the files that the script
    reads differ from set to set, and keep the instructions apart.

    question: paragraphs with fields in braces, as of ``text_instructions``.
    answer: a field, a text or a list of them (each an answer of item 0). Rows without are dropped as ``no_answer``,
        those without picture as ``no_picture``.
    images_field: bytes, a struct with ``bytes``, text, or a list of these. image_text: what a text is: base64, or a
        path below `pictures`.
    max_pictures: of a row with more, so many are taken, evenly spaced, the last among them.
    """

    type: Literal["picture_instructions"]
    question: tuple[str, ...] = ("{instruction}", "{inputs}")
    answer: str = "outputs"
    images_field: str = "image_base64_str"
    image_text: Spelling = "base64"
    pictures: str | None = None
    max_pictures: int = Field(5, ge=1)
    bytes_per_unit: int = Field(32 << 20, ge=1)
    rows_per_unit: int = Field(200, ge=1)
    images: ImageSettings = ImageSettings()

    def fields(self) -> Sequence[str]:
        asked = paragraph_fields(self.question)
        return list(dict.fromkeys([*asked, self.answer, self.images_field, *self.tag_fields.values()]))

    def media(self, row: Mapping[str, Any]) -> Sequence[str]:
        if self.image_text == "base64":
            return ()
        paths = [path for value in self._pictures(row) if (path := picture_path(value)) is not None]
        return [media_url(self._folder(), path) for path in paths]

    def example(self, unit: Unit, key: str, provenance: Provenance, row: Mapping[str, Any]) -> Sequence[Example]:
        question = paragraphs_text(row, self.question)
        answers = [answer.strip() for answer in fact_values(row, self.answer) if answer.strip()]
        values = self._pictures(row)
        if not question:
            raise RecordDropped("no_question")
        if not answers:
            raise RecordDropped("no_answer")
        if not values:
            raise RecordDropped("no_picture")
        images = [
            row_picture(value, self.images_field, self._folder(), self.images, self.image_text) for value in values
        ]
        image = 0 if len(images) == 1 else None
        texts = [Text(role="question", text=question, image=image, item=0)]
        texts += [Text(role="answer", text=answer, image=image, item=0) for answer in dict.fromkeys(answers)]
        meta = Meta(tags=self.tags(row))
        return [make_example(self, unit, key, provenance, text=texts, images=images, meta=meta)]

    def _pictures(self, row: Mapping[str, Any]) -> list[Any]:
        value = field_value(row, self.images_field)
        values = value if isinstance(value, list) else [] if value is None else [value]
        return evenly([one for one in values if one not in (None, "")], self.max_pictures)

    def _folder(self) -> str:
        return self.pictures or self.path


def evenly(values: Sequence[Any], count: int) -> list[Any]:
    """`count` of the values, evenly spaced, counted back from the last; all when there are no more."""
    count = min(count, len(values))
    return [values[len(values) - 1 - len(values) * back // count] for back in range(count)][::-1]
