"""COCO: captions, objects with boxes and masks, people with keypoints, panoptic segments."""

from __future__ import annotations

from typing import Literal

from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures
from omnimill.pipelines.adapters.picture_objects import ObjectSettings

Kind = Literal["captions", "instances", "keypoints", "panoptic"]


class CocoSource(AnnotatedPictures):
    """COCO in its published layout (Lin et al., 2014, arXiv 1405.0312): ``annotations/*.json`` beside ``train2017/``.

    Other datasets in COCO's format (one JSON of images, annotations and categories) are named by `instances` and
    `pictures`. Masks are polygons, run lengths or compressed run lengths; panoptic ones PNG files. Crowds count for
    masks of classes alone.

    annotations: which files are read. ``{split}`` in their names is `split`.
    pictures: by default ``{path}/{split}``.
    objects: what they become.
    """

    type: Literal["coco"]
    split: str = "train2017"
    annotations: tuple[Kind, ...] = ("captions", "instances", "keypoints")
    captions: str = "annotations/captions_{split}.json"
    instances: str = "annotations/instances_{split}.json"
    keypoints: str = "annotations/person_keypoints_{split}.json"
    panoptic: str = "annotations/panoptic_{split}.json"
    panoptic_masks: str = "annotations/panoptic_{split}"
    objects: ObjectSettings = ObjectSettings()
