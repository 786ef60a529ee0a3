"""LVIS: many classes of objects with masks, of which a picture says what it was searched for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures
from omnimill.pipelines.adapters.picture_objects import ObjectSettings


class LvisSource(AnnotatedPictures):
    """LVIS v1 (Gupta et al., 2019, arXiv 1908.03195): ``lvis_v1_train.json``, pictures of COCO 2017.

    A picture was searched for some classes only: those annotated and those verified to be absent. Classes whose objects
    are not all annotated (``not_exhaustive_category_ids``) give regions and their masks, but no list of boxes and no
    mask of the class.

    split: train or val. file: ``{split}`` in it is `split`.
    pictures: folder that has train2017 and val2017, by default `path`.
    absent_classes: so many of the classes that are verified to be absent become ``classes`` with an empty mask.
    """

    type: Literal["lvis"]
    split: str = "train"
    file: str = "lvis_v1_{split}.json"
    objects: ObjectSettings = ObjectSettings(boxes=0)
    absent_classes: int = Field(1, ge=0)
