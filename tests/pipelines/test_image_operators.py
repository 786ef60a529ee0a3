"""Filters of pictures against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from pydantic import ValidationError

from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.pixels import encode, encoded_format, load_rgb
from omnimill.pipelines.operators.image import ImageAspect, ImageBlur, ImageResize, ImageSize, ImageUniform
from omnimill.pipelines.operators.image_text import ImageTextOnly
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


def page(paper: int, ink: int, size: int = 18, seed: int = 0, lines: int = 30) -> np.ndarray:
    """A screenshot of made-up words in lines."""
    draw = np.random.default_rng(seed)
    picture = Pillow.new("L", (800, 600), paper)
    pen = ImageDraw.Draw(picture)
    for y in range(12, min(600 - 2 * size, 12 + lines * 2 * size), 2 * size):
        words = ("".join(draw.choice(list("abcdefghinorstu"), draw.integers(2, 9))) for _ in range(9))
        pen.text((20, y), " ".join(words), fill=ink, font=ImageFont.load_default(size))
    return np.repeat(np.asarray(picture)[:, :, None], 3, 2)


def scene_like(seed: int = 0) -> np.ndarray:
    """Coloured discs over one another, as a photograph has edges."""
    draw = np.random.default_rng(seed)
    picture = Pillow.new("RGB", (800, 600))
    pen = ImageDraw.Draw(picture)
    for _ in range(400):
        x, y, radius = draw.integers(0, 800), draw.integers(0, 600), 4 + 90 * draw.random() ** 3
        pen.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=tuple(int(c) for c in draw.integers(0, 255, 3))
        )
    return np.array(picture)


def test_pictures_of_writing_alone_are_told_from_others() -> None:
    slanted = page(240, 20) * np.linspace(1, 0.6, 800)[None, :, None]
    written = {"page": page(250, 10), "dark": page(20, 230, 24), "uneven light": slanted, "large": page(255, 60, 40)}
    captioned = scene_like()
    captioned[500:] = page(250, 10)[:100]
    others = {
        "scene": scene_like(),
        "captioned": captioned,
        "flat": np.full((600, 800, 3), 250),
        "checks": checks(512, 8),
    }
    operator = ImageTextOnly(op="image_text_only")
    for name, rgb in written.items():
        assert operator([example(image(rgb))]) == ["image_text_only"], name
    for name, rgb in others.items():
        one = example(image(rgb))
        assert operator([one, example()]) == [None, None], name
        assert one.meta.scores["image_text"] < 0.5, name
    # One picture that is none of writing keeps an example.
    assert operator([example(image(written["page"]), image(others["scene"]))]) == [None]


def test_without_a_bound_operators_measure_only() -> None:
    examples = [example(flat(300, 64)), example(image(page(250, 10))), example()]
    operators = (
        ImageSize(op="image_size"),
        ImageAspect(op="image_aspect", max_ratio=None),
        ImageUniform(op="image_uniform", min_std=None),
        ImageBlur(op="image_blur", min_variance=None),
        ImageTextOnly(op="image_text_only", max_share=None),
    )
    for operator in operators:
        assert operator(examples) == [None, None, None]
    names = {"image_short_side", "image_long_side", "image_aspect", "image_std", "laplacian_variance", "image_text"}
    assert [set(one.meta.scores) for one in examples] == [names, names, set()]
    assert examples[0].meta.scores["image_aspect"] == pytest.approx(300 / 64)
    assert examples[0].meta.scores["image_short_side"] == 64


def test_real_pages_and_photographs(realdata: Path) -> None:
    folder = realdata / "images" / "skimage"
    if folder.exists():
        scores = {}
        for path in folder.glob("*.png"):
            one = example(decode_image(path.read_bytes(), ImageSettings()))
            ImageTextOnly(op="image_text_only", max_share=None)([one])
            scores[path.stem] = one.meta.scores["image_text"]
        assert scores["page"] > 0.8
        assert all(scores[name] < 0.3 for name in ("astronaut", "chelsea", "coffee") if name in scores)
