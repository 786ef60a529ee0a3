"""Base of sources that are annotation files and folders of media: a record is a medium and all that is said of it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from omnimill.pipelines.base import Source


class AnnotatedMedia(Source):
    """Base of sources whose annotation files name the media that lie beside them.

    path: folder of the dataset.
    media_per_unit: about so many media make a unit. How many there are is estimated from the size of the annotation
        files, so that listing units reads none of them.
    """

    selection: ClassVar[tuple[str, ...]] = ("media_per_unit",)

    path: str
    media_per_unit: int = Field(256, ge=1)
