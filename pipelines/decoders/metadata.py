"""Encoded pictures without what says where, when, how and by whom they were taken; the pixels are not touched.

Kept are the parts that decide how the picture looks: the picture itself, transparency, gamma and the colour profile.
Gone are EXIF (with positions, serial numbers and a thumbnail), XMP, IPTC, comments, text chunks, maker notes and
whatever comes after the end of the picture (second pictures, the films of "motion photos"). For JPEG see `jpeg_files`.
"""

from __future__ import annotations

from collections.abc import Iterator

_PNG_KEPT = {
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"),
    *(b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT", b"mDCV", b"cLLI"),
}
_WEBP_DROPPED = (b"EXIF", b"XMP ")
_WEBP_METADATA_BITS = 0x08 | 0x04


def without_metadata(data: bytes, form: str) -> bytes | None:
    """The picture's bytes without metadata, the same object when there are none; None when they cannot be followed.

    Args:
        data: a file that its decoder has read without complaint.
        form: png or webp.
    """
    try:
        pieces = _png(data) if form == "png" else _webp(data)
    except (IndexError, ValueError):
        return None
    return data if sum(map(len, pieces)) == len(data) else b"".join(pieces)


def _png(data: bytes) -> list[bytes]:
    """The kept chunks up to the last one (PNG specification, third edition, section 5)."""
    pieces, at = [data[:8]], 8
    while at + 12 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4])
        if kind in _PNG_KEPT:
            pieces.append(data[at:end])
        if kind == b"IEND":
            return pieces
        at = end
    raise ValueError("no end")


def _webp(data: bytes) -> list[bytes]:
    """A RIFF file of the kept chunks (RFC 9649, section 2)."""
    end = 8 + int.from_bytes(data[4:8], "little")
    chunks = list(_riff_chunks(data, end))
    kept = [chunk for chunk in chunks if chunk[:4] not in _WEBP_DROPPED]
    if len(kept) == len(chunks) and end == len(data):
        return [data]
    first = bytearray(kept[0])
    if first.startswith(b"VP8X"):
        first[8] &= ~_WEBP_METADATA_BITS & 0xFF
    body = b"".join([b"WEBP", bytes(first), *kept[1:]])
    return [b"RIFF", len(body).to_bytes(4, "little"), body]


def _riff_chunks(data: bytes, end: int) -> Iterator[bytes]:
    at = 12
    while at + 8 <= min(end, len(data)):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 8 + length + length % 2]
        at += 8 + length + length % 2
    if at < end:
        raise ValueError("chunks end early")
