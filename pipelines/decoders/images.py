"""Encoded pictures from untrusted bytes: limits before decoding, a full decode as proof, upright RGB as the result."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from blake3 import blake3
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms
from pydantic import Field

from omnimill import schema
from omnimill.config import Config
from omnimill.errors import BadRecord, RecordDropped
from omnimill.pipelines.decoders.sniff import HEAD_BYTES, sniff
from omnimill.pipelines.isolation import isolated

Pixels = NDArray[np.uint8]

# Pillow's own limit, which it also applies to frames and embedded pictures; above it, it is an error here.
PIXELS_CEILING = 89_478_485
warnings.filterwarnings("error", category=Pillow.DecompressionBombWarning)
# Its other warnings are about metadata that are not used here.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

ImageFormat = Literal["jpeg", "png", "webp", "gif", "tiff", "bmp", "ppm", "jp2", "avif"]
_PLUGINS: dict[str, str] = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "gif": "GIF",
    "tiff": "TIFF",
    "bmp": "BMP",
    "ppm": "PPM",
    "jp2": "JPEG2000",
    "avif": "AVIF",
}
# Formats whose decoders (libtiff, OpenJPEG) have a history of crashes run in a child process.
_ISOLATED = ("tiff", "jp2")
_ISOLATED_SECONDS = 60.0
_STORED = ("jpeg", "png", "webp")
_JPEG_QUALITY = 90
_GRAPHIC_PIXELS = 128 * 128
# Baseline files have one scan and progressive ones about ten; each costs a pass over the whole picture.
_JPEG_SCANS = 100

_ORIENTATION = 0x0112
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_UPRIGHT = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
_CUT_OFF = re.compile(r"truncat|premature end|not enough (image )?data|unexpected end|end of file", re.IGNORECASE)
# libjpeg's words for damage inside the picture, as against junk in the header, which it reads past.
_DAMAGED = re.compile(r"before marker 0xd[0-9]$|bad Huffman code|Invalid SOS|Unsupported marker", re.IGNORECASE)


class ImageSettings(Config):
    """What pictures are accepted.

    max_bytes: of the encoded file. max_pixels, max_side: of the picture as its header declares it.
    animated: whether an animation gives its first frame or is dropped as ``image_animated``.
    formats: by content, not by name.
    """

    max_bytes: int = Field(64 << 20, gt=0)
    max_pixels: int = Field(50_000_000, gt=0, le=PIXELS_CEILING)
    max_side: int = Field(16_384, gt=0)
    animated: Literal["first_frame", "drop"] = "first_frame"
    formats: tuple[ImageFormat, ...] = ("jpeg", "png", "webp", "gif", "tiff", "bmp", "ppm", "jp2", "avif")


def decode_image(data: bytes, settings: ImageSettings, uri: str | None = None) -> schema.Image:
    """Check a picture fully and make it upright 8-bit RGB or grey in JPEG, PNG or WebP.

    Bytes that are that already are kept as they are. Others are decoded (transparency on white, 16-bit samples by
    their high byte, CMYK and Lab to RGB) and encoded again: JPEG quality 90 without chroma subsampling, or PNG up to
    128 x 128 pixels.

    Raises:
        BadRecord: ``empty_file``, ``not_an_image``, ``unsupported_image_format``, ``unsupported_image_mode``,
            ``image_too_large``, ``image_truncated`` or ``image_undecodable``; ``image_timeout``, ``image_crash`` and
            ``image_memory`` for TIFF and JPEG 2000.
        RecordDropped: ``image_animated``.
    """
    form = _accepted_format(data, settings)
    if form in _ISOLATED:
        return isolated("image", _ISOLATED_SECONDS, _decode, data, form, settings, uri)
    return _decode(data, form, settings, uri)


def _decode(data: bytes, form: str, settings: ImageSettings, uri: str | None) -> schema.Image:
    with _faults(form):
        if form == "webp":
            # Opening allocates the whole canvas, so its size is read from the header first.
            _check_size(*_webp_size(data), settings)
        picture = Pillow.open(io.BytesIO(data), formats=[_PLUGINS[form]])
        _check_size(*picture.size, settings)
        _check_work(picture, data, form, settings)
        animated = form in ("gif", "png", "webp", "avif") and bool(getattr(picture, "is_animated", False))
        if animated and settings.animated == "drop":
            raise RecordDropped("image_animated")
        intact = _prove(picture, data, form)
        orientation = _orientation(picture)
        stored, stored_form = data, form
        width, height = picture.size
        plain = picture.mode in ("RGB", "L") and not picture.has_transparency_data
        if not (intact and plain and form in _STORED and orientation not in _UPRIGHT and not animated):
            rgb = _rgb(picture)
            if orientation in _UPRIGHT:
                rgb = rgb.transpose(_UPRIGHT[orientation])
            width, height = rgb.size
            stored, stored_form = encode_rgb(np.asarray(rgb))
    return schema.Image(
        data=stored, format=stored_form, width=width, height=height, digest=blake3(data).hexdigest(), uri=uri
    )


def load_rgb(image: schema.Image) -> Pixels:
    """Pixels of a stored picture, uint8 [height, width, 3]."""
    if image.format == "jpeg":
        return simplejpeg.decode_jpeg(image.data, "RGB", strict=False)  # type: ignore[no-any-return]
    with Pillow.open(io.BytesIO(image.data), formats=[_PLUGINS[image.format]]) as picture:
        return np.asarray(picture.convert("RGB"))


def load_grey(image: schema.Image, long_side: int) -> Pixels:
    """Grey pixels of a stored picture, uint8 [height, width], shrunk so that no side is over `long_side`."""
    scale = min(1.0, long_side / max(image.width, image.height))
    width, height = (max(1, round(side * scale)) for side in (image.width, image.height))
    if image.format == "jpeg":
        grey = simplejpeg.decode_jpeg(image.data, "GRAY", min_height=height, min_width=width, strict=False)[:, :, 0]
    else:
        with Pillow.open(io.BytesIO(image.data), formats=[_PLUGINS[image.format]]) as picture:
            grey = np.asarray(picture.convert("L"))
    if grey.shape != (height, width):
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def encode_rgb(rgb: Pixels) -> tuple[bytes, str]:
    """Pixels [height, width, 3] as a stored picture: the bytes and their format."""
    if rgb.shape[0] * rgb.shape[1] <= _GRAPHIC_PIXELS:
        stream = io.BytesIO()
        Pillow.fromarray(rgb).save(stream, "PNG", optimize=True)
        return stream.getvalue(), "png"
    rgb = np.ascontiguousarray(rgb)
    return simplejpeg.encode_jpeg(rgb, quality=_JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"), "jpeg"


def _accepted_format(data: bytes, settings: ImageSettings) -> str:
    if not data:
        raise BadRecord("empty_file", "no bytes")
    if len(data) > settings.max_bytes:
        raise BadRecord("image_too_large", f"{len(data)} bytes; at most {settings.max_bytes}")
    content = sniff(data[:HEAD_BYTES])
    if content is None or content.medium != "image":
        found = "unknown content" if content is None else f"{content.medium} ({content.format})"
        raise BadRecord("not_an_image", f"{found}, starts with {data[:16].hex(' ')}")
    if content.format not in settings.formats:
        raise BadRecord("unsupported_image_format", f"{content.format}; accepted: {', '.join(settings.formats)}")
    return content.format


def _check_size(width: int, height: int, settings: ImageSettings) -> None:
    if width < 1 or height < 1:
        raise BadRecord("image_undecodable", f"declares {width} x {height} pixels")
    if max(width, height) > settings.max_side or width * height > settings.max_pixels:
        limits = f"at most {settings.max_side} a side and {settings.max_pixels} in all"
        raise BadRecord("image_too_large", f"declares {width} x {height} pixels; {limits}")


def _check_work(picture: Pillow.Image, data: bytes, form: str, settings: ImageSettings) -> None:
    """Refuse files whose decoding costs far more than their picture's size says."""
    if form == "jpeg" and (scans := data.count(b"\xff\xda")) > _JPEG_SCANS:
        raise BadRecord("image_too_large", f"{scans} scans; at most {_JPEG_SCANS}")
    if form == "tiff":
        tags = getattr(picture, "tag_v2", {})
        if _TILE_WIDTH in tags:
            _check_size(int(tags[_TILE_WIDTH]), int(tags.get(_TILE_HEIGHT, 1)), settings)


def _prove(picture: Pillow.Image, data: bytes, form: str) -> bool:
    """Decode everything; False when the picture is whole but its file bends the format's rules."""
    if form == "jpeg" and picture.mode in ("RGB", "L"):
        try:
            simplejpeg.decode_jpeg(data, "RGB" if picture.mode == "RGB" else "GRAY", strict=True)
        except ValueError as fault:
            if _CUT_OFF.search(str(fault)) or _DAMAGED.search(str(fault)):
                raise
        else:
            return True
        picture.load()
        return False
    picture.load()
    return True


def _webp_size(data: bytes) -> tuple[int, int]:
    """Canvas size in pixels from a WebP header (RFC 9649, sections 2.5 to 2.7)."""
    kind, body = data[12:16], data[20:]
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return struct.unpack("<HH", body[6:8] + body[8:10])[0] & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    raise BadRecord("image_undecodable", f"webp: first chunk is {kind!r}")


def _orientation(picture: Pillow.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, struct.error):
        return 1  # damaged EXIF says nothing about the picture


def _rgb(picture: Pillow.Image) -> Pillow.Image:
    if picture.mode.startswith("I"):
        samples = np.asarray(picture).astype(np.int64) >> 8
        return Pillow.fromarray(samples.clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise BadRecord("unsupported_image_mode", "floating-point samples without a declared range")
    if picture.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.applyTransform(picture, ImageCms.buildTransform(lab, srgb, "LAB", "RGB")) or picture
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        canvas = Pillow.new("RGB", layer.size, "white")
        canvas.paste(layer, mask=layer.getchannel("A"))
        return canvas
    return picture.convert("RGB")


@contextmanager
def _faults(form: str) -> Iterator[None]:
    """Whatever a decoder raises on hostile bytes, as a verdict on the picture."""
    try:
        yield
    except (BadRecord, RecordDropped, MemoryError):
        raise
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as fault:
        raise BadRecord("image_too_large", f"{form}: {fault}") from fault
    except Exception as fault:
        # Decoders fed malformed bytes raise nearly any type; the verdict keeps its type and words, without addresses.
        words = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "", str(fault)).strip()
        reason = "image_truncated" if isinstance(fault, EOFError) or _CUT_OFF.search(words) else "image_undecodable"
        raise BadRecord(reason, f"{form}: {type(fault).__name__}: {words}") from fault
