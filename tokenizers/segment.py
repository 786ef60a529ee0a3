"""What text segments of a token row are made of, and the pictures that they speak of."""

from __future__ import annotations

from dataclasses import dataclass

from omnimill.errors import BadRecord
from omnimill.schema import Example, Image
from omnimill.tokenizers.vocabulary import TextVocabulary


@dataclass(frozen=True)
class Segment:
    """A text segment of a token row: ids without EOS, and the picture, clip and item that it belongs to."""

    role: str
    ids: list[int]
    image: int | None = None
    audio: int | None = None
    item: int | None = None


def picture(example: Example, index: int) -> Image:
    """Raises BadRecord ``image_index_invalid`` when there is no such picture."""
    if not 0 <= index < len(example.images):
        raise BadRecord("image_index_invalid", f"picture {index} of {len(example.images)} is referred to")
    return example.images[index]


def only_picture(example: Example, index: int | None, what: str) -> int:
    """The picture that something belongs to; where there is one it need not be named.

    Raises:
        BadRecord: ``annotation_without_image``, ``image_index_invalid``.
    """
    if index is None and len(example.images) != 1:
        raise BadRecord("annotation_without_image", f"{what} of one of {len(example.images)} pictures, not said which")
    picture(example, index or 0)
    return index or 0


def picture_marker(example: Example, index: int, vocabulary: TextVocabulary) -> int:
    """The token that stands for a picture in a text: a history marker, or that of the current (last) picture.

    History markers count from the example's first picture, as training writes them where it reads all of them.

    Raises:
        BadRecord: ``image_index_invalid``; ``picture_without_marker`` when there are more pictures than markers.
    """
    picture(example, index)
    last, layout = len(example.images) - 1, vocabulary.layout
    if index == last and "image" in layout.inputs:
        return vocabulary.image_input
    if index == last or index >= layout.history:
        raise BadRecord(
            "picture_without_marker",
            f"picture {index + 1} of {last + 1}; the vocabulary has {layout.history} history markers and "
            f"{'one' if 'image' in layout.inputs else 'none'} for the current picture",
        )
    return vocabulary.image_history(index + 1)
