"""The parts of a person that keypoints mark: COCO's seventeen, in its order."""

from __future__ import annotations

PARTS = (
    "nose",
    "left eye",
    "right eye",
    "left ear",
    "right ear",
    "left shoulder",
    "right shoulder",
    "left elbow",
    "right elbow",
    "left wrist",
    "right wrist",
    "left hip",
    "right hip",
    "left knee",
    "right knee",
    "left ankle",
    "right ankle",
)
# Stands for a part that was not labelled.
MISSING = "MISSING"
