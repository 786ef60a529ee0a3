"""Filters of pictures against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3
from pydantic import ValidationError

from omnimill.pipelines.decoders.pixels import encode, encoded_format, load_rgb
from omnimill.pipelines.operators.image import ImageAspect, ImageBlur, ImageResize, ImageSize, ImageUniform
from omnimill.schema import Example, Image, Provenance


def image(rgb: np.ndarray) -> Image:
    data = encode(rgb.astype(np.uint8))
    height, width = rgb.shape[:2]
    form = encoded_format(width, height)
    return Image(data=data, format=form, width=width, height=height, digest=blake3(data).hexdigest())


def example(*images: Image) -> Example:
    return Example(id="i", source="s", unit="u", key="k", provenance=Provenance(uri="", digest=""), images=list(images))


def flat(width: int, height: int, shade: int = 128) -> Image:
    return image(np.full((height, width, 3), shade))


def checks(size: int, square: int) -> np.ndarray:
    """A chessboard of 0 and 200 with squares of `square` pixels."""
    y, x = np.mgrid[0:size, 0:size] // square
    return np.repeat((((x + y) % 2) * 200)[:, :, None], 3, 2)


def test_size_bounds_hold_for_every_picture() -> None:
    operator = ImageSize(op="image_size", min_side=32, max_side=100, min_pixels=40 * 40)
    cases = {
        (40, 40): None,
        (31, 99): "image_too_small",
        (32, 49): "image_too_small",
        (32, 50): None,
        (101, 50): "image_too_large",
    }
    assert operator([example(flat(*size)) for size in cases]) == list(cases.values())
    assert operator([example(flat(40, 40), flat(20, 90)), example()]) == ["image_too_small", None]


def test_aspect_is_long_over_short() -> None:
    operator = ImageAspect(op="image_aspect", max_ratio=3)
    assert operator([example(flat(90, 30)), example(flat(91, 30)), example(flat(30, 91)), example()]) == [
        None,
        "image_aspect",
        "image_aspect",
        None,
    ]


def test_uniform_is_measured_on_grey_levels() -> None:
    # Half black, half at 200: the standard deviation is 100.
    halves = np.zeros((64, 64, 3))
    halves[:, 32:] = 200
    examples = [example(flat(64, 64)), example(image(halves)), example(flat(64, 64), image(halves)), example()]
    assert ImageUniform(op="image_uniform", min_std=99)(examples) == ["image_uniform", None, None, None]
    assert [one.meta.scores.get("image_std") for one in examples] == pytest.approx([0, 100, 100, None])
    assert ImageUniform(op="image_uniform", min_std=101)(examples)[1] == "image_uniform"


def test_blur_is_the_variance_of_the_laplacian() -> None:
    # Single pixels of 200 and 0 in turn: the Laplacian is +-800 inside, so its variance is 640,000 there. OpenCV
    # mirrors at the border without repeating it, so the border has the same value.
    examples = [example(image(checks(64, 1))), example(flat(64, 64)), example()]
    assert ImageBlur(op="image_blur", min_variance=600_000)(examples) == [None, "image_blurred", None]
    assert examples[0].meta.scores["laplacian_variance"] == pytest.approx(640_000)
    assert examples[1].meta.scores["laplacian_variance"] == 0


def test_blur_does_not_depend_on_resolution() -> None:
    scores = []
    for size in (512, 2048):
        one = example(image(checks(size, size // 16)))
        ImageBlur(op="image_blur")([one])
        scores.append(one.meta.scores["laplacian_variance"])
    assert scores[1] == pytest.approx(scores[0], rel=0.2)


def test_resize_shrinks_and_never_enlarges() -> None:
    small, wide = flat(50, 40), flat(400, 200, 90)
    examples = [example(small, wide), example()]
    assert ImageResize(op="image_resize", short_side=100)(examples) == [None, None]
    assert examples[0].images[0] is small
    resized = examples[0].images[1]
    assert (resized.width, resized.height) == (200, 100)
    assert load_rgb(resized).shape == (100, 200, 3)
    assert abs(int(load_rgb(resized).mean()) - 90) <= 1
    assert resized.digest == wide.digest
    both = [example(wide)]
    ImageResize(op="image_resize", short_side=100, long_side=80)(both)
    assert (both[0].images[0].width, both[0].images[0].height) == (80, 40)


def test_resize_needs_a_bound() -> None:
    with pytest.raises(ValidationError, match="one of short_side and long_side"):
        ImageResize(op="image_resize")
