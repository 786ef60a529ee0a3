"""Filters and changes of pictures. Every one passes examples without pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field, model_validator

from omnimill.pipelines.base import Operator
from omnimill.pipelines.decoders.pixels import JPEG_QUALITY, Chroma, Encoding, fitted, load_grey, resized
from omnimill.schema import Example, Image

# Longer side in pixels at which pictures are measured, and the side of the cells that uniformity is measured over.
_MEASURE_SIDE = 512
_CELL = 8


class ImageSize(Operator):
    """Drops an example when one of its pictures is too small or too large, in pixels.

    min_side, max_side: of the shorter and of the longer side. min_pixels: width times height.
    The shortest and the longest side among the example's pictures are its scores ``image_short_side`` and
    ``image_long_side``.
    """

    version: ClassVar[int] = 2
    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("images",)
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["image_size"]
    min_side: int = Field(1, ge=1)
    max_side: int | None = Field(None, ge=1)
    min_pixels: int = Field(1, ge=1)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        _score(examples, "image_short_side", lambda image: min(image.width, image.height), min)
        _score(examples, "image_long_side", lambda image: max(image.width, image.height))
        return [_first(self._judge(image) for image in example.images) for example in examples]

    def _judge(self, image: Image) -> str | None:
        if min(image.width, image.height) < self.min_side or image.width * image.height < self.min_pixels:
            return "image_too_small"
        if self.max_side is not None and max(image.width, image.height) > self.max_side:
            return "image_too_large"
        return None


class ImageAspect(Operator):
    """Drops an example when one of its pictures is longer than `max_ratio` times its shorter side.

    The default of 3 is the usual bound of web image-text sets (DataComp, Gadre et al. 2023, "basic filtering"). The
    largest ratio among the example's pictures is its score ``image_aspect``.
    """

    version: ClassVar[int] = 2
    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("images",)
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["image_aspect"]
    max_ratio: float | None = Field(3.0, ge=1)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        scores = _score(examples, "image_aspect", _aspect)
        return ["image_aspect" if _above(score, self.max_ratio) else None for score in scores]


class ImageUniform(Operator):
    """Drops an example whose pictures are all nearly one colour.

    Measures the standard deviation of mean grey levels (0 to 255) over cells of 8 x 8 pixels, the longer side shrunk
    to 512, so that grain does not count; the largest one of the example's pictures is its score ``image_std``.
    """

    version: ClassVar[int] = 2
    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("images",)
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["image_uniform"]
    min_std: float | None = Field(4.0, ge=0)

    def looks_at(self, width: int, height: int) -> tuple[int, int]:
        return fitted(width, height, None, _MEASURE_SIDE)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        scores = _score(examples, "image_std", _std)
        return ["image_uniform" if _below(score, self.min_std) else None for score in scores]


class ImageBlur(Operator):
    """Drops an example whose pictures are all blurred.

    Measures the variance of the Laplacian (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR
    2000) of grey levels in 0 to 255, the longer side shrunk to 512 pixels, so that the bound does not depend on the
    resolution; the largest one of the example's pictures is its score ``laplacian_variance``.
    """

    version: ClassVar[int] = 2
    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("images",)
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["image_blur"]
    min_variance: float | None = Field(20.0, ge=0)

    def looks_at(self, width: int, height: int) -> tuple[int, int]:
        return fitted(width, height, None, _MEASURE_SIDE)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        scores = _score(examples, "laplacian_variance", _laplacian_variance)
        return ["image_blurred" if _below(score, self.min_variance) else None for score in scores]


class ImageResize(Operator):
    """Shrinks pictures so that no side passes its bound, and encodes them again; smaller ones stay as they are.

    short_side, long_side: bounds in pixels; the proportions are kept. The digest stays that of the source's bytes.
    quality, chroma: of the JPEG files; yuv420 is what nearly all photographs on the web have.
    """

    version: ClassVar[int] = 2
    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("images",)
    writes: ClassVar[tuple[str, ...]] = ("images",)

    op: Literal["image_resize"]
    short_side: int | None = Field(None, ge=1)
    long_side: int | None = Field(None, ge=1)
    quality: int = Field(JPEG_QUALITY, ge=1, le=100)
    chroma: Chroma = "yuv420"

    @model_validator(mode="after")
    def _bounded(self) -> ImageResize:
        if self.short_side is None and self.long_side is None:
            raise ValueError("one of short_side and long_side is needed")
        return self

    def looks_at(self, width: int, height: int) -> tuple[int, int]:
        fit = fitted(width, height, self.short_side, self.long_side)
        return (0, 0) if fit == (width, height) else fit

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        for example in examples:
            example.images = [self._shrink(image) for image in example.images]
        return [None] * len(examples)

    def _shrink(self, image: Image) -> Image:
        fit = fitted(image.width, image.height, self.short_side, self.long_side)
        if fit == (image.width, image.height):
            return image
        return resized(image, *fit, Encoding(self.quality, self.chroma))


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


def _score(
    examples: Sequence[Example],
    name: str,
    measure: Callable[[Image], float],
    most: Callable[[Iterable[float]], float] = max,
) -> list[float | None]:
    """The largest measure (or what `most` says) of each example's pictures, noted as `name`; None without pictures."""
    scores: list[float | None] = []
    for example in examples:
        score = most(map(measure, example.images)) if example.images else None
        if score is not None:
            example.meta.scores[name] = float(score)
        scores.append(score)
    return scores


def _below(score: float | None, bound: float | None) -> bool:
    return score is not None and bound is not None and score < bound


def _above(score: float | None, bound: float | None) -> bool:
    return score is not None and bound is not None and score > bound


def _aspect(image: Image) -> float:
    return max(image.width, image.height) / min(image.width, image.height)


def _std(image: Image) -> float:
    grey = load_grey(image, _MEASURE_SIDE)
    height, width = (side // _CELL for side in grey.shape)
    if height and width:
        cells = grey[: height * _CELL, : width * _CELL]
        grey = np.asarray(cv2.resize(cells, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return float(cv2.meanStdDev(grey)[1][0, 0])


def _laplacian_variance(image: Image) -> float:
    # The Laplacian of bytes fits 16 bits.
    return float(cv2.meanStdDev(cv2.Laplacian(load_grey(image, _MEASURE_SIDE), cv2.CV_16S))[1][0, 0]) ** 2
