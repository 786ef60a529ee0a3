"""Pixels of pictures on their way through a unit: decoded once, shown to whoever measures, encoded once."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as Pillow

from omnimill import schema

Pixels = NDArray[np.uint8]
# Smallest size, as width and height in pixels, at which a picture of a given size has to be at hand; (0, 0) for none.
Wanted = Callable[[int, int], tuple[int, int]]
Chroma = Literal["yuv420", "yuv444"]

JPEG_QUALITY = 90
# Larger pictures are decoded again for each who looks, so that what waits in a unit's task stays small.
_MAX_HELD_PIXELS = 4 << 20
_GRAPHIC_PIXELS = 128 * 128
# Measures look at grey no larger than this.
_GREY_SIDE = 512
# Bilinear interpolation looks at two source pixels a side: up to this ratio it leaves none out.
_MAX_BILINEAR = 2.0
# Scales at which libjpeg-turbo's transform is vectorised; at those between, decoding takes longer than at full size.
_JPEG_SCALES = (8, 4, 2)

# The threads of a unit keep its core busy already.
cv2.setNumThreads(1)


def everything(width: int, height: int) -> tuple[int, int]:
    """Wants pictures as large as they are."""
    return width, height


_wanted: ContextVar[Wanted] = ContextVar("wanted", default=everything)


@contextmanager
def wanting(wanted: Wanted) -> Iterator[None]:
    """In this block pictures are decoded no larger than needed for what is wanted of their pixels."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def wanted_pixels() -> Wanted:
    """What the block around wants; everything outside of one."""
    return _wanted.get()


@dataclass(frozen=True)
class Encoding:
    """How pixels become bytes: JPEG of a quality (1 to 100) and chroma subsampling; PNG up to 128 x 128 pixels."""

    quality: int = JPEG_QUALITY
    chroma: Chroma = "yuv444"


class Picture(schema.Image):
    """A picture while its unit is worked on.

    pixels: uint8 [height, width, 3] or, in grey, [height, width]; upright, never changed in place. May be smaller
        than the picture says it is: `data` has all of it. None when nobody wanted them or they are too many.
    data: given as bytes, or as a function that makes them when they are first asked for, and holds on to `data_bytes`.
    """

    def __init__(
        self, *, pixels: Pixels | None = None, data: bytes | Callable[[], bytes], data_bytes: int = 0, **facts: Any
    ) -> None:
        self._data: bytes | Callable[[], bytes]
        self.pixels = pixels
        self._data_bytes = data_bytes
        self._grey: Pixels | None = None
        super().__init__(data=data, **facts)  # type: ignore[arg-type]

    @classmethod
    def of_pixels(cls, pixels: Pixels, encoding: Encoding, **facts: Any) -> Picture:
        """A picture that is not encoded yet."""
        height, width = pixels.shape[:2]
        form = encoded_format(width, height)
        kept = held(pixels)
        data = encode(pixels, encoding) if kept is None else partial(encode, pixels, encoding)
        return cls(pixels=kept, data=data, format=form, width=width, height=height, **facts)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        if not isinstance(self._data, bytes):
            self._data = self._data()
        return self._data

    @data.setter
    def data(self, data: bytes | Callable[[], bytes]) -> None:
        self._data = data

    @property
    def grey(self) -> Pixels | None:
        """The pixels in grey, uint8 [height, width], no side over 512."""
        if self._grey is None and self.pixels is not None:
            colour = self.pixels.ndim == 3
            grey = np.asarray(cv2.cvtColor(self.pixels, cv2.COLOR_RGB2GRAY) if colour else self.pixels, np.uint8)
            size = fitted(self.width, self.height, None, _GREY_SIDE)
            self._grey = shrink(grey, *size) if _covers(grey, *size) else grey
        return self._grey

    @property
    def held_bytes(self) -> int:
        """Bytes of the pixels and of the encoded picture or what it is made of."""
        encoded = len(self._data) if isinstance(self._data, bytes) else self._data_bytes
        return encoded + (0 if self.pixels is None else self.pixels.nbytes)

    def settled(self) -> schema.Image:
        """The picture as it is stored, without its pixels."""
        return schema.Image(**{name: getattr(self, name) for name in schema.Image.__dataclass_fields__})


def held(pixels: Pixels) -> Pixels | None:
    """The pixels if they are few enough to be kept."""
    return pixels if pixels.shape[0] * pixels.shape[1] <= _MAX_HELD_PIXELS else None


def settle(example: schema.Example) -> None:
    """Encode an example's pictures where that is still to be done, and let go of their pixels."""
    example.images = [image.settled() if isinstance(image, Picture) else image for image in example.images]


def fitted(width: int, height: int, short_side: int | None, long_side: int | None) -> tuple[int, int]:
    """Width and height in pixels after shrinking to the bounds that are not None; the proportions are kept."""
    short, long = sorted((width, height))
    scale = min(1.0, (short_side or short) / short, (long_side or long) / long)
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrink(pixels: Pixels, width: int, height: int) -> Pixels:
    """Pixels at another size, no larger than theirs: bilinear for a little less, area means for much less."""
    if pixels.shape[:2] == (height, width):
        return pixels
    little = pixels.shape[0] <= _MAX_BILINEAR * height and pixels.shape[1] <= _MAX_BILINEAR * width
    kind = cv2.INTER_LINEAR if little else cv2.INTER_AREA
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=kind), np.uint8)


def decode_jpeg(data: bytes, size: tuple[int, int], needed: tuple[int, int], grey: bool, strict: bool) -> Pixels:
    """Pixels of a JPEG file, uint8 [h, w, 3] or [h, w], by the smallest fast scale that is not below what is needed.

    Args:
        data: the file.
        size, needed: width and height of the picture as coded, and of what is asked for.
        grey: decode the luminance only.
        strict: refuse what libjpeg warns about.

    Raises:
        ValueError: libjpeg's words about what is wrong.
    """
    scale = next((n for n in _JPEG_SCALES if size[0] >= n * needed[0] and size[1] >= n * needed[1]), 1)
    width, height = (-(-side // scale) for side in size)
    found = simplejpeg.decode_jpeg(data, "GRAY" if grey else "RGB", min_width=width, min_height=height, strict=strict)
    return np.asarray(found[:, :, 0] if grey else found, np.uint8)


def load_rgb(image: schema.Image) -> Pixels:
    """Pixels of a picture, uint8 [height, width, 3]."""
    found = _view(image, image.width, image.height)
    return found if found.ndim == 3 else np.asarray(cv2.cvtColor(found, cv2.COLOR_GRAY2RGB), np.uint8)


def load_grey(image: schema.Image, long_side: int) -> Pixels:
    """Grey pixels of a picture, uint8 [height, width], shrunk so that no side is over `long_side`."""
    width, height = fitted(image.width, image.height, None, long_side)
    grey = image.grey if isinstance(image, Picture) else None
    if grey is not None and _covers(grey, width, height):
        return shrink(grey, width, height)
    if image.format == "jpeg":
        grey = decode_jpeg(image.data, (image.width, image.height), (width, height), grey=True, strict=False)
    else:
        with _opened(image) as picture:
            grey = np.asarray(picture.convert("L"))
    return shrink(grey, width, height)


def _view(image: schema.Image, width: int, height: int) -> Pixels:
    """Pixels of the whole picture at least this large, [h, w, 3] or, of a grey picture, [h, w]."""
    pixels = image.pixels if isinstance(image, Picture) else None
    if pixels is not None and _covers(pixels, width, height):
        return pixels
    if image.format == "jpeg":
        return decode_jpeg(image.data, (image.width, image.height), (width, height), grey=False, strict=False)
    with _opened(image) as picture:
        return np.asarray(picture.convert("L" if picture.mode == "L" else "RGB"))


def _covers(pixels: Pixels, width: int, height: int) -> bool:
    return bool(pixels.shape[0] >= height and pixels.shape[1] >= width)


def _opened(image: schema.Image) -> Pillow.Image:
    return Pillow.open(io.BytesIO(image.data), formats=[image.format.upper()])


def resized(image: schema.Image, width: int, height: int, encoding: Encoding) -> Picture:
    """A picture made smaller; the digest stays that of the source's bytes."""
    pixels = shrink(_view(image, width, height), width, height)
    return Picture.of_pixels(pixels, encoding, digest=image.digest, uri=image.uri, time=image.time)


def encoded_format(width: int, height: int) -> str:
    """The format that pixels of this size are encoded in: small graphics lose nothing."""
    return "png" if width * height <= _GRAPHIC_PIXELS else "jpeg"


def encode(pixels: Pixels, encoding: Encoding = Encoding()) -> bytes:
    """Pixels [height, width, 3] or [height, width] as the bytes of a stored picture, see `encoded_format`."""
    height, width = pixels.shape[:2]
    if encoded_format(width, height) == "png":
        stream = io.BytesIO()
        Pillow.fromarray(pixels).save(stream, "PNG", optimize=True)
        return stream.getvalue()
    grey = pixels.ndim == 2
    return bytes(
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels[:, :, None] if grey else pixels),
            quality=encoding.quality,
            colorspace="GRAY" if grey else "RGB",
            colorsubsampling="Gray" if grey else encoding.chroma.removeprefix("yuv"),
        )
    )
