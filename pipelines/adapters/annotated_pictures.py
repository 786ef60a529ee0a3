"""Base of sources of annotated pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from blake3 import blake3

from omnimill.errors import RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.adapters.annotated_media import AnnotatedMedia
from omnimill.pipelines.adapters.annotation_index import Said
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.sources.examples import make_example
from omnimill.schema import Annotation, Example, Image, Meta, Provenance, Text


@dataclass
class Described:
    """What an example says of its pictures, and the next item that is free.

    incomplete: classes of which the list of all boxes lacks some objects.
    """

    text: list[Text] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    incomplete: set[str] = field(default_factory=set)
    items: int = 0

    def item(self) -> int:
        """A new item's number."""
        self.items += 1
        return self.items - 1

    def say(self, role: str, text: str, item: int | None = None, image: int | None = 0) -> None:
        """Add a text; one of blanks alone says nothing."""
        if text := text.strip():
            self.text.append(Text(role=role, text=text, item=item, image=image))


@dataclass(frozen=True)
class PictureRecord:
    """A record whose pictures are decoded. said, common: what the annotation files say of it and of all, by kind.

    files: further files that it needs (masks), by URL.
    """

    key: str
    images: Sequence[Image]
    said: Said
    common: Said
    files: Mapping[str, bytes]

    @property
    def image(self) -> Image:
        """The picture of a record that has one."""
        return self.images[0]


class AnnotatedPictures(AnnotatedMedia):
    """Base of sources whose annotation files name pictures.

    shown: how many of a record's media are pictures of the example; what follows are files that only describe them.
        None: all are.
    pictures: folder of the pictures, where they do not lie below `path` at the place that the format gives them.
    images: which pictures are accepted.
    """

    shown: ClassVar[int | None] = None

    pictures: str | None = None
    images: ImageSettings = ImageSettings()

    def described(self, record: PictureRecord) -> Described:
        """What is said of the pictures; raises BadRecord and RecordDropped."""
        raise NotImplementedError

    def folder(self, *default: str) -> str:
        """The folder of the pictures; `default`: its parts below `path`."""
        return self.pictures or storage.join(self.path, *filter(None, default))

    def media_root(self) -> str:
        return self.pictures or self.path

    def loaded(self, url: str) -> tuple[tuple[str, bytes], str]:
        """The URL and bytes of a picture, and their digest."""
        data = files.read_file(url, self.images.max_bytes)
        return (url, data), blake3(data).hexdigest()

    def example(
        self, unit: Unit, key: str, provenance: Provenance, media: Sequence[Any], said: Said, common: Said
    ) -> Sequence[Example]:
        pictures = [decode_image(data, self.images, url) for url, data in media[: self.shown]]
        found = self.described(PictureRecord(key, pictures, said, common, dict(media[len(pictures) :])))
        if not found.text and not found.annotations:
            raise RecordDropped("no_annotations")
        tags = {"incomplete": "; ".join(sorted(found.incomplete))} if found.incomplete else {}
        columns = {"text": found.text, "annotations": found.annotations, "meta": Meta(tags=tags)}
        return [make_example(self, unit, key, provenance, images=pictures, **columns)]
