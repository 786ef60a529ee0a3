"""COCO: captions, objects with boxes and masks, people with keypoints, panoptic segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from omnimill.body_parts import PARTS
from omnimill.errors import BadRecord
from omnimill.infra import storage
from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures, Described, PictureRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, json_rows
from omnimill.pipelines.adapters.fields import first, keyed, objects, whole_number
from omnimill.pipelines.adapters.picture_objects import (
    ObjectSettings,
    Thing,
    annotated_size,
    describe_objects,
    drawn,
    pixel_box,
)
from omnimill.pipelines.adapters.row_pictures import media_url
from omnimill.pipelines.decoders.class_pixels import class_pixels, segment_ids
from omnimill.pipelines.decoders.numbers import is_finite_number
from omnimill.pipelines.decoders.polygons import decode_segmentation
from omnimill.pipelines.decoders.text import text_value
from omnimill.schema import Annotation

Kind = Literal["captions", "instances", "keypoints", "panoptic"]


class CocoSource(AnnotatedPictures):
    """COCO in its published layout (Lin et al., 2014, arXiv 1405.0312): ``annotations/*.json`` beside ``train2017/``.

    Other datasets in COCO's format (one JSON of images, annotations and categories) are named by `instances` and
    `pictures`. Masks are polygons, run lengths or compressed run lengths; panoptic ones PNG files. Crowds count for
    masks of classes alone, and where there is one its class has no list of all its boxes. Where panoptic segments are
    read, they and no others become masks of classes.

    annotations: which files are read. ``{split}`` in their names is `split`.
    pictures: by default ``{path}/{split}``.
    objects: what they become.
    """

    bytes_per_medium: ClassVar[int] = 5000
    shown: ClassVar[int | None] = 1

    type: Literal["coco"]
    split: str = "train2017"
    annotations: tuple[Kind, ...] = ("captions", "instances", "keypoints")
    captions: str = "annotations/captions_{split}.json"
    instances: str = "annotations/instances_{split}.json"
    keypoints: str = "annotations/person_keypoints_{split}.json"
    panoptic: str = "annotations/panoptic_{split}.json"
    panoptic_masks: str = "annotations/panoptic_{split}"
    objects: ObjectSettings = ObjectSettings()

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        names = {"captions": self.captions, "instances": self.instances}
        names |= {"keypoints": self.keypoints, "panoptic": self.panoptic}
        return [
            (kind, url)
            for kind in self.annotations
            for url in annotation_paths(self.path, [names[kind]], split=self.split)
        ]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:
        lists = ("images", "annotations") if kind == "captions" else ("images", "annotations", "categories")
        for name, _, value in json_rows(uri, *lists):
            if name == "categories":
                yield Row(None, f"{kind} categories", value)
            else:
                yield keyed(value, "id" if name == "images" else "image_id", "image" if name == "images" else kind)

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        name = text_value(first(said, "image").get("file_name"), "file_name")
        masks = self.panoptic_masks.format(split=self.split)
        beside = [
            media_url(storage.join(self.path, masks), text_value(told.get("file_name"), "file_name"))
            for told in said.get("panoptic", ())
        ]
        return [media_url(self.folder(self.split), name), *beside]

    def described(self, record: PictureRecord) -> Described:
        size = annotated_size(record.image, first(record.said, "image"))
        found = Described()
        for told in record.said.get("captions", ()):
            found.say("caption", text_value(told.get("caption"), "caption"))
        names = category_names(record.common.get("instances categories", ()))
        things = [coco_thing(told, names, size) for told in record.said.get("instances", ())]
        segments = [thing for told in record.said.get("panoptic", ()) for thing in _segments(told, record, size)]
        own = self.objects.model_copy(update={"class_masks": 0}) if segments else self.objects
        describe_objects(found, things, own, record.key)
        only_masks = dict.fromkeys(("boxes", "classes", "regions", "masks"), 0)
        describe_objects(found, segments, self.objects.model_copy(update=only_masks), record.key)
        people = [person for told in record.said.get("keypoints", ()) if (person := _person(told, size))]
        for box, values in drawn(people, self.objects.people, "people", record.key):
            item = found.item()
            found.annotations.append(Annotation(kind="box", image=0, item=item, role="region", box=box))
            found.annotations.append(Annotation(kind="keypoints", image=0, item=item, values=values))
        return found


def category_names(categories: Sequence[Any]) -> dict[Any, str]:
    """Names of classes by id; raises BadRecord."""
    return {
        whole_number(told.get("id"), "id"): text_value(told.get("name"), "name").replace("_", " ")
        for told in categories
        if isinstance(told, dict)
    }


def coco_thing(told: Mapping[str, Any], names: Mapping[Any, str], size: tuple[int, int]) -> Thing:
    """An object of ``annotations``; `size`: height and width of its picture. Raises BadRecord."""
    segmentation = told.get("segmentation")
    mask = partial(decode_segmentation, segmentation, *size) if segmentation else None
    return Thing(_category(told, names), pixel_box(told.get("bbox"), *size), mask, single=not told.get("iscrowd"))


def _category(told: Mapping[str, Any], names: Mapping[Any, str]) -> str:
    number = whole_number(told.get("category_id"), "category_id")
    if number not in names:
        raise BadRecord("category_unknown", f"category {number} is not among the categories")
    return names[number]


def _segments(told: Mapping[str, Any], record: PictureRecord, size: tuple[int, int]) -> Iterator[Thing]:
    """Panoptic segments: the colour of a pixel, R + 256 G + 65,536 B, is the id of its segment."""
    names = category_names(record.common.get("panoptic categories", ()))
    url = next(url for url in record.files if url.endswith(str(told.get("file_name"))))
    ids = segment_ids(record.files[url], size)
    for segment in objects(told.get("segments_info"), "segments_info"):
        number = whole_number(segment.get("id"), "id")
        yield Thing(_category(segment, names), mask=partial(class_pixels, ids, number))


def _person(told: Mapping[str, Any], size: tuple[int, int]) -> tuple[list[float], list[float]] | None:
    """Box and keypoints (y, x, visibility of every part, shares of the picture); None of a crowd or when none is known.

    COCO's keypoints are x, y, visibility in pixels, at the centres of pixels.
    """
    values = told.get("keypoints")
    if not isinstance(values, list) or len(values) != 3 * len(PARTS) or not all(map(is_finite_number, values)):
        raise BadRecord("keypoints_malformed", f"'keypoints' is not {3 * len(PARTS)} numbers")
    box = pixel_box(told.get("bbox"), *size)
    if box is None or told.get("iscrowd") or not any(values[2::3]):
        return None
    found: list[float] = []
    for x, y, seen in zip(*[iter(values)] * 3, strict=True):
        shares = ((y + 0.5) / size[0], (x + 0.5) / size[1]) if seen else (0.0, 0.0)
        found += [*(min(max(share, 0.0), 1.0) for share in shares), float(seen)]
    return box, found
