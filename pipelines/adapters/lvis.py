"""LVIS: many classes of objects with masks, of which a picture says what it was searched for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from omnimill.errors import RecordDropped
from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures, Described, PictureRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, json_rows
from omnimill.pipelines.adapters.coco import category_names, coco_thing
from omnimill.pipelines.adapters.fields import first, keyed, sequence
from omnimill.pipelines.adapters.picture_objects import (
    ObjectSettings,
    add_mask,
    annotated_size,
    describe_objects,
    drawn,
)
from omnimill.pipelines.adapters.row_pictures import media_url
from omnimill.pipelines.decoders.text import text_value


class LvisSource(AnnotatedPictures):
    """LVIS v1 (Gupta et al., 2019, arXiv 1908.03195): ``lvis_v1_train.json``, pictures of COCO 2017.

    A picture was searched for some classes only: those annotated and those verified to be absent. Classes whose objects
    are not all annotated (``not_exhaustive_category_ids``) give regions and their masks, but no boxes of all objects
    and no mask of the class.

    split: train or val. file: ``{split}`` in it is `split`.
    pictures: folder that has train2017 and val2017, by default `path`.
    absent_classes: so many of the classes that are verified to be absent become ``classes`` with an empty mask.
    """

    bytes_per_medium: ClassVar[int] = 11_000

    type: Literal["lvis"]
    split: str = "train"
    file: str = "lvis_v1_{split}.json"
    objects: ObjectSettings = ObjectSettings(boxes=0)
    absent_classes: int = Field(1, ge=0)

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        return [("objects", url) for url in annotation_paths(self.path, [self.file], split=self.split)]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:  # noqa: ARG002
        for name, _, value in json_rows(uri, "images", "annotations", "categories"):
            if name == "categories":
                yield Row(None, "category", value)
            else:
                yield keyed(value, "id", "image") if name == "images" else keyed(value, "image_id", "object")

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        url = text_value(first(said, "image").get("coco_url"), "coco_url")
        if "object" not in said:
            raise RecordDropped("no_annotations")
        return [media_url(self.folder(), "/".join(url.rsplit("/", 2)[-2:]))]

    def described(self, record: PictureRecord) -> Described:
        image = first(record.said, "image")
        size = annotated_size(record.image, image)
        names = category_names(record.common.get("category", ()))
        partial_ids = sequence(image.get("not_exhaustive_category_ids", []), "not_exhaustive_category_ids")
        absent_ids = sequence(image.get("neg_category_ids", []), "neg_category_ids")
        things = [
            replace(coco_thing(told, names, size), complete=told.get("category_id") not in partial_ids)
            for told in record.said["object"]
        ]
        found = Described()
        describe_objects(found, things, self.objects, record.key)
        absent = [names[number] for number in absent_ids if type(number) is int and number in names]
        for label in drawn(absent, self.absent_classes, "absent", record.key):
            item = found.item()
            found.say("classes", label, item)
            add_mask(found, lambda: np.zeros(size, np.bool_), item=item)
        return found
