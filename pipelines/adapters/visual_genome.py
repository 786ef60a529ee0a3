"""Visual Genome: described regions, objects, attributes, relationships, questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures, Described, PictureRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, json_rows
from omnimill.pipelines.adapters.fields import first, keyed, objects
from omnimill.pipelines.adapters.picture_objects import (
    ObjectSettings,
    Thing,
    annotated_size,
    describe_objects,
    drawn,
    pixel_box,
)
from omnimill.pipelines.adapters.row_pictures import media_url
from omnimill.pipelines.decoders.text import text_value
from omnimill.schema import Annotation

Kind = Literal["regions", "objects", "attributes", "relationships", "questions"]
# The member of an entry that has its list, and the one that names its picture.
_MEMBERS = {
    "regions": ("regions", "id"),
    "objects": ("objects", "image_id"),
    "attributes": ("attributes", "image_id"),
    "relationships": ("relationships", "image_id"),
    "questions": ("qas", "id"),
}


class VisualGenomeSource(AnnotatedPictures):
    """Visual Genome (Krishna et al., 2016, arXiv 1602.07332) as its JSON files come, with VG_100K and VG_100K_2.

    annotations: which files are read besides ``image_data.json``, which says how large the pictures are.
    pictures: folder that has VG_100K and VG_100K_2, by default `path`.
    objects: what objects, regions and relationships become; a region with an attribute is described by it and the name.
    max_questions: of a picture.
    caption_phrases: the phrases of so many of the largest regions, largest first, make a ``caption`` of the picture,
        which it has none of as published; none if 0.
    """

    bytes_per_medium: ClassVar[int] = 20_000

    type: Literal["visual_genome"]
    annotations: tuple[Kind, ...] = ("regions", "objects", "attributes", "relationships", "questions")
    image_data: str = "image_data.json"
    region_descriptions: str = "region_descriptions.json"
    object_names: str = "objects.json"
    attributes: str = "attributes.json"
    relationships: str = "relationships.json"
    question_answers: str = "question_answers.json"
    objects: ObjectSettings = ObjectSettings()
    max_questions: int = Field(16, ge=0)
    caption_phrases: int = Field(0, ge=0)

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        names = {"regions": self.region_descriptions, "objects": self.object_names, "attributes": self.attributes}
        names |= {"relationships": self.relationships, "questions": self.question_answers}
        wanted = [("image", self.image_data), *((kind, names[kind]) for kind in self.annotations)]
        return [(kind, url) for kind, name in wanted for url in annotation_paths(self.path, [name])]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:
        member, field = _MEMBERS.get(kind, (None, "image_id"))
        for _, _, value in json_rows(uri, ""):
            row = keyed(value, field, kind)
            # What an older file calls "id" is "image_id" in a newer one.
            if isinstance(row.value, BadRecord) and isinstance(value, dict):
                row = keyed(value, "image_id" if field == "id" else "id", kind)
            yield row if member is None or row.key is None else row._replace(value=value.get(member))

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        url = text_value(first(said, "image").get("url"), "url")
        return [media_url(self.folder(), "/".join(url.rsplit("/", 2)[-2:]))]

    def described(self, record: PictureRecord) -> Described:
        size = annotated_size(record.image, first(record.said, "image"))
        told = {kind: [one for value in record.said.get(kind, ()) for one in objects(value, kind)] for kind in _MEMBERS}
        limits, key, found = self.objects, record.key, Described()
        for qa in drawn(told["questions"], self.max_questions, "questions", key):
            item = found.item()
            found.say("question", text_value(qa.get("question"), "question"), item)
            found.say("answer", text_value(qa.get("answer"), "answer"), item)
        things = [Thing(name, box) for one in told["objects"] if (name := _name(one)) and (box := _box(one, size))]
        describe_objects(found, things, limits, key)
        phrases = [(box, one.get("phrase")) for one in told["regions"] if (box := _box(one, size, "width", "height"))]
        if caption := _caption(phrases, self.caption_phrases):
            found.say("caption", caption)
        for box, phrase in drawn(phrases, limits.regions, "phrases", key):
            _describe(found, box, text_value(phrase, "phrase"))
        kinds = [
            (box, f"{', '.join(map(str, one['attributes']))} {_name(one)}")
            for one in told["attributes"]
            if one.get("attributes") and (box := _box(one, size))
        ]
        for box, phrase in drawn(kinds, limits.regions, "attributes", key):
            _describe(found, box, phrase)
        for relation in drawn(told["relationships"], limits.relations, "relations", key):
            _relate(found, relation, size)
        return found


def _caption(phrases: Sequence[tuple[list[float], Any]], most: int) -> str:
    """What the largest regions show, each phrase once; of equal size the first comes first."""
    largest = sorted(phrases, key=lambda one: -(one[0][2] - one[0][0]) * (one[0][3] - one[0][1]))
    told = dict.fromkeys(text_value(phrase, "phrase").strip().rstrip(".") for _, phrase in largest)
    return "; ".join(phrase for phrase in list(told)[:most] if phrase)


def _describe(found: Described, box: list[float], phrase: str) -> None:
    item = found.item()
    found.annotations.append(Annotation(kind="region", image=0, item=item, box=box))
    found.say("phrase", phrase, item)


def _relate(found: Described, relation: Mapping[str, Any], size: tuple[int, int]) -> None:
    ends = []
    for role in ("subject", "object"):
        end = relation.get(role)
        if not isinstance(end, dict):
            raise BadRecord("wrong_type", f"{role!r} is {type(end).__name__}, not an object")
        ends.append((role, _box(end, size), _name(end)))
    if all(box is not None for _, box, _ in ends):
        item = found.item()
        for role, box, label in ends:
            found.annotations.append(Annotation(kind="box", image=0, item=item, role=role, box=box, label=label))
        found.say("predicate", text_value(relation.get("predicate"), "predicate").lower(), item)


def _name(told: Mapping[str, Any]) -> str:
    """The name of an object: ``name``, or the first of ``names``."""
    names = told.get("names")
    value = names[0] if isinstance(names, list) and names else told.get("name", "")
    return text_value(value, "name").strip()


def _box(told: Mapping[str, Any], size: tuple[int, int], width: str = "w", height: str = "h") -> list[float] | None:
    return pixel_box([told.get(name) for name in ("x", "y", width, height)], *size)
