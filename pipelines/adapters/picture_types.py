"""Adapters of annotated pictures."""

from __future__ import annotations

from omnimill.pipelines.adapters.class_masks import ClassMasksSource
from omnimill.pipelines.adapters.coco import CocoSource
from omnimill.pipelines.adapters.coco_text import CocoTextSource
from omnimill.pipelines.adapters.lvis import LvisSource
from omnimill.pipelines.adapters.open_images import OpenImagesSource
from omnimill.pipelines.adapters.picture_captions import PictureCaptionsSource
from omnimill.pipelines.adapters.picture_labels import PictureLabelsSource
from omnimill.pipelines.adapters.picture_qa import PictureQaSource
from omnimill.pipelines.adapters.picture_statements import Nlvr2Source, VsrSource
from omnimill.pipelines.adapters.refcoco import RefCocoSource
from omnimill.pipelines.adapters.visual_dialog import VisualDialogSource
from omnimill.pipelines.adapters.visual_genome import VisualGenomeSource
from omnimill.pipelines.adapters.visual_stories import VisualStoriesSource
from omnimill.pipelines.base import Source

PICTURE_ADAPTERS: tuple[type[Source], ...] = (
    ClassMasksSource,
    CocoSource,
    CocoTextSource,
    LvisSource,
    Nlvr2Source,
    OpenImagesSource,
    PictureCaptionsSource,
    PictureLabelsSource,
    PictureQaSource,
    RefCocoSource,
    VisualDialogSource,
    VisualGenomeSource,
    VisualStoriesSource,
    VsrSource,
)
