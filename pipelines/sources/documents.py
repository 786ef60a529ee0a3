"""What sources of documents with pictures share: which pictures count, what a missing one means, and the example."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from pydantic import Field

from omnimill.config import Config, digest_json
from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.outline import PictureRef
from omnimill.pipelines.sources.examples import make_example
from omnimill.pipelines.spool import Stored
from omnimill.schema import Example, Image, Meta, Provenance, Text, example_id

Lookup = Callable[[str], Stored | None]


class DocumentPictures(Config):
    """Which pictures of a document are kept; texts and order stay as they are without the others.

    min_side, max_aspect: in pixels, and as long side over short side; icons, bars and buttons fall below.
    max_pictures: those that come after so many are left out.
    min_pictures: a document with fewer is dropped as ``few_pictures``.
    missing: whether a document that lacks one of its pictures stays or is dropped as ``picture_missing``.
    alt_texts: whether alternative texts are kept, behind their picture and with the role ``alt_text``.
    images: how pictures are decoded, as in the other sources of pictures.
    """

    min_side: int = Field(32, ge=1)
    max_aspect: float | None = Field(None, ge=1)
    max_pictures: int = Field(64, ge=0)
    min_pictures: int = Field(0, ge=0)
    missing: Literal["keep", "drop"] = "keep"
    alt_texts: bool = True
    images: ImageSettings = ImageSettings()


def document_example(
    source: Source,
    unit: Unit,
    key: str,
    provenance: Provenance,
    items: Iterable[str | PictureRef],
    lookup: Lookup,
    settings: DocumentPictures,
    meta: Meta,
) -> Sequence[Example]:
    """The example of a document: its texts with the role ``body``, each with the picture that it follows.

    Notes in `meta.scores` how many pictures the document had: ``pictures``, of which ``pictures_missing`` were not
    found and ``pictures_refused`` found but damaged, too small, too long or too many.

    Raises:
        RecordDropped: ``no_text``, ``few_pictures``, ``picture_missing``.
    """
    texts: list[Text] = []
    images: list[Image] = []
    counts = {"pictures": 0, "pictures_missing": 0, "pictures_refused": 0}
    for item in items:
        last = len(images) - 1 if images else None
        if isinstance(item, str):
            if item.strip():
                texts.append(Text(role="body", text=item.strip(), image=last))
            continue
        counts["pictures"] += 1
        found = next((stored for stored in map(lookup, item.candidates) if stored is not None), None)
        if found is None:
            counts["pictures_missing"] += 1
            continue
        image = _accepted(found, settings) if len(images) < settings.max_pictures else None
        if image is None:
            counts["pictures_refused"] += 1
            continue
        images.append(image)
        if settings.alt_texts and item.alt:
            texts.append(Text(role="alt_text", text=item.alt, image=len(images) - 1))
    if not any(text.role == "body" for text in texts):
        raise RecordDropped("no_text")
    if settings.missing == "drop" and counts["pictures_missing"]:
        raise RecordDropped("picture_missing")
    if len(images) < settings.min_pictures:
        raise RecordDropped("few_pictures")
    meta.scores |= {name: float(count) for name, count in counts.items()}
    example = make_example(source, unit, key, provenance, text=texts, images=images, meta=meta)
    # Pictures may come and go while the document stays the same.
    content = digest_json([example.id, [image.digest for image in images]])
    example.id = example_id(source.name, key, content)
    return [example]


def _accepted(found: Stored, settings: DocumentPictures) -> Image | None:
    try:
        image = decode_image(found.data, settings.images, found.uri)
    except (BadRecord, RecordDropped):
        return None
    short, long = sorted((image.width, image.height))
    if short < settings.min_side or (settings.max_aspect is not None and long > settings.max_aspect * short):
        return None
    return image
