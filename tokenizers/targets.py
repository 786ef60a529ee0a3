"""Target pictures of an example on their canvases: what it asks for beside the pictures that it shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omnimill.errors import BadRecord
from omnimill.schema import Example, Target
from omnimill.tokenizers import image, media
from omnimill.tokenizers.annotations import placed
from omnimill.tokenizers.dense import render_mask
from omnimill.tokenizers.image import BoolArray, ByteArray
from omnimill.tokenizers.map_files import SHAPES, render_map
from omnimill.tokenizers.segment import only_picture, picture
from omnimill.tokens import SEGMENTATION, ImageLayout

# The kind of target that is a picture of its own, whatever the pictures of its example are.
PICTURE = "picture"


@dataclass(frozen=True)
class TargetPicture:
    """role, image, item: as in a token row. canvas: uint8 [target_size, target_size, 3], what is to be encoded.

    height, width: of the part in its middle that is no padding, in pixels. known: bool [codes], which codes stand for
    what is known; None: all.
    """

    role: str
    image: int | None
    item: int | None
    canvas: ByteArray
    height: int
    width: int
    known: BoolArray | None = None


def target_pictures(example: Example, layout: ImageLayout) -> Iterator[TargetPicture]:
    """The masks of an example's annotations, then its targets, each in order.

    Raises:
        BadRecord: ``target_kind_unknown``; a file that cannot be decoded or is not of its picture's shape, a picture
            that is not there, and as :func:`omnimill.tokenizers.annotations.placed`.
    """
    for one in placed(example):
        mask = one.annotation.mask
        if mask is not None and one.image is not None:
            shown = picture(example, one.image)
            canvas = render_mask(mask, shown.height, shown.width, layout)
            sides = image.scaled_size(shown.height, shown.width, layout.target_size)
            yield TargetPicture(SEGMENTATION, one.image, one.item, canvas, *sides)
    for target in example.targets:
        yield _target(example, target, layout)


def _target(example: Example, target: Target, layout: ImageLayout) -> TargetPicture:
    role, size = target.role or target.kind, layout.target_size
    if target.kind == PICTURE:
        if target.image is not None:
            picture(example, target.image)
        rgb = image.decode_rgb(target.data)
        sides = image.scaled_size(rgb.shape[0], rgb.shape[1], size)
        return TargetPicture(role, target.image, target.item, media.target(rgb, layout).canvas, *sides)
    if target.kind not in SHAPES:
        raise BadRecord("target_kind_unknown", f"found {target.kind!r}; allowed: {', '.join((PICTURE, *SHAPES))}")
    index = only_picture(example, target.image, f"{target.kind}")
    shown = example.images[index]
    canvas, known = render_map(target, shown.height, shown.width, layout)
    sides = image.scaled_size(shown.height, shown.width, size)
    covered = image.covered_patches(*sides, size, layout.code_stride)
    return TargetPicture(role, index, target.item, canvas, *sides, known | ~covered)
