"""COCO-Text: words in pictures of COCO, with their boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from omnimill.errors import RecordDropped
from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures, Described, PictureRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, json_rows
from omnimill.pipelines.adapters.fields import first, keyed
from omnimill.pipelines.adapters.picture_objects import (
    ObjectSettings,
    Thing,
    annotated_size,
    describe_objects,
    pixel_box,
)
from omnimill.pipelines.adapters.row_pictures import media_url
from omnimill.pipelines.decoders.text import text_value

_LISTS = {"imgs": ("id", "image"), "anns": ("image_id", "word")}


class CocoTextSource(AnnotatedPictures):
    """COCO-Text v2 (Veit et al., 2016, arXiv 1601.07140): ``cocotext.v2.json``, pictures of COCO 2014.

    Legible words become labelled boxes. Each of the picture's words is an item of its ``label`` and boxes too.

    words: the annotation file. pictures: folder of train2014; by default ``{path}/train2014``.
    split: train, val or test; None for all.
    max_words: boxes of the list of all words, the largest ones; and items.
    """

    bytes_per_medium: ClassVar[int] = 1000

    type: Literal["coco_text"]
    words: str = "cocotext.v2.json"
    split: Literal["train", "val", "test"] | None = "train"
    max_words: int = Field(64, ge=1)

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        return [("words", url) for url in annotation_paths(self.path, [self.words])]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:  # noqa: ARG002
        for name, _, value in json_rows(uri, *_LISTS):
            yield keyed(value, *_LISTS[name])

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        image = first(said, "image")
        if self.split not in (None, image.get("set")):
            raise RecordDropped("other_split")
        if "word" not in said:
            raise RecordDropped("no_annotations")
        return [media_url(self.folder("train2014"), text_value(image.get("file_name"), "file_name"))]

    def described(self, record: PictureRecord) -> Described:
        size = annotated_size(record.image, first(record.said, "image"))
        words = [
            Thing(text_value(told.get("utf8_string"), "utf8_string").strip(), pixel_box(told.get("bbox"), *size))
            for told in record.said["word"]
            if told.get("legibility") == "legible"
        ]
        found = Described()
        limits = ObjectSettings(boxes=self.max_words, classes=self.max_words, regions=0)
        describe_objects(found, [word for word in words if word.label], limits, record.key)
        return found
