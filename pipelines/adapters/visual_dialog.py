"""Visual Dialog: ten questions and answers about a picture, each after those before it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures


class VisualDialogSource(AnnotatedPictures):
    """Visual Dialog v1.0 (Das et al., 2016, arXiv 1611.08669): ``visdial_1.0_train.json``, pictures of COCO 2014.

    An item is a turn: its question, with the caption and the turns before it in front, and its answer.

    file: ``{split}`` is `split`. pictures: by default `path`; folders that hold them are looked for by the picture's
        number: ``train2014/COCO_train2014_…``, ``val2014/COCO_val2014_…``, ``VisualDialog_val2018/…``.
    max_turns: of a picture.
    """

    type: Literal["visual_dialog"]
    split: str = "train"
    file: str = "visdial_1.0_{split}.json"
    max_turns: int = Field(10, ge=1)
