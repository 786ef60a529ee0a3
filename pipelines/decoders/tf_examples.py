"""``tf.train.Example`` messages out of untrusted bytes, read by their wire format without TensorFlow.

An Example holds Features (field 1), a map (field 1, entries of key 1 and value 2) from names to a Feature: a list of
bytes (field 1), of floats (2) or of 64-bit integers (3), whose values are field 1 of the list, packed or not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from omnimill.errors import BadRecord

Feature = list[bytes] | npt.NDArray[np.float32] | npt.NDArray[np.int64]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10


def parse_example(data: bytes) -> dict[str, Feature]:
    """The features of a serialised Example by name; one without values is an empty list of bytes.

    Raises:
        BadRecord: ``tf_example_malformed``.
    """
    found: dict[str, Feature] = {}
    for features in _messages(memoryview(data), 1):
        for entry in _messages(features, 1):
            parts = {number: value for number, wire, value in _fields(entry) if wire == _BYTES}
            try:
                name = str(parts.get(1, b""), "utf-8")
            except UnicodeDecodeError as fault:
                raise _malformed(f"a feature's name is not UTF-8: {fault.reason}") from None
            found[name] = _feature(parts.get(2, memoryview(b"")))
    return found


def _feature(data: memoryview) -> Feature:
    """The list that a Feature holds; of several kinds the last one counts, as protobuf has it."""
    kind, parts = 1, list[memoryview]()
    for number, wire, value in _fields(data):
        if wire == _BYTES and number in (1, 2, 3):
            kind, parts = number, [*(parts if number == kind else []), value]
    if kind == 1:
        return [bytes(value) for part in parts for value in _messages(part, 1)]
    decode = _floats if kind == 2 else _integers
    arrays = [decode(value) for part in parts for number, _, value in _fields(part) if number == 1]
    empty = np.empty(0, np.float32 if kind == 2 else np.int64)
    return np.concatenate([empty, *arrays])


def _floats(data: memoryview) -> npt.NDArray[np.float32]:
    if len(data) % 4:
        raise _malformed(f"{len(data)} bytes are no whole number of floats")
    return np.frombuffer(data, "<f4").astype(np.float32)


def _integers(data: memoryview) -> npt.NDArray[np.int64]:
    """Packed varints: seven bits a byte, lowest first, the top bit set on all but the last byte."""
    septets = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(septets < 128)
    if len(septets) and (not len(last) or last[-1] != len(septets) - 1):
        raise _malformed("a list of integers is cut off")
    first = np.concatenate([[0], last[:-1] + 1]).astype(np.int64) if len(last) else last
    lengths = last - first + 1
    if len(last) and lengths.max() > _VARINT_BYTES:
        raise _malformed(f"an integer of {lengths.max()} bytes")
    values = np.zeros(len(last), np.uint64)
    for place in range(int(lengths.max()) if len(last) else 0):
        longer = lengths > place
        septet = septets[first[longer] + place].astype(np.uint64) & np.uint64(127)
        values[longer] |= septet << np.uint64(7 * place)
    return values.view(np.int64)


def _messages(data: memoryview, number: int) -> Iterator[memoryview]:
    """The values of a field of bytes or messages."""
    return (value for found, wire, value in _fields(data) if found == number and wire == _BYTES)


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, wire type and raw value of every field; a varint's value is its bytes."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            end = _varint(data, place)[1]
        elif wire == _BYTES:
            length, place = _varint(data, place)
            end = place + length
        elif wire in (_FIXED32, _FIXED64):
            end = place + (4 if wire == _FIXED32 else 8)
        else:
            raise _malformed(f"wire type {wire} at byte {place}")
        if end > len(data) or number == 0:
            raise _malformed(f"field {number} of {end - place} bytes at byte {place} of {len(data)}")
        yield number, wire, data[place:end]
        place = end


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """The number at a place, and where it ends."""
    value = 0
    for count, byte in enumerate(data[place : place + _VARINT_BYTES]):
        value |= (byte & 127) << (7 * count)
        if byte < 128:
            return value, place + count + 1
    raise _malformed(f"a number at byte {place} that does not end")


def _malformed(message: str) -> BadRecord:
    return BadRecord("tf_example_malformed", message)
