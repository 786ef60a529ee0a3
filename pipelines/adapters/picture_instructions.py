"""Instructions about pictures that stand in the same row as their bytes, as M3IT publishes them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.row_files import RowFiles
from omnimill.pipelines.decoders.images import ImageSettings


class PictureInstructionsSource(RowFiles):
    """Rows with pictures, a question and its answer; defaults are M3IT's. Of video rows the pictures are its frames.

    question: paragraphs with fields in braces, as of ``text_instructions``. answer: a field, a text or a list of them
        (each an answer of the same item).
    images_field: base64 text, bytes, a struct with ``bytes``, a path below `pictures`, or a list of these.
    max_pictures: of a row with more, so many are taken, evenly spaced, the last among them.
    """

    type: Literal["picture_instructions"]
    question: tuple[str, ...] = ("{instruction}", "{inputs}")
    answer: str = "outputs"
    images_field: str = "image_base64_str"
    id_field: str | None = None
    pictures: str = ""
    tag_fields: dict[str, str] = Field(default_factory=dict)
    max_pictures: int = Field(5, ge=1)
    images: ImageSettings = ImageSettings()
