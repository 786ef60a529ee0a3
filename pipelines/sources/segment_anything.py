"""Pictures with masks as Segment Anything publishes them: ``sa_*.jpg`` beside ``sa_*.json``, in folders or in tars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, ClassVar, Literal

from blake3 import blake3
from pydantic import Field

from omnimill import rng
from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.masks import decode_rle, mask_png
from omnimill.pipelines.decoders.numbers import is_finite_number
from omnimill.pipelines.decoders.tars import Member, read_members
from omnimill.pipelines.decoders.text import parse_json
from omnimill.pipelines.sources.examples import make_example
from omnimill.pipelines.sources.sidecars import SidecarSource
from omnimill.schema import Annotation, Example, Image, Provenance

_PICTURE, _MASKS = (".jpg", ".jpeg"), ".json"


class SegmentAnythingSource(SidecarSource):
    """Pictures and their masks: each mask is an annotation of kind ``region`` with its box and point prompts.

    A unit is `files_per_unit` pictures, or a tar, in which a picture and its JSON stand together. Masks are COCO
    run-length encodings; what their maker says of their quality goes into ``score`` (the predicted IoU).

    masks_per_example: of a picture with more, so many are drawn, the same ones every time.
    images: which pictures are accepted.
    max_json_bytes: of the masks of a picture. max_member_bytes: of a file in a tar.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "archives", "files_per_unit")

    type: Literal["segment_anything"]
    include: tuple[str, ...] = ("**/*.jpg",)
    archives: tuple[str, ...] = ("**/*.tar",)
    files_per_unit: int = Field(64, ge=1)
    masks_per_example: int = Field(32, ge=1)
    images: ImageSettings = ImageSettings()
    max_json_bytes: int = Field(32 << 20, gt=0)
    max_member_bytes: int = Field(64 << 20, gt=0)

    def units(self) -> Iterator[Unit]:
        for url in files.find(self.path, self.archives, self.exclude):
            if url.lower().endswith(".tar"):
                yield Unit(source=self.name, files=(url,), options={"tar": True})
        if not self.path.lower().endswith(".tar"):
            yield from super().units()

    def templates(self) -> tuple[tuple[str, ...], ...]:
        return (("{stem}.json",),)

    def read_sidecar(self, url: str) -> dict[str, Any]:
        return {"masks": _masks(files.read_file(url, self.max_json_bytes))}

    def read(self, unit: Unit) -> Iterator[Record]:
        if "tar" not in unit.options:
            yield from super().read(unit)
            return
        uri = unit.files[0]
        name = files.relative(uri, self.path)
        for stem, group in groupby(read_members(uri, self.max_member_bytes), key=_stem):
            members = list(group)
            digest = blake3()
            for member in members:
                digest.update(f"{member.name}\n".encode())
                digest.update(member.data or b"")
            begin, end = members[0].offset, members[-1].end
            provenance = Provenance(uri=uri, digest=digest.hexdigest(), offset=begin, length=end - begin)
            key = f"{name}/{stem}"
            yield Record(key, provenance, partial(self._sample, unit, key, provenance, members))

    def decode(
        self, unit: Unit, url: str, key: str, provenance: Provenance, sidecars: dict[str, Any]
    ) -> Sequence[Example]:
        if "masks" not in sidecars:
            raise RecordDropped("no_masks")
        picture = files.read_file(url, self.images.max_bytes)
        return self._example(unit, key, provenance, picture, sidecars["masks"])

    def _sample(self, unit: Unit, key: str, provenance: Provenance, members: list[Member]) -> Sequence[Example]:
        for member in members:
            if member.fault is not None:
                raise BadRecord(member.fault.reason, f"{member.name}: {member.fault.message}")
        pictures = [member.data or b"" for member in members if member.name.lower().endswith(_PICTURE)]
        masks = [member.data or b"" for member in members if member.name.lower().endswith(_MASKS)]
        if len(members) > len(pictures) + len(masks):
            raise RecordDropped("unsupported_member")
        if (len(pictures), len(masks)) != (1, 1):
            found = ", ".join(member.name for member in members)
            raise BadRecord("sample_incomplete", f"one picture and one JSON should stand together, found {found}")
        return self._example(unit, key, provenance, pictures[0], _masks(masks[0]))

    def _example(
        self, unit: Unit, key: str, provenance: Provenance, picture: bytes, said: dict[str, Any]
    ) -> Sequence[Example]:
        image = decode_image(picture, self.images, provenance.uri)
        told = said["image"]
        if (told.get("height"), told.get("width")) != (image.height, image.width):
            message = (
                f"masks for {told.get('width')} x {told.get('height')}, a picture of {image.width} x {image.height}"
            )
            raise BadRecord("mask_size_mismatch", message)
        drawn = sorted(range(len(said["annotations"])), key=lambda i: rng.digest64("masks", provenance.digest, i))
        chosen = sorted(drawn[: self.masks_per_example])
        annotations = [_annotation(said["annotations"][index], image) for index in chosen]
        return [make_example(self, unit, key, provenance, images=[image], annotations=annotations)]


def _masks(data: bytes) -> dict[str, Any]:
    """The JSON of a picture; raises BadRecord."""
    said = parse_json(data)
    if not isinstance(said, dict) or not isinstance(said.get("image"), dict):
        raise BadRecord("mask_malformed", "no object with an 'image'")
    if not isinstance(said.get("annotations"), list):
        raise BadRecord("mask_malformed", "'annotations' are no list")
    return said


def _annotation(told: Any, image: Image) -> Annotation:
    if not isinstance(told, dict):
        raise BadRecord("mask_malformed", f"an annotation that is {type(told).__name__}")
    mask = decode_rle(told.get("segmentation"), image.height, image.width)
    left, top, width, height = _numbers(told.get("bbox"), "bbox", 4)
    prompts = told.get("point_coords", [])
    if not isinstance(prompts, list):
        raise BadRecord("mask_malformed", "'point_coords' are no list")
    points = [value for prompt in prompts for value in reversed(_numbers(prompt, "point_coords", 2))]
    score = told.get("predicted_iou")
    return Annotation(
        kind="region",
        image=0,
        box=_shares([top, left, top + height, left + width], image),
        points=_shares(points, image) or None,
        mask=mask_png(mask),
        score=float(score) if is_finite_number(score) else None,
    )


def _numbers(value: Any, name: str, count: int) -> list[float]:
    right = isinstance(value, list) and len(value) == count
    if not right or not all(map(is_finite_number, value)):
        raise BadRecord("mask_malformed", f"{name!r} is not {count} numbers")
    return [float(v) for v in value]


def _shares(places: Sequence[float], image: Image) -> list[float]:
    """Coordinates y, x, … in pixels as shares of the picture, cut off at its borders."""
    sides = (image.height, image.width)
    return [min(max(place / sides[index % 2], 0.0), 1.0) for index, place in enumerate(places)]


def _stem(member: Member) -> str:
    return member.name.removeprefix("./").rsplit(".", 1)[0]
