"""Target pictures of an example on their canvases: what it asks for beside the pictures that it shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omnimill.schema import Example
from omnimill.tokenizers.annotations import placed
from omnimill.tokenizers.dense import render_mask
from omnimill.tokenizers.image import ByteArray, scaled_size
from omnimill.tokenizers.segment import picture
from omnimill.tokens import SEGMENTATION, ImageLayout


@dataclass(frozen=True)
class TargetPicture:
    """role, image, item: as in a token row. canvas: uint8 [target_size, target_size, 3], what is to be encoded.

    height, width: of the part in its middle that is no padding, in pixels.
    """

    role: str
    image: int | None
    item: int | None
    canvas: ByteArray
    height: int
    width: int


def target_pictures(example: Example, layout: ImageLayout) -> Iterator[TargetPicture]:
    """The masks of an example's annotations.

    Raises:
        BadRecord: a mask that cannot be decoded or is not of its picture's shape, and as
            :func:`omnimill.tokenizers.annotations.placed`.
    """
    for one in placed(example):
        mask = one.annotation.mask
        if mask is not None and one.image is not None:
            shown = picture(example, one.image)
            canvas = render_mask(mask, shown.height, shown.width, layout)
            height, width = scaled_size(shown.height, shown.width, layout.target_size)
            yield TargetPicture(SEGMENTATION, one.image, one.item, canvas, height, width)
