"""Captions of pictures in JSON files: TextCaps, NoCaps, VizWiz, SciCap, image paragraphs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures

Layout = Literal["coco", "text_caps", "no_caps", "vizwiz", "sci_cap", "paragraphs"]


class PictureCaptionsSource(AnnotatedPictures):
    """Captions, as many of a picture as there are, each a text of role ``caption``.

    layout: which dataset's files these are; ``coco`` is any JSON of ``images`` and ``annotations``.
    split: as the dataset's files spell it; None: the layout's training split.
    captions: file name or glob below `path`, with ``{split}``; None: that of the layout.
    pictures: None: the layout's folder below `path`.
    max_captions: of a picture.
    """

    type: Literal["picture_captions"]
    layout: Layout
    split: str | None = None
    captions: str | None = None
    max_captions: int = Field(16, ge=1)
