"""TFRecord files from strangers, read without TensorFlow: framing, checksums, and what is whole beside what is damaged.

A record is its length (8 bytes, little endian), a masked CRC-32C of these bytes, the payload, and a masked CRC-32C of
the payload (TensorFlow's ``record_writer``). Where the chain of records is broken, the next place is looked for at
which a whole record begins, and what lies between is one damaged record.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import google_crc32c

from omnimill.errors import BadRecord

_HEADER, _FOOTER = 12, 4
_MASK_DELTA = 0xA282EAD8
_WINDOW = 1 << 20
# Looking for the next whole record is given up after so many bytes.
_RESYNC_BYTES = 256 << 20
_NOT_ZERO = re.compile(rb"[^\0]")


@dataclass(frozen=True)
class Frame:
    """A record, or a damaged stretch. offset, length: with header and checksums.

    data: the payload; None when `fault` says why there is none.
    """

    offset: int
    length: int
    data: bytes | None
    fault: BadRecord | None = None


def masked_crc(data: bytes) -> int:
    """The checksum that TFRecord files store."""
    crc = int(google_crc32c.value(data))
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def read_frames(
    stream: BinaryIO, size: int, max_bytes: int, start: int = 0, stop: int | None = None
) -> Iterator[Frame]:
    """Records whose first byte lies in ``start <= offset < stop``, in order.

    The chain is followed from the start of the file by its headers, so ranges that cover a file without overlap give
    each record exactly once, whatever is damaged.

    Args:
        stream: seekable. size: of the file, in bytes.
        max_bytes: of a payload; larger ones come with fault ``record_too_large``.

    Damage comes as fault ``tfrecord_damaged``; ``tfrecord_truncated`` when the file ends inside a record.
    """
    for offset, end, fault in _Chain(stream, size, max_bytes).spans():
        if stop is not None and offset >= stop:
            return
        if offset >= start:
            yield _frame(stream, offset, end, fault, max_bytes)


def _frame(stream: BinaryIO, offset: int, end: int, fault: BadRecord | None, max_bytes: int) -> Frame:
    if fault is None and end - offset - _HEADER - _FOOTER > max_bytes:
        fault = BadRecord("record_too_large", f"{end - offset} bytes; at most {max_bytes}")
    if fault is not None:
        return Frame(offset, end - offset, None, fault)
    data = _payload(stream, offset, end)
    if data is None:
        fault = BadRecord("tfrecord_damaged", "the payload does not fit its checksum")
    return Frame(offset, end - offset, data, fault)


def _payload(stream: BinaryIO, offset: int, end: int) -> bytes | None:
    """The payload of a record that ends at `end`; None when it is not what its checksum says."""
    stream.seek(offset + _HEADER)
    data = stream.read(end - offset - _HEADER)
    payload, footer = data[:-_FOOTER], data[-_FOOTER:]
    whole = len(data) == end - offset - _HEADER and masked_crc(payload) == int.from_bytes(footer, "little")
    return payload if whole else None


class _Chain:
    """The chain of a file's records."""

    def __init__(self, stream: BinaryIO, size: int, max_bytes: int) -> None:
        self._stream = stream
        self._size = size
        self._max_bytes = max_bytes

    def spans(self) -> Iterator[tuple[int, int, BadRecord | None]]:
        """Offset and end of every record, and why it is none.

        Payloads are read only next to broken headers, so following the chain costs little and every reader of a range
        sees the same chain.
        """
        place = 0
        while place < self._size:
            end = self._end(place)
            if end is not None and self._goes_on(place, end):
                yield place, end, None
                place = end
                continue
            begin = place + 1 if end is None else place + _HEADER
            following = self._next_whole(begin)
            after = self._size if following is None else following
            cut = following is None and (end is None or end > self._size)
            reason = "tfrecord_truncated" if cut else "tfrecord_damaged"
            message = "its length does not fit its checksum" if end is None else "no record follows where it ends"
            yield place, after, BadRecord(reason, f"{message}; {after - place} bytes passed over")
            place = after

    def _goes_on(self, place: int, end: int) -> bool:
        """Whether a record's length can be believed: another follows it, it is the last, or its payload is whole."""
        if end >= self._size:
            return end == self._size
        if self._end(end) is not None:
            return True
        small = end - place - _HEADER - _FOOTER <= self._max_bytes
        return small and _payload(self._stream, place, end) is not None

    def _end(self, place: int) -> int | None:
        """Where the record at `place` ends by its header; None when there is no valid header."""
        self._stream.seek(place)
        return _header_end(self._stream.read(_HEADER), place)

    def _next_whole(self, begin: int) -> int | None:
        """The first place from `begin` on at which a record begins whose payload is whole."""
        for window in range(begin, min(self._size, begin + _RESYNC_BYTES), _WINDOW):
            self._stream.seek(window)
            data = self._stream.read(_WINDOW + _HEADER - 1)
            for at in _candidates(data):
                place = window + at
                end = _header_end(data[at : at + _HEADER], place)
                if end is None or end > self._size or end - place - _HEADER - _FOOTER > self._max_bytes:
                    continue
                if _payload(self._stream, place, end) is not None:
                    return place
        return None


def _header_end(header: bytes, place: int) -> int | None:
    if len(header) < _HEADER:
        return None
    length, crc = struct.unpack("<QI", header)
    return place + _HEADER + length + _FOOTER if masked_crc(header[:8]) == crc else None


def _candidates(data: bytes) -> Iterator[int]:
    """Where a header may begin: the upper half of a length below 4 GiB is four zero bytes."""
    zeros = data.find(b"\0\0\0\0", 4)
    while 0 <= zeros <= len(data) - 8:
        if data[zeros + 4 : zeros + 8] == b"\0\0\0\0":
            # The checksum of no short length is zero: on to the last place in a run of zeros that can be one.
            end = _NOT_ZERO.search(data, zeros + 4)
            zeros = max(zeros + 1, (end.start() if end else len(data)) - 7)
        else:
            yield zeros - 4
            zeros += 1
        zeros = data.find(b"\0\0\0\0", zeros)
