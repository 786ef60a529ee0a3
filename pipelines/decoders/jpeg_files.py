"""What a JPEG file says of itself before it is decoded, and the file without its metadata (ITU-T T.81, annex B)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

_EOI, _SOS, _COM = 0xD9, 0xDA, 0xFE
_APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_RESTARTS = range(0xD0, 0xD8)
# Baseline, extended and progressive, all Huffman-coded.
_FRAMES = (0xC0, 0xC1, 0xC2)
_PROGRESSIVE = 0xC2
_OTHER_FRAMES = {*range(0xC0, 0xD0)} - {*_FRAMES, 0xC4, 0xC8, 0xCC}
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class JpegOutline:
    """The head of a JPEG file of 8-bit grey (one component) or colour (three).

    width, height: of the picture as it is coded, in pixels.
    orientation: EXIF's, 1 to 8; 1 where it says nothing that can be understood.
    scans: passes over the picture.
    kept: the segments up to the first scan's data that are more than metadata, as ranges of bytes. data: where the
        first scan's data begin.
    """

    width: int
    height: int
    components: int
    orientation: int
    scans: int
    kept: tuple[tuple[int, int], ...]
    data: int

    def stored(self, file: bytes) -> bytes:
        """The file without metadata; the same object when it has none. Its decoder has read it without complaint."""
        ranges = [*self.kept, *_scan_ranges(file, self.data)]
        if sum(end - start for start, end in ranges) == len(file):
            return file
        return b"".join(file[start:end] for start, end in ranges)


def jpeg_outline(file: bytes) -> JpegOutline | None:
    """Read a file's segments up to its first scan; None when they are out of the ordinary in any way."""
    try:
        return _outline(file)
    except (IndexError, ValueError):
        return None


def jpeg_scans(file: bytes, start: int = 0) -> int:
    """Marks of scans in a file from `start` on."""
    return sum(file[place + 1] == _SOS for place in _markers(file, start).tolist())


def _outline(file: bytes) -> JpegOutline | None:
    kept = [(0, 2)]
    frame = exif = None
    progressive = False
    at = 2
    while True:
        marker = file[at + 1]
        if file[at] != 0xFF or marker in (0x00, 0xFF, _EOI) or marker in _OTHER_FRAMES:
            return None
        end = at + 2 + int.from_bytes(file[at + 2 : at + 4])
        if end < at + 4 or end > len(file):
            return None
        start = file[at + 4 : at + 36]
        if marker in _FRAMES and frame is None:
            frame, progressive = start, marker == _PROGRESSIVE
        elif marker == _APP1 and start.startswith(b"Exif\0\0") and exif is None:
            exif = file[at + 4 : end]
        elif marker == _APP1 and b"Orientation" in file[at:end]:
            return None
        if _decides_looks(marker, start):
            kept.append((at, end))
        at = end
        if marker == _SOS:
            break
    if frame is None or frame[0] != 8 or frame[5] not in (1, 3):
        return None
    # One scan of all components is the whole picture: libjpeg takes no other after it.
    scans = 1 if not progressive and start[0] == frame[5] else 1 + jpeg_scans(file, at)
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    return JpegOutline(width, height, frame[5], 1 if exif is None else _orientation(exif), scans, tuple(kept), at)


def _scan_ranges(file: bytes, start: int) -> Iterator[tuple[int, int]]:
    """What is more than metadata from the first scan's data to the end of the picture."""
    for place in _markers(file, start).tolist():
        if place < start:
            continue  # inside the segment before
        yield start, place
        marker = file[place + 1]
        start = place + 2
        if marker != _EOI:
            start += int.from_bytes(file[place + 2 : place + 4])
        if _decides_looks(marker, file[place + 4 : place + 36]):
            yield place, start
        if marker == _EOI:
            return


def _decides_looks(marker: int, start: bytes) -> bool:
    """Whether a segment is more than metadata."""
    if marker == _APP2:
        return start.startswith(b"ICC_PROFILE\0")
    if marker == _APP14:
        return start.startswith(b"Adobe")
    # APP0 tells the density of pixels.
    return marker == _APP0 or not (_APP1 <= marker <= _APP15 or marker == _COM)


def _markers(file: bytes, start: int) -> NDArray[np.int64]:
    """Places of markers from `start` on, within entropy-coded data: restarts, stuffed and fill bytes are none."""
    values = np.frombuffer(file, np.uint8, offset=start)
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
