"""Operators that build new tasks from annotations that are there."""

from __future__ import annotations

from omnimill.pipelines.base import Operator
from omnimill.pipelines.operators.augment_boxes import AugmentBoxes
from omnimill.pipelines.operators.augment_captions import AugmentCaptions
from omnimill.pipelines.operators.augment_detection import AugmentDetection
from omnimill.pipelines.operators.augment_episodes import AugmentEpisodes, AugmentGoals
from omnimill.pipelines.operators.augment_keypoints import AugmentKeypoints
from omnimill.pipelines.operators.augment_normals import AugmentNormals
from omnimill.pipelines.operators.augment_pictures import AugmentControl, AugmentInpainting
from omnimill.pipelines.operators.augment_relations import AugmentRelations
from omnimill.pipelines.operators.augment_segmentation import AugmentSegmentation

AUGMENTATION_TYPES: tuple[type[Operator], ...] = (
    AugmentBoxes,
    AugmentCaptions,
    AugmentControl,
    AugmentDetection,
    AugmentEpisodes,
    AugmentGoals,
    AugmentInpainting,
    AugmentKeypoints,
    AugmentNormals,
    AugmentRelations,
    AugmentSegmentation,
)
