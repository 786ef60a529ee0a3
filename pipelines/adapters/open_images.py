"""Open Images: boxes, verified labels, masks, relationships and spoken descriptions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures, Described, PictureRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, csv_lines, csv_rows, json_lines
from omnimill.pipelines.adapters.fields import keyed
from omnimill.pipelines.adapters.picture_objects import ObjectSettings, Thing, describe_objects, drawn, edges
from omnimill.pipelines.adapters.row_pictures import media_url
from omnimill.pipelines.decoders.class_pixels import class_numbers
from omnimill.pipelines.decoders.masks import Mask
from omnimill.pipelines.decoders.text import text_value
from omnimill.schema import Annotation

# Columns of codes that have names.
_COLUMNS = {
    "labels": ["LabelName"],
    "boxes": ["LabelName"],
    "masks": ["LabelName"],
    "relationships": ["LabelName1", "LabelName2"],
}
Kind = Literal["labels", "boxes", "masks", "narratives", "relationships"]


class OpenImagesSource(AnnotatedPictures):
    """Open Images V7 (Kuznetsova et al., 2018, arXiv 1811.00982; Pont-Tuset et al., 2019, arXiv 1912.03098) as its CSV
    files come, all in one folder, with ``{ImageID}.jpg`` in a folder per split.

    Labels that people confirmed become ``label``. Boxes around groups (``IsGroupOf``) count for nothing, and their
    class has no list of all its boxes. A class has a mask of all its pixels where each of its boxes has a mask.
    Relationships with an attribute (``is``) become a region and its ``phrase``. Narratives become captions.

    annotations: which files are read; globs, several may fit. ``{split}`` in them is `split`. Labels are by default
        those of the pictures that have boxes, too; there is a file for all nine million.
    masks_folder: where the PNG files named by ``MaskPath`` lie.
    class_names, attribute_names: tables of code and name.
    pictures: by default ``{path}/{split}``.
    max_labels: of a picture.
    """

    bytes_per_medium: ClassVar[int] = 3000
    shown: ClassVar[int | None] = 1

    type: Literal["open_images"]
    split: str = "train"
    annotations: tuple[Kind, ...] = ("labels", "boxes", "masks", "narratives", "relationships")
    labels: tuple[str, ...] = ("*{split}-annotations-human-imagelabels-boxable.csv",)
    boxes: tuple[str, ...] = ("*{split}-annotations-bbox.csv",)
    masks: tuple[str, ...] = ("*{split}-annotations-object-segmentation.csv",)
    narratives: tuple[str, ...] = ("open_images_{split}*localized_narratives*.jsonl",)
    relationships: tuple[str, ...] = ("*{split}-annotations-vrd.csv",)
    masks_folder: str = "{split}-masks"
    class_names: tuple[str, ...] = ("*class-descriptions*.csv",)
    attribute_names: tuple[str, ...] = ("*attributes-description.csv",)
    objects: ObjectSettings = ObjectSettings()
    max_labels: int = Field(32, ge=0)

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        globs = {"labels": self.labels, "boxes": self.boxes, "masks": self.masks}
        globs |= {"narratives": self.narratives, "relationships": self.relationships}
        wanted: list[tuple[str, tuple[str, ...]]] = [(kind, globs[kind]) for kind in self.annotations]
        wanted.append(("names", self._name_files()))
        return [(kind, url) for kind, names in wanted for url in annotation_paths(self.path, names, split=self.split)]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:
        if kind == "names":
            return
        if kind == "narratives":
            for _, value in json_lines(uri):
                row = keyed(value, "image_id", kind)
                # Traces of the pointer are most of the file and not used.
                yield row if row.key is None else row._replace(value={"caption": value.get("caption")})
            return
        names = dict(row for url in annotation_paths(self.path, self._name_files()) for row in _names(url))
        for _, value in csv_rows(uri):
            yield keyed(_named(value, names, _COLUMNS[kind]), "ImageID", kind)

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        if not said:
            raise RecordDropped("no_annotations")
        masks = storage.join(self.path, self.masks_folder.format(split=self.split))
        beside = [media_url(masks, text_value(told.get("MaskPath"), "MaskPath")) for told in said.get("masks", ())]
        return [media_url(self.folder(self.split), f"{key}.jpg"), *beside]

    def described(self, record: PictureRecord) -> Described:
        found = Described()
        said = record.said
        for told in said.get("narratives", ()):
            found.say("caption", text_value(told.get("caption"), "caption"))
        confirmed = [told["LabelName"] for told in said.get("labels", ()) if told.get("Confidence") in ("1", "1.0")]
        for label in drawn(list(dict.fromkeys(confirmed)), self.max_labels, "labels", record.key):
            # An item of its own: together with the boxes of all objects it would ask for those of this class.
            found.say("label", label, found.item())
        boxes = said.get("boxes", ())
        groups = {told["LabelName"] for told in boxes if told.get("IsGroupOf") == "1"}
        things = [
            Thing(told["LabelName"], _box(told, "XMin", "YMin", "XMax", "YMax"), single=told.get("IsGroupOf") != "1")
            for told in boxes
        ]
        boxed = Counter(thing.label for thing in things)
        masked = Counter(told["LabelName"] for told in said.get("masks", ()))
        parts = [
            Thing(
                told["LabelName"],
                _box(told, "BoxXMin", "BoxYMin", "BoxXMax", "BoxYMax"),
                partial(_mask, record.files, told["MaskPath"]),
                complete=0 < boxed[told["LabelName"]] <= masked[told["LabelName"]] and told["LabelName"] not in groups,
            )
            for told in said.get("masks", ())
        ]
        describe_objects(found, things, self.objects, record.key)
        only_masks = dict.fromkeys(("boxes", "classes", "regions"), 0)
        describe_objects(found, parts, self.objects.model_copy(update=only_masks), record.key)
        for told in drawn(said.get("relationships", ()), self.objects.relations, "relations", record.key):
            _relate(found, told)
        return found

    def _name_files(self) -> tuple[str, ...]:
        return (*self.class_names, *(self.attribute_names if "relationships" in self.annotations else ()))


def _names(uri: str) -> Iterator[tuple[str, str]]:
    """Codes and names of a table of two columns, with or without a header."""
    return ((row[0], row[1]) for row in csv_lines(uri) if len(row) == 2 and row[0] != "LabelName")


def _named(value: Any, names: Mapping[str, str], codes: Sequence[str]) -> Any:
    """A row with names instead of codes, in small letters; raises BadRecord for a table without these columns."""
    if isinstance(value, BadRecord):
        return value
    if missing := [name for name in codes if name not in value]:
        raise BadRecord("missing_field", f"no column {', '.join(missing)}; there are {', '.join(value)}"[:300])
    return value | {name: names.get(value[name], value[name]).lower() for name in codes}


def _relate(found: Described, told: Mapping[str, str]) -> None:
    subject, other = (_box(told, *(f"{side}{n}" for side in ("XMin", "YMin", "XMax", "YMax"))) for n in (1, 2))
    if subject is None or other is None:
        return
    relation = text_value(told.get("RelationshipLabel"), "RelationshipLabel")
    item = found.item()
    if relation == "is":
        found.annotations.append(Annotation(kind="region", image=0, item=item, box=subject))
        found.say("phrase", f"{told['LabelName2']} {told['LabelName1']}", item)
        return
    for role, box, label in (("subject", subject, told["LabelName1"]), ("object", other, told["LabelName2"])):
        found.annotations.append(Annotation(kind="box", image=0, item=item, role=role, box=box, label=label))
    found.say("predicate", relation.replace("_", " "), item)


def _box(told: Mapping[str, str], *names: str) -> list[float] | None:
    """A box by the names of its left, upper, right and lower edge, in shares of the picture already."""
    try:
        left, top, right, bottom = (float(told[name]) for name in names)
    except (KeyError, ValueError):
        raise BadRecord("boxes_malformed", f"{', '.join(names)} are {[told.get(name) for name in names]}") from None
    return edges(left, top, right, bottom)


def _mask(beside: Mapping[str, bytes], name: str) -> Mask:
    """A mask of any size: white, or any number but 0, is inside."""
    data = next(data for url, data in beside.items() if url.endswith(name))
    return np.asarray(class_numbers(data) != 0, np.bool_)
