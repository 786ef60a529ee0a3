"""Base of sources of annotated pictures."""

from __future__ import annotations

from omnimill.pipelines.adapters.annotated_media import AnnotatedMedia
from omnimill.pipelines.decoders.images import ImageSettings


class AnnotatedPictures(AnnotatedMedia):
    """Base of sources whose annotation files name pictures.

    pictures: folder of the pictures, where they do not lie below `path` at the place that the format gives them.
    images: which pictures are accepted.
    """

    pictures: str | None = None
    images: ImageSettings = ImageSettings()
