"""Keypoints of a person: for every part y, x and its name, or the word MISSING and its name.

Parts and their order are those of COCO, named as Unified-IO 2 names them (arXiv 2312.17172, section D.5 and its
released configuration).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from omnimill.body_parts import MISSING, PARTS
from omnimill.errors import BadRecord
from omnimill.locations import UNIT
from omnimill.tokenizers.number_format import NumberFormat
from omnimill.tokenizers.places import Frame

NOT_LABELLED, OCCLUDED, VISIBLE = 0, 1, 2

_WORDS = re.compile(rf" *({MISSING}|{'|'.join(PARTS)})(?= |$)")
_POINT = (UNIT, UNIT)


class Keypoint(NamedTuple):
    """Where a part is, in shares of its picture. visibility: COCO's 0 not labelled, 1 occluded, 2 visible."""

    y: float
    x: float
    visibility: int = VISIBLE


def encode_keypoints(
    points: Sequence[Keypoint], frame: Frame, numbers: NumberFormat, visible_from: int = OCCLUDED
) -> list[int]:
    """The 17 parts of a person.

    Args:
        points: one per part, in the order of `PARTS`.
        frame: the picture.
        numbers: how coordinates are written.
        visible_from: parts of a lower visibility are MISSING. The reference does not say whether occluded parts are;
            by default they are written.

    Raises:
        BadRecord: ``keypoints_invalid`` when there are not 17, ``number_not_finite``.
    """
    if len(points) != len(PARTS):
        raise BadRecord("keypoints_invalid", f"found {len(points)} keypoints; allowed: {len(PARTS)}")
    parts: list[list[float] | str] = []
    for name, point in zip(PARTS, points, strict=True):
        if point.visibility < visible_from:
            parts.append(f"{MISSING} {name}")
        else:
            parts += [frame.to_canvas((point.y, point.x)), name]
    return numbers.write(parts, _POINT)


def decode_keypoints(ids: Sequence[int], frame: Frame, numbers: NumberFormat) -> list[Keypoint]:
    """Inverse of :func:`encode_keypoints`, within :meth:`Frame.error`.

    A part that was written is VISIBLE, a MISSING one is NOT_LABELLED at 0, 0.

    Raises:
        BadRecord: ``numbers_malformed`` or ``keypoints_malformed``: the message says what was found.
    """
    found: dict[str, Keypoint] = {}
    waiting: Keypoint | None = None
    for token in _tokens(ids, numbers):
        if isinstance(token, tuple) or token == MISSING:
            if waiting is not None:
                raise _malformed(f"no part's name behind the coordinates of part {len(found) + 1}")
            y, x = frame.to_picture(token) if isinstance(token, tuple) else (0.0, 0.0)
            waiting = Keypoint(y, x, VISIBLE if isinstance(token, tuple) else NOT_LABELLED)
        elif waiting is None:
            raise _malformed(f"{token!r} without coordinates or {MISSING} before it")
        elif token in found:
            raise _malformed(f"{token!r} twice")
        else:
            found[token], waiting = waiting, None
    if waiting is not None:
        raise _malformed("coordinates at the end")
    if len(found) != len(PARTS):
        raise _malformed(f"{len(found)} parts")
    return [found[name] for name in PARTS]


def _tokens(ids: Sequence[int], numbers: NumberFormat) -> list[tuple[float, ...] | str]:
    """Coordinates, the word MISSING and names of parts, in their order."""
    tokens: list[tuple[float, ...] | str] = []
    for part in numbers.read(ids, _POINT):
        if not isinstance(part, str):
            tokens.append(part)
            continue
        end = 0
        while end < len(part):
            word = _WORDS.match(part, end)
            if word is None:
                raise _malformed(repr(part[end : end + 40].strip()))
            tokens.append(word[1])
            end = word.end()
    return tokens


def _malformed(found: str) -> BadRecord:
    return BadRecord(
        "keypoints_malformed",
        f"found {found}; allowed: each of {len(PARTS)} parts once, as y, x and its name or {MISSING} and its name",
    )
