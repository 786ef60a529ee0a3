"""What a JPEG file says of itself before it is decoded, and the file without its metadata (ITU-T T.81, annex B)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

_EOI, _SOS, _COM = 0xD9, 0xDA, 0xFE
_APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_RESTARTS = range(0xD0, 0xD8)
# Baseline, extended and progressive, all Huffman-coded.
_FRAMES = (0xC0, 0xC1, 0xC2)
_OTHER_FRAMES = {*range(0xC0, 0xD0)} - {*_FRAMES, 0xC4, 0xC8, 0xCC}
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class JpegOutline:
    """A JPEG file of 8-bit grey (one component) or colour (three).

    width, height: of the picture as it is coded, in pixels.
    orientation: EXIF's, 1 to 8; 1 where it says nothing that can be understood.
    scans: passes over the picture.
    stored: the file without metadata; the same object when it has none.
    """

    width: int
    height: int
    components: int
    orientation: int
    scans: int
    stored: bytes


def jpeg_outline(data: bytes) -> JpegOutline | None:
    """Follow a file's segments; None when they are out of the ordinary in any way."""
    try:
        return _outline(data)
    except (IndexError, ValueError):
        return None


def jpeg_scans(data: bytes) -> int:
    """Marks of scans anywhere in a file, its thumbnails included."""
    places = _markers(data, 0)
    return sum(data[place + 1] == _SOS for place in places.tolist())


def _outline(data: bytes) -> JpegOutline | None:
    pieces, at = [data[:2]], 2
    frame = exif = None
    scans = 0
    places = np.zeros(0, np.int64)
    while True:
        marker = data[at + 1]
        if data[at] != 0xFF or marker in (0x00, 0xFF) or marker in _OTHER_FRAMES:
            return None
        if marker == _EOI:
            pieces.append(data[at : at + 2])
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if end < at + 4 or end > len(data):
            return None
        start = data[at + 4 : at + 36]
        if marker in _FRAMES and frame is None:
            frame = start
        elif marker == _APP1 and start.startswith(b"Exif\0\0") and exif is None:
            exif = data[at + 4 : end]
        elif marker == _APP1 and b"Orientation" in data[at:end]:
            return None
        if _decides_looks(marker, start):
            pieces.append(data[at:end])
        at = end
        if marker == _SOS:
            places = places if scans else _markers(data, at)
            scans += 1
            following = int(places[np.searchsorted(places, at)])
            pieces.append(data[at:following])
            at = following
    if frame is None or frame[0] != 8 or frame[5] not in (1, 3) or not scans:
        return None
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    stored = data if sum(map(len, pieces)) == len(data) else b"".join(pieces)
    return JpegOutline(width, height, frame[5], 1 if exif is None else _orientation(exif), scans, stored)


def _decides_looks(marker: int, start: bytes) -> bool:
    """Whether a segment is more than metadata."""
    if marker == _APP2:
        return start.startswith(b"ICC_PROFILE\0")
    if marker == _APP14:
        return start.startswith(b"Adobe")
    # APP0 tells the density of pixels.
    return marker == _APP0 or not (_APP1 <= marker <= _APP15 or marker == _COM)


def _markers(data: bytes, start: int) -> NDArray[np.int64]:
    """Places of markers from `start` on, within entropy-coded data: restarts, stuffed and fill bytes are none."""
    values = np.frombuffer(data, np.uint8, offset=start)
    places: NDArray[np.int64] = np.flatnonzero((values[:-1] == 0xFF) & (values[1:] != 0))
    codes = values[places + 1]
    real = (codes != 0xFF) & ((codes < _RESTARTS.start) | (codes >= _RESTARTS.stop))
    return np.asarray(places[real] + start)


def _orientation(segment: bytes) -> int:
    exif = Pillow.Exif()
    try:
        exif.load(segment)
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF, which says nothing about the picture, raises nearly any type
        return 1
