"""Moments and intervals of a clip, in seconds on its own clock, as shares of its length."""

from __future__ import annotations

import math
from collections.abc import Sequence

from omnimill.errors import BadRecord
from omnimill.locations import Range
from omnimill.tokenizers.number_format import NumberFormat
from omnimill.tokenizers.sparse import decode_vector, encode_vector


def encode_time(seconds: float, length: float, numbers: NumberFormat) -> list[int]:
    """One number.

    Args:
        seconds: the moment; what lies outside the clip becomes its start or end.
        length: of the clip, in seconds.
        numbers: how it is written.

    Raises:
        BadRecord: ``clip_length_invalid``, ``number_not_finite``.
    """
    return encode_vector((seconds,), (_clock(length),), numbers)


def decode_time(ids: Sequence[int], length: float, numbers: NumberFormat) -> float:
    """Inverse of :func:`encode_time`, within :func:`time_error`.

    Raises:
        BadRecord: ``numbers_malformed``, ``clip_length_invalid``.
    """
    return decode_vector(ids, (_clock(length),), numbers)[0]


def encode_interval(interval: tuple[float, float], length: float, numbers: NumberFormat) -> list[int]:
    """Two numbers: start and end, in seconds.

    Raises:
        BadRecord: ``interval_inverted`` when it ends before it starts, ``clip_length_invalid``, ``number_not_finite``.
    """
    if interval[0] > interval[1]:
        raise BadRecord("interval_inverted", f"found {interval[0]} to {interval[1]} seconds")
    return encode_vector(interval, (_clock(length),) * 2, numbers)


def decode_interval(ids: Sequence[int], length: float, numbers: NumberFormat) -> tuple[float, float]:
    """Inverse of :func:`encode_interval`, both ends within :func:`time_error`; it never ends before it starts.

    Raises:
        BadRecord: ``numbers_malformed``, ``interval_inverted``, ``clip_length_invalid``.
    """
    start, end = decode_vector(ids, (_clock(length),) * 2, numbers)
    if start > end:
        raise BadRecord("interval_inverted", f"found {start} to {end} seconds")
    return start, end


def time_error(length: float, numbers: NumberFormat) -> float:
    """Largest difference in seconds: with 1,000 location tokens 4 ms of a clip of 4.08 s, 60 ms of a minute."""
    return numbers.error(_clock(length))


def _clock(length: float) -> Range:
    if not (math.isfinite(length) and length > 0):
        raise BadRecord("clip_length_invalid", f"found {length} seconds")
    return Range(low=0.0, high=length)
