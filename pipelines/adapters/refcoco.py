"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that single out an object of a picture of COCO."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.pipelines import files
from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures, Described, PictureRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, json_rows
from omnimill.pipelines.adapters.coco import category_names, coco_thing
from omnimill.pipelines.adapters.fields import first, keyed, objects
from omnimill.pipelines.adapters.picture_objects import add_mask, annotated_size, drawn
from omnimill.pipelines.adapters.row_pictures import media_url
from omnimill.pipelines.decoders.plain_pickle import read_plain_pickle
from omnimill.pipelines.decoders.text import text_value
from omnimill.schema import Annotation

_LISTS = {"images": ("id", "image"), "annotations": ("image_id", "object")}
_MAX_REFS_BYTES = 1 << 30


class RefCocoSource(AnnotatedPictures):
    """Referring expressions (Kazemzadeh et al., 2014; Mao et al., 2015, arXiv 1511.02283; Yu et al., 2016, arXiv
    1608.00272): ``{dataset}/refs({splits_by}).p`` beside ``{dataset}/instances.json``.

    The published file is a pickle. It is read as a list of operations that build texts, numbers, lists and
    dictionaries; any other operation is refused, none is executed. A JSON file of the same content will do as well.

    An item is an object: its expressions, its box and, with `masks`, its mask.

    split: train, val, testA, testB or test.
    refs, instances: file names, with ``{dataset}`` and ``{splits_by}``.
    pictures: folder of COCO's train2014, by default ``{path}/train2014``.
    """

    bytes_per_medium: ClassVar[int] = 3000

    type: Literal["refcoco"]
    dataset: Literal["refcoco", "refcoco+", "refcocog", "refclef"] = "refcoco"
    splits_by: Literal["unc", "google", "umd", "berkeley"] = "unc"
    split: str = "train"
    refs: str = "{dataset}/refs({splits_by}).p"
    instances: str = "{dataset}/instances.json"
    masks: bool = True
    max_items: int = Field(16, ge=1)

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        fields = {"dataset": self.dataset, "splits_by": self.splits_by}
        wanted = {"refs": self.refs, "instances": self.instances}
        return [(kind, url) for kind, name in wanted.items() for url in annotation_paths(self.path, [name], **fields)]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:
        if kind == "refs":
            for value in _refs(uri):
                if not (isinstance(value, dict) and value.get("split") != self.split):
                    yield keyed(value, "image_id", "ref")
            return
        for name, _, value in json_rows(uri, "images", "annotations", "categories"):
            if name == "categories":
                yield Row(None, "category", value)
            else:
                yield keyed(value, *_LISTS[name])

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        if "ref" not in said:
            raise RecordDropped("other_split")
        return [media_url(self.folder("train2014"), text_value(first(said, "image").get("file_name"), "file_name"))]

    def described(self, record: PictureRecord) -> Described:
        size = annotated_size(record.image, first(record.said, "image"))
        names = category_names(record.common.get("category", ()))
        things = {str(told.get("id")): told for told in record.said.get("object", ())}
        found = Described()
        for ref in drawn(record.said["ref"], self.max_items, "refs", record.key):
            told = things.get(str(ref.get("ann_id")))
            if told is None:
                raise BadRecord("missing_field", f"expressions for object {ref.get('ann_id')!r}, which is not there")
            thing, item = coco_thing(told, names, size), found.item()
            if thing.box is None:
                continue
            for sentence in objects(ref.get("sentences"), "sentences"):
                found.say("expression", text_value(sentence.get("sent") or sentence.get("raw"), "sent"), item)
            found.annotations.append(Annotation(kind="box", image=0, item=item, box=thing.box))
            if self.masks:
                add_mask(found, thing.mask, item=item)
        return found


def _refs(uri: str) -> Iterator[Any]:
    if uri.endswith(".json"):
        yield from (value for _, _, value in json_rows(uri, ""))
        return
    values = read_plain_pickle(files.read_file(uri, _MAX_REFS_BYTES))
    if not isinstance(values, list):
        raise BadRecord("wrong_type", f"{uri}: {type(values).__name__}, not a list")
    yield from values
