"""Boxes in space as Omni3D publishes them: COCO-like JSON with a camera for each picture."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures, Described, PictureRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, json_rows
from omnimill.pipelines.adapters.cuboid_boxes import Pinhole, clipped, cuboid, numbers, pinhole
from omnimill.pipelines.adapters.fields import first
from omnimill.pipelines.adapters.row_pictures import media_url
from omnimill.pipelines.decoders.numbers import is_finite_number
from omnimill.pipelines.decoders.text import text_value
from omnimill.schema import Annotation


class Omni3dSource(AnnotatedPictures):
    """Pictures with all their cuboids: annotations of kind ``cuboid``, role ``cuboids``. A record is a picture.

    A cuboid is left out when it is not valid in 3D or was not measured, lies behind the camera, or is hidden or cut off
    too far, as Omni3D's own program does; a picture without any is dropped as ``no_annotations``. Its box in the
    picture is the projected one, cut at the picture's edges. Cameras have square pixels in all of Omni3D's sets but for
    rounding; one that has not is quarantined as ``camera_invalid``.

    annotations: JSON files below `path`. Pictures lie below `path`, or `pictures`, by their ``file_path``.
    min_visibility, max_truncation: of an object, where they are known; the defaults are those that Omni3D's own
        evaluation uses (arXiv 2207.10660).
    categories: names that are kept; all when None.
    """

    bytes_per_medium: ClassVar[int] = 8192

    type: Literal["omni3d"]
    annotations: tuple[str, ...] = ("Omni3D/*_train.json",)
    categories: tuple[str, ...] | None = None
    min_visibility: float = Field(0.3333, ge=0, le=1)
    max_truncation: float = Field(0.3333, ge=0, le=1)

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        return [("omni3d", uri) for uri in annotation_paths(self.path, self.annotations)]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:  # noqa: ARG002 - there is one kind
        stem = posixpath.basename(uri).removesuffix(".json")
        for path, number, value in json_rows(uri, "images", "annotations"):
            field = "id" if path == "images" else "image_id"
            name = value.get(field) if isinstance(value, dict) else None
            if isinstance(name, int):
                yield Row(f"{stem}/{name}", path, value)
            else:
                yield Row(None, path, BadRecord("missing_field", f"number {number} of {path!r} has no {field!r}"))

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        return [media_url(self.pictures or self.path, text_value(first(said, "images").get("file_path"), "file_path"))]

    def described(self, record: PictureRecord) -> Described:
        told = first(record.said, "images")
        size = (told.get("width"), told.get("height"))
        if size != (record.image.width, record.image.height):
            found = f"{record.image.width} x {record.image.height}"
            raise BadRecord("picture_size_mismatch", f"boxes for {size[0]} x {size[1]}, a picture of {found}")
        matrix = numbers(told.get("K"), "K", 3, 3)
        camera = pinhole(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
        made = (self._cuboid(one, camera, *size) for one in record.said.get("annotations", []))
        return Described(annotations=[one for one in made if one is not None])

    def _cuboid(self, told: Any, camera: Pinhole, width: int, height: int) -> Annotation | None:
        if not isinstance(told, dict):
            raise BadRecord("wrong_type", f"an annotation is {type(told).__name__}, not an object")
        label = text_value(told.get("category_name"), "category_name")
        if not self._wanted(told, label):
            return None
        left, top, right, bottom = numbers(told.get("bbox2D_proj"), "bbox2D_proj", 4).tolist()
        box = clipped([top / height, left / width, bottom / height, right / width])
        if box is None:
            return None
        centre, sides = (numbers(told.get(name), name, 3) for name in ("center_cam", "dimensions"))
        if centre[2] <= 0 or sides.min() <= 0:
            return None
        return cuboid(label, box, centre, sides, numbers(told.get("R_cam"), "R_cam", 3, 3), camera)

    def _wanted(self, told: Mapping[str, Any], label: str) -> bool:
        if not told.get("valid3D", True) or told.get("behind_camera"):
            return False
        if 0 in (told.get("lidar_pts"), told.get("segmentation_pts")):  # nothing of it was measured
            return False
        if self.categories is not None and label not in self.categories:
            return False
        seen, cut = _known(told.get("visibility")), _known(told.get("truncation"))
        return (seen is None or seen >= self.min_visibility) and (cut is None or cut <= self.max_truncation)


def _known(value: Any) -> float | None:
    """A share; -1 stands for one that is not known."""
    return float(value) if is_finite_number(value) and value >= 0 else None
