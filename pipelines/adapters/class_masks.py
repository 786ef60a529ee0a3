"""Pictures with a PNG of classes beside them, as ADE20K's scene parsing benchmark has them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures


class ClassMasksSource(AnnotatedPictures):
    """A class number per pixel in PNG files, with a table of names: ADEChallengeData2016 (Zhou et al., 2016, arXiv
    1608.05442) in its published layout.

    Every class in a picture is an item of ``classes`` and the mask of all its pixels.

    masks: folder of PNG files with the stems of the pictures' names; ``{split}`` is `split`.
    names: table with header, by tabs, of columns `number_column` and `name_column`; of synonyms the first counts.
    scenes: lines of a picture's stem and its scene, which becomes ``label``; None for none.
    unlabelled: numbers of no class.
    pictures: by default ``{path}/images/{split}``.
    max_classes, min_share: so many classes of a picture, of at least that share of its pixels.
    """

    type: Literal["class_masks"]
    split: str = "training"
    masks: str = "annotations/{split}"
    names: str = "objectInfo150.txt"
    number_column: str = "Idx"
    name_column: str = "Name"
    scenes: str | None = "sceneCategories.txt"
    unlabelled: tuple[int, ...] = (0,)
    max_classes: int = Field(8, ge=1)
    min_share: float = Field(0.001, ge=0, lt=1)
