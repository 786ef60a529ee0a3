"""Encoded pictures from untrusted bytes: limits before decoding, a full decode as proof, upright RGB as the result."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
import simplejpeg
from blake3 import blake3
from PIL import Image as Pillow
from PIL import ImageCms
from pydantic import Field

from omnimill.config import Config
from omnimill.errors import BadRecord, RecordDropped
from omnimill.pipelines.decoders.jpeg_files import JpegOutline, jpeg_outline, jpeg_scans
from omnimill.pipelines.decoders.metadata import without_metadata
from omnimill.pipelines.decoders.pixels import (
    Encoding,
    Picture,
    Pixels,
    Wanted,
    decode_jpeg,
    encode,
    encoded_format,
    everything,
    held,
    shrink,
    wanted_pixels,
)
from omnimill.pipelines.decoders.sniff import HEAD_BYTES, sniff
from omnimill.pipelines.isolation import isolated

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
# Baseline files have one scan and progressive ones about ten; each costs a pass over the whole picture.
_JPEG_SCANS = 100

_ORIENTATION = 0x0112
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
# What makes a picture upright, by EXIF orientation; from 5 on width and height change places.
_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: np.swapaxes(pixels, 0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.swapaxes(np.rot90(pixels, 2), 0, 1),
    8: np.rot90,
}
_FIRST_TURNED = 5
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


def decode_image(data: bytes, settings: ImageSettings, uri: str | None = None, digest: str | None = None) -> Picture:
    """Check a picture fully and make it upright 8-bit RGB or grey in JPEG, PNG or WebP, without metadata.

    Files that are that already are kept as they are, but for metadata (EXIF, XMP, comments, …). Others are decoded
    (transparency on white, 16-bit samples by their high byte, CMYK and Lab to RGB) and encoded again: JPEG quality 90
    without chroma subsampling, or PNG up to 128 x 128 pixels. Colour profiles stay in kept files and are not applied.

    The picture brings the pixels that the block around wants, see `wanting`.

    Args:
        data: the file.
        settings: what is accepted.
        uri: where the bytes lie.
        digest: their blake3, where it is known already.

    Raises:
        BadRecord: ``empty_file``, ``not_an_image``, ``unsupported_image_format``, ``unsupported_image_mode``,
            ``image_too_large``, ``image_truncated`` or ``image_undecodable``; ``image_timeout``, ``image_crash`` and
            ``image_memory`` for TIFF and JPEG 2000.
        RecordDropped: ``image_animated``.
    """
    form = _accepted_format(data, settings)
    if form in _ISOLATED:
        return isolated("image", _ISOLATED_SECONDS, _decode, data, form, settings, uri, digest, everything)
    return _decode(data, form, settings, uri, digest, wanted_pixels())


def _decode(
    data: bytes, form: str, settings: ImageSettings, uri: str | None, digest: str | None, wanted: Wanted
) -> Picture:
    facts = {"digest": digest or blake3(data).hexdigest(), "uri": uri}
    with _faults(form):
        outline = jpeg_outline(data) if form == "jpeg" else None
        if outline is not None and (found := _jpeg(data, outline, settings, wanted, facts)):
            return found
        return _any(data, form, settings, wanted, facts)


def _jpeg(
    data: bytes, outline: JpegOutline, settings: ImageSettings, wanted: Wanted, facts: Mapping[str, Any]
) -> Picture | None:
    """An ordinary JPEG file, decoded once and no larger than wanted; None when it bends the format's rules.

    The scale makes no difference to what is proven: the coefficients of the whole picture are read at every scale.
    """
    _check_size(outline.width, outline.height, settings)
    _check_scans(outline.scans)
    coded = outline.width, outline.height
    turned = outline.orientation >= _FIRST_TURNED
    width, height = reversed(coded) if turned else coded
    needed = wanted(width, height)
    grey = outline.components == 1 or not any(needed)
    try:
        pixels = decode_jpeg(data, coded, needed[::-1] if turned else needed, grey=grey, strict=True)
    except ValueError as fault:
        if _CUT_OFF.search(str(fault)) or _DAMAGED.search(str(fault)):
            raise
        return None
    kept = held(shrink(_upright(pixels, outline.orientation), *needed)) if any(needed) else None
    picture = partial(Picture, pixels=kept, data_bytes=len(data), width=width, height=height, **facts)
    if outline.orientation in _UPRIGHT:
        return picture(data=partial(_turned, data, outline.orientation), format=encoded_format(width, height))
    return picture(data=partial(outline.stored, data), format="jpeg")


def _any(data: bytes, form: str, settings: ImageSettings, wanted: Wanted, facts: Mapping[str, Any]) -> Picture:
    """A picture of any format, decoded as a whole."""
    if form == "webp":
        # Opening allocates the whole canvas, so its size is read from the header first.
        _check_size(*_webp_size(data), settings)
    opened = Pillow.open(io.BytesIO(data), formats=[_PLUGINS[form]])
    _check_size(*opened.size, settings)
    if form == "jpeg":
        _check_scans(jpeg_scans(data))
    if form == "tiff":
        _check_tiles(opened, settings)
    animated = form in ("gif", "png", "webp", "avif") and bool(getattr(opened, "is_animated", False))
    if animated and settings.animated == "drop":
        raise RecordDropped("image_animated")
    if form == "jpeg":
        _prove_jpeg(opened, data)
    opened.load()
    orientation = _orientation(opened)
    plain = opened.mode in ("RGB", "L") and not opened.has_transparency_data
    if plain and form in ("png", "webp") and orientation not in _UPRIGHT and not animated:
        stored = without_metadata(data, form)
        if stored is not None:
            width, height = opened.size
            needed = wanted(width, height)
            pixels = held(shrink(np.asarray(opened), *needed)) if any(needed) else None
            return Picture(pixels=pixels, data=stored, format=form, width=width, height=height, **facts)
    return Picture.of_pixels(_upright(np.asarray(_rgb(opened)), orientation), Encoding(), **facts)


def _prove_jpeg(opened: Pillow.Image, data: bytes) -> None:
    """Refuse damage that Pillow would read past."""
    if opened.mode in ("RGB", "L"):
        try:
            simplejpeg.decode_jpeg(data, "RGB" if opened.mode == "RGB" else "GRAY", strict=True)
        except ValueError as fault:
            if _CUT_OFF.search(str(fault)) or _DAMAGED.search(str(fault)):
                raise


def _turned(data: bytes, orientation: int) -> bytes:
    return encode(_upright(simplejpeg.decode_jpeg(data, "RGB"), orientation))


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    return np.ascontiguousarray(_UPRIGHT[orientation](pixels)) if orientation in _UPRIGHT else pixels


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


def _check_scans(scans: int) -> None:
    if scans > _JPEG_SCANS:
        raise BadRecord("image_too_large", f"{scans} scans; at most {_JPEG_SCANS}")


def _check_tiles(opened: Pillow.Image, settings: ImageSettings) -> None:
    """A TIFF's tiles may be far larger than its picture, and are decoded as a whole."""
    tags = getattr(opened, "tag_v2", {})
    if _TILE_WIDTH in tags:
        _check_size(int(tags[_TILE_WIDTH]), int(tags.get(_TILE_HEIGHT, 1)), settings)


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
