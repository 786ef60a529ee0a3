"""Pictures with a PNG of classes beside them, as ADE20K's scene parsing benchmark has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord, ConfigError
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.adapters.annotated_pictures import Described
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, csv_rows, text_lines
from omnimill.pipelines.adapters.fields import whole_number
from omnimill.pipelines.adapters.picture_objects import add_mask, annotated_size, drawn
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.class_pixels import class_numbers, class_pixels
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.schema import Example, Provenance

_ENDINGS = ("jpg", "jpeg", "png")


class ClassMasksSource(Source):
    """A class number per pixel in PNG files, with a table of names: ADEChallengeData2016 (Zhou et al., 2016, arXiv
    1608.05442) in its published layout.

    Every class in a picture is an item of ``classes`` and the mask of all its pixels. A record is a PNG of classes.

    path: folder of the dataset.
    masks: folder of PNG files with the stems of the pictures' names; ``{split}`` is `split`.
    names: table with header, by tabs, of columns `number_column` and `name_column`; of synonyms the first counts.
    scenes: lines of a picture's stem and its scene, which becomes ``label``; None for none.
    unlabelled: numbers of no class.
    pictures: by default ``{path}/images/{split}``.
    max_classes, min_share: so many classes of a picture, of at least that share of its pixels.
    """

    selection: ClassVar[tuple[str, ...]] = ("media_per_unit",)

    type: Literal["class_masks"]
    path: str
    pictures: str | None = None
    images: ImageSettings = ImageSettings()
    media_per_unit: int = Field(256, ge=1)
    split: str = "training"
    masks: str = "annotations/{split}"
    names: str = "objectInfo150.txt"
    number_column: str = "Idx"
    name_column: str = "Name"
    scenes: str | None = "sceneCategories.txt"
    unlabelled: tuple[int, ...] = (0,)
    max_classes: int = Field(8, ge=1)
    min_share: float = Field(0.001, ge=0, lt=1)

    def units(self) -> Iterator[Unit]:
        tables = annotation_paths(self.path, [self.names, *([self.scenes] if self.scenes else [])])
        for group in files.groups(files.find(self._masks_folder(), ("**/*.png",)), self.media_per_unit):
            yield Unit(source=self.name, files=(*tables, *group), options={"tables": len(tables)})

    def inputs(self, unit: Unit) -> list[InputRef]:
        pictures = [self._picture(uri) for uri in unit.files[int(unit.options["tables"]) :]]
        both = unit.model_copy(update={"files": (*unit.files, *filter(None, pictures))})
        return super().inputs(both)

    def read(self, unit: Unit) -> Iterator[Record]:
        count = int(unit.options["tables"])
        names = self._class_names(unit.files[0])
        scenes = dict(_scenes(unit.files[1])) if count > 1 else {}
        for uri in unit.files[count:]:
            key = self._stem(uri)
            try:
                picture = self._picture(uri)
                if picture is None:
                    raise BadRecord("missing_file", f"no picture {key}.jpg")
                masks, shown = (files.read_file(url, self.images.max_bytes) for url in (uri, picture))
            except BadRecord as verdict:
                yield Record(key, Provenance(uri=uri, digest=storage.digest_file(uri)), refusal(verdict))
                continue
            provenance = Provenance(
                uri=picture, digest=blake3(blake3(shown).digest() + blake3(masks).digest()).hexdigest()
            )
            make = partial(
                self._example, unit, key, provenance, shown, masks, names, scenes.get(key.rsplit("/", 1)[-1])
            )
            yield Record(key, provenance, make)

    def _example(
        self,
        unit: Unit,
        key: str,
        provenance: Provenance,
        shown: bytes,
        masks: bytes,
        names: Mapping[int, str],
        scene: str | None,
    ) -> Sequence[Example]:
        image = decode_image(shown, self.images, provenance.uri)
        numbers = class_numbers(masks)
        annotated_size(image, {"height": numbers.shape[0], "width": numbers.shape[1]})
        found = Described()
        found.say("label", scene or "")
        present, counts = np.unique(numbers, return_counts=True)
        least = self.min_share * numbers.size
        classes = [
            int(number)
            for number, count in zip(present, counts, strict=True)
            if count >= least and number not in self.unlabelled
        ]
        for number in drawn(classes, self.max_classes, "classes", key):
            if number not in names:
                raise BadRecord("category_unknown", f"class {number} has no name in {self.names}")
            item = found.item()
            found.say("classes", names[number], item)
            add_mask(found, partial(class_pixels, numbers, number), item=item)
        columns = {"text": found.text, "annotations": found.annotations}
        return [make_example(self, unit, key, provenance, images=[image], **columns)]

    def _class_names(self, uri: str) -> dict[int, str]:
        names: dict[int, str] = {}
        for _, row in csv_rows(uri, "\t"):
            if isinstance(row, BadRecord):
                raise row
            if self.number_column not in row or self.name_column not in row:
                raise ConfigError(
                    f"{uri}: no columns {self.number_column} and {self.name_column}, it has {', '.join(row)}"
                )
            names[whole_number(row[self.number_column], self.number_column)] = (
                row[self.name_column].split(",")[0].strip()
            )
        return names

    def _masks_folder(self) -> str:
        return storage.join(self.path, self.masks.format(split=self.split))

    def _stem(self, uri: str) -> str:
        return files.relative(uri, self._masks_folder()).rsplit(".", 1)[0]

    def _picture(self, uri: str) -> str | None:
        folder = self.pictures or storage.join(self.path, "images", self.split)
        candidates = (storage.join(folder, f"{self._stem(uri)}.{ending}") for ending in _ENDINGS)
        return next(filter(storage.exists, candidates), None)


def _scenes(uri: str) -> Iterator[tuple[str, str]]:
    for _, line in text_lines(uri):
        stem, _, scene = line.strip().partition(" ")
        yield stem, scene.replace("_", " ")
