"""Edited pictures in rows: the picture, what is to be done to it, and the picture after."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.row_files import RowFiles
from omnimill.pipelines.decoders.images import ImageSettings


class EditRowsSource(RowFiles):
    """Rows with a picture before and after an edit: ``instruction``, and the edited picture as target ``edited``.

    Defaults are the fields of InstructPix2Pix as Parquet. A picture is bytes, a struct with ``bytes``, or a path below
    `pictures`. ``phrase_fields``: what the picture shows before and after, kept as tags.
    """

    type: Literal["edit_rows"]
    include: tuple[str, ...] = ("**/*.parquet",)
    source_field: str = "original_image"
    instruction_field: str = "edit_prompt"
    target_field: str = "edited_image"
    id_field: str | None = None
    pictures: str = ""
    tag_fields: dict[str, str] = Field(default_factory=dict)
    rows_per_unit: int = Field(200, ge=1)
    images: ImageSettings = ImageSettings()


class MagicBrushSource(RowFiles):
    """MagicBrush: ``img_id``, ``turn_index``, ``source_img``, ``mask_img``, ``instruction``, ``target_img``.

    An edit is a record: the picture before it, its ``instruction`` and target ``edited``. The region that was edited
    by hand is an annotation of kind ``region`` with the role ``region``.

    history: the pictures and instructions of the earlier turns of the same picture come first, and edits without
        earlier turns are dropped as ``no_history``: the second task of the set.
    """

    type: Literal["magicbrush"]
    include: tuple[str, ...] = ("**/train-*.parquet",)
    rows_per_unit: int = Field(200, ge=1)
    history: bool = False
    images: ImageSettings = ImageSettings()
