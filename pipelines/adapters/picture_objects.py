"""What annotated objects of a picture become: texts, boxes and masks in the roles that the task families read."""

from __future__ import annotations

from pydantic import Field

from omnimill.config import Config


class ObjectSettings(Config):
    """What the objects of a picture are made into, and how much of it an example holds at most.

    Where there is more than a limit allows, so much is drawn, the same every time; 0 leaves a kind out.

    boxes: all labelled boxes of the picture as one list (object detection); more than this many: no list, as one that
        is cut off would teach to overlook.
    classes: items of a ``label`` and the boxes of all its objects (object localization).
    regions: items of a ``region`` and its ``label``, or its ``phrase`` (region classification and captioning).
    masks: items of a ``region``, its ``label`` and its mask (localized segmentation).
    class_masks: items of ``classes`` and the mask of all pixels of that class (semantic segmentation).
    people: items of a person's ``region`` and ``keypoints``.
    relations: items of a ``subject``, an ``object`` and the ``predicate`` between them.
    """

    boxes: int = Field(64, ge=0)
    classes: int = Field(16, ge=0)
    regions: int = Field(16, ge=0)
    masks: int = Field(8, ge=0)
    class_masks: int = Field(8, ge=0)
    people: int = Field(8, ge=0)
    relations: int = Field(16, ge=0)
