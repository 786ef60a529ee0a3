"""Boxes in space as Omni3D publishes them: COCO-like JSON with a camera for each picture."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.images import ImageSettings


class Omni3dSource(Source):
    """Pictures with all their cuboids: annotations of kind ``cuboid``, role ``cuboids``. A record is a picture.

    A cuboid is left out when it is not valid in 3D, lies behind the camera, or is hidden or cut off too far; a picture
    without any is dropped as ``no_cuboids``. Its box in the picture is the projected one, cut at the picture's edges.

    annotations: JSON files below `path`. Pictures lie below `pictures` by their ``file_path``.
    min_visibility, max_truncation: of an object, where they are known.
    categories: names that are kept; all when None.
    """

    selection: ClassVar[tuple[str, ...]] = ("annotations", "pictures_per_unit")

    type: Literal["omni3d"]
    path: str
    annotations: tuple[str, ...] = ("Omni3D/*_train.json",)
    pictures: str = ""
    categories: tuple[str, ...] | None = None
    min_visibility: float = Field(0.3333, ge=0, le=1)
    max_truncation: float = Field(0.3333, ge=0, le=1)
    pictures_per_unit: int = Field(64, ge=1)
    images: ImageSettings = ImageSettings()
