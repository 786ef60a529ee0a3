"""Boxes in space as Objectron publishes them, its sequences exported as JSON."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from blake3 import blake3
from pydantic import Field

from omnimill.config import canonical_json
from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.adapters.cuboid_boxes import Matrix, clipped, cuboid, numbers, pinhole
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.numbers import is_finite_number
from omnimill.pipelines.decoders.text import parse_json, text_value
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.schema import Annotation, Example, Image, Provenance

# From Objectron's camera (x along the picture's downward side, y to its right, z towards the viewer) to the picture's.
_UPRIGHT: Matrix = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
_CORNERS = 9


class ObjectronSource(Source):
    """Sequences (the ``Sequence`` message as JSON) with frames as pictures: cuboids as of ``omni3d``.

    A frame is a record; one without any cuboid before the camera is dropped as ``no_annotations``. The phone's camera
    lies on its side: its x is the picture's downward axis, its y points to the right, and it looks along -z (as
    Objectron's own projection of points shows). Here the camera's axes are the picture's. Names of fields may be
    ``snake_case`` or ``camelCase``, as protobuf writes them.

    annotations: JSON files below `path`. frames: where the pictures lie; ``{folder}`` is the folder of the JSON file,
        ``{stem}`` its name, ``{frame}`` the frame's number.
    every: every so-manieth annotated frame is read.
    """

    selection: ClassVar[tuple[str, ...]] = ("annotations", "exclude")

    type: Literal["objectron"]
    path: str
    annotations: tuple[str, ...] = ("**/annotation.json",)
    exclude: tuple[str, ...] = ()
    frames: str = "{folder}/frames/{frame}.jpg"
    every: int = Field(1, ge=1)
    max_bytes: int = Field(256 << 20, ge=1)
    images: ImageSettings = ImageSettings()

    def units(self) -> Iterator[Unit]:
        """A unit is a sequence."""
        for url in files.find(self.path, self.annotations, self.exclude):
            yield Unit(source=self.name, files=(url,))

    def inputs(self, unit: Unit) -> list[InputRef]:
        """The sequence, and the pictures of its frames that are there."""
        refs = super().inputs(unit)
        try:
            urls = [self._picture(unit.files[0], frame) for frame in self._frames(_sequence(unit.files[0], self))]
        except BadRecord:
            return refs
        there = [url for url in dict.fromkeys(urls) if storage.exists(url)]
        for url, digest in zip(there, storage.digest_files(there), strict=True):
            refs.append(InputRef(uri=url, digest=digest, bytes=int(storage.stat(url)["bytes"])))
        return refs

    def read(self, unit: Unit) -> Iterator[Record]:
        uri = unit.files[0]
        sequence = _sequence(uri, self)
        objects = {_number(one, "id"): one for one in _objects(sequence, "objects")}
        for frame in self._frames(sequence):
            url = self._picture(uri, frame)
            key = f"{files.relative(uri, self.path)}:{_number(frame, 'frame_id')}"
            line = canonical_json([frame, [objects[name] for name in sorted(objects)]])
            provenance = Provenance(uri=url, digest=blake3(line).hexdigest())
            if not storage.exists(url):
                yield Record(key, provenance, refusal(BadRecord("missing_file", f"no file {url}")))
                continue
            provenance.digest = blake3(line + storage.digest_file(url).encode()).hexdigest()
            yield Record(key, provenance, partial(self._decode, unit, key, provenance, frame, objects))

    def _frames(self, sequence: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        return _objects(sequence, "frame_annotations")[:: self.every]

    def _picture(self, url: str, frame: Mapping[str, Any]) -> str:
        folder, name = posixpath.split(url)
        return self.frames.format(folder=folder, stem=name.removesuffix(".json"), frame=_number(frame, "frame_id"))

    def _decode(
        self,
        unit: Unit,
        key: str,
        provenance: Provenance,
        frame: Mapping[str, Any],
        objects: Mapping[int, Mapping[str, Any]],
    ) -> Sequence[Example]:
        data = files.read_file(provenance.uri, self.images.max_bytes)
        image = decode_image(data, self.images, provenance.uri)
        camera = _field(frame, "camera")
        if not isinstance(camera, dict):
            raise BadRecord("missing_field", "the frame has no 'camera'")
        made = (_cuboid(one, objects, camera, image) for one in _objects(frame, "annotations"))
        annotations = [one for one in made if one is not None]
        if not annotations:
            raise RecordDropped("no_annotations")
        return [make_example(self, unit, key, provenance, images=[image], annotations=annotations)]


def _cuboid(
    told: Mapping[str, Any], objects: Mapping[int, Mapping[str, Any]], camera: Mapping[str, Any], image: Image
) -> Annotation | None:
    """The cuboid of an object in a frame; None when it is behind the camera or outside of the picture."""
    said = objects.get(_number(told, "object_id"))
    if said is None:
        raise BadRecord("missing_field", f"no object {_number(told, 'object_id')} in the sequence")
    view = numbers(_field(camera, "view_matrix"), "view_matrix", 16).reshape(4, 4)
    projection = numbers(_field(camera, "projection_matrix"), "projection_matrix", 16).reshape(4, 4)
    turn = _UPRIGHT @ view[:3, :3]
    centre = turn @ numbers(said.get("translation"), "translation", 3) + _UPRIGHT @ view[:3, 3]
    box = _projected(told)
    if centre[2] <= 0 or box is None:
        return None
    seen = pinhole(
        projection[1, 1] * image.width / 2,
        projection[0, 0] * image.height / 2,
        (1 - projection[1, 2]) * image.width / 2,
        (1 - projection[0, 2]) * image.height / 2,
    )
    rotation = turn @ numbers(said.get("rotation"), "rotation", 9).reshape(3, 3)
    size = numbers(said.get("scale"), "scale", 3)[
        ::-1
    ]  # along x, y, z; Omni3D's width lies along z, its length along x
    return cuboid(text_value(said.get("category"), "category"), box, centre, size, rotation, seen)


def _projected(told: Mapping[str, Any]) -> list[float] | None:
    """The box around the projected centre and corners, in shares of the picture."""
    points = [_field(one, "point_2d") for one in _objects(told, "keypoints")]
    if len(points) != _CORNERS or not all(isinstance(point, dict) for point in points):
        raise BadRecord("cuboid_malformed", f"{len(points)} keypoints; a box has its centre and eight corners")
    sides = [[point.get(axis, 0.0) for point in points] for axis in ("y", "x")]
    if not all(is_finite_number(value) for side in sides for value in side):
        raise BadRecord("cuboid_malformed", "keypoints that are no numbers")
    return clipped([min(sides[0]), min(sides[1]), max(sides[0]), max(sides[1])])


def _sequence(url: str, source: ObjectronSource) -> Mapping[str, Any]:
    sequence = parse_json(files.read_file(url, source.max_bytes))
    if not isinstance(sequence, dict):
        raise BadRecord("wrong_type", f"a sequence is {type(sequence).__name__}, not an object")
    return sequence


def _objects(value: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = _field(value, name) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadRecord("wrong_type", f"{name!r} is no list of objects")
    return found


def _number(value: Mapping[str, Any], name: str) -> int:
    """A whole number; protobuf does not write one that is 0."""
    found = _field(value, name)
    if found is not None and type(found) is not int:
        raise BadRecord("wrong_type", f"{name!r} is {found!r}"[:200] + ", not a whole number")
    return found or 0


def _field(value: Mapping[str, Any], name: str) -> Any:
    """A field of a message, by either of the names that protobuf's JSON has for it."""
    head, *rest = name.split("_")
    return value.get(name, value.get(head + "".join(part.capitalize() for part in rest)))
