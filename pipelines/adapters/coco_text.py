"""COCO-Text: words in pictures of COCO, with their boxes."""

from __future__ import annotations

from typing import Literal

from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures


class CocoTextSource(AnnotatedPictures):
    """COCO-Text v2 (Veit et al., 2016, arXiv 1601.07140): ``cocotext.v2.json``, pictures of COCO 2014.

    Legible words become labelled boxes. Each of the picture's words is an item of its ``label`` and boxes too.

    words: the annotation file. pictures: folder of train2014; by default ``{path}/train2014``.
    split: train, val or test; None for all.
    max_words: a picture with more legible words gives no list of boxes; of its items so many are drawn.
    """

    type: Literal["coco_text"]
    words: str = "cocotext.v2.json"
    split: Literal["train", "val", "test"] | None = "train"
    max_words: int = 64
