"""What agents sense and do: arm movements, picking and pushing on a table, steps through a house, positions.

Sizes follow Unified-IO 2 (arXiv 2312.17172, sections B.1 and D.10, and its released configuration). States and actions
of a dataset have a range per dimension (`omnimill.tokenizers.store.VectorRanges`) and are vectors of
`omnimill.tokenizers.sparse`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast, get_args

from omnimill.errors import BadRecord
from omnimill.locations import Range
from omnimill.tokenizers.number_format import NumberFormat, Numbers
from omnimill.tokenizers.sparse import decode_vector, encode_vector
from omnimill.tokenizers.text import TextTokenizer

# x and y in metres, rotation in degrees, of a pose on VIMA's table.
TABLE = (Range(low=0.25, high=0.75), Range(low=-0.5, high=0.5), Range(low=0.0, high=360.0))
# Metres in a house or a scene.
POSITION = Range(low=-50.0, high=50.0)


class ArmStep(NamedTuple):
    """A movement of an arm: change of position (x, y, z), change of rotation (three angles), gripper."""

    position: tuple[float, float, float]
    rotation: tuple[float, float, float]
    gripper: float


def encode_arm_step(step: ArmStep, ranges: Sequence[Range], numbers: NumberFormat) -> list[int]:
    """Seven numbers, in the order of the fields.

    Raises:
        BadRecord: ``vector_length`` when there are not seven ranges, ``number_not_finite``.
    """
    return encode_vector((*step.position, *step.rotation, step.gripper), ranges, numbers)


def decode_arm_step(ids: Sequence[int], ranges: Sequence[Range], numbers: NumberFormat) -> ArmStep:
    """Inverse of :func:`encode_arm_step`, within `numbers.error` of each range.

    Raises:
        BadRecord: ``numbers_malformed``.
    """
    x, y, z, a, b, c, gripper = decode_vector(ids, ranges, numbers)
    return ArmStep((x, y, z), (a, b, c), gripper)


class TablePose(NamedTuple):
    """x, y in metres, rotation in degrees."""

    x: float
    y: float
    rotation: float


TableAction = Literal["pick", "push"]
TABLE_STEPS: tuple[TableAction, ...] = get_args(TableAction)


class TableStep(NamedTuple):
    """Something done on a table, from one pose to another: picked and placed, or pushed."""

    kind: TableAction
    start: TablePose
    end: TablePose


_TOWARDS = {"pick": "place", "push": "to"}
_OPENING = re.compile(r"([1-9][0-9]*)\. (pick|push)")


def encode_table_steps(steps: Sequence[TableStep], numbers: NumberFormat) -> list[int]:
    """Numbered steps: ``1. pick POSE place POSE 2. push POSE to POSE``, each pose three numbers (ranges `TABLE`).

    Rotations are taken modulo 360 degrees.

    Raises:
        BadRecord: ``number_not_finite``.
    """
    parts: list[tuple[float, ...] | str] = []
    for i, step in enumerate(steps, 1):
        parts += [f"{i}. {step.kind}", _turned(step.start), _TOWARDS[step.kind], _turned(step.end)]
    return numbers.write(parts, TABLE)


def decode_table_steps(ids: Sequence[int], numbers: NumberFormat) -> list[TableStep]:
    """Inverse of :func:`encode_table_steps`, within `numbers.error` of each range of `TABLE`; rotations in a circle.

    Raises:
        BadRecord: ``numbers_malformed`` or ``steps_malformed``: the message says what was found.
    """
    parts = numbers.read(ids, TABLE)
    if len(parts) % 4:
        raise _malformed(f"{len(parts)} parts")
    steps = []
    for number, (opening, start, towards, end) in enumerate(zip(*(parts[i::4] for i in range(4)), strict=True), 1):
        read = _OPENING.fullmatch(opening) if isinstance(opening, str) else None
        if read is None or int(read[1]) != number or isinstance(start, str) or isinstance(end, str):
            raise _malformed(f"{(opening, start, end)} as step {number}")
        if towards != _TOWARDS[read[2]]:
            raise _malformed(f"{towards!r} after {read[2]}")
        steps.append(TableStep(cast(TableAction, read[2]), TablePose(*start), TablePose(*end)))
    return steps


def _turned(pose: TablePose) -> Numbers:
    return pose.x, pose.y, pose.rotation % 360.0


def _malformed(found: str) -> BadRecord:
    return BadRecord(
        "steps_malformed", f"found {found}; allowed: steps numbered from 1, pick POSE place POSE or push POSE to POSE"
    )


Move = Literal["forward", "left", "right", "stop"]
MOVES: tuple[Move, ...] = get_args(Move)


def encode_moves(moves: Sequence[Move], text: TextTokenizer) -> list[int]:
    """Steps of an agent that walks, in words."""
    return text.encode(" ".join(moves))


def decode_moves(ids: Sequence[int], text: TextTokenizer) -> list[Move]:
    """Inverse of :func:`encode_moves`, exact.

    Raises:
        BadRecord: ``moves_malformed``.
    """
    words = text.decode(ids).split(" ") if ids else []
    for word in words:
        if word not in MOVES:
            raise BadRecord("moves_malformed", f"found {word[:40]!r}; allowed: {', '.join(MOVES)}")
    return cast(list[Move], words)


def encode_position(position: tuple[float, float, float], numbers: NumberFormat) -> list[int]:
    """Where an agent is: x, y (up), z in metres, written in the reference's order x, z, y (range `POSITION`).

    Raises:
        BadRecord: ``number_not_finite``.
    """
    x, y, z = position
    return encode_vector((x, z, y), (POSITION,) * 3, numbers)


def decode_position(ids: Sequence[int], numbers: NumberFormat) -> tuple[float, float, float]:
    """Inverse of :func:`encode_position`, within `numbers.error(POSITION)`.

    Raises:
        BadRecord: ``numbers_malformed``.
    """
    x, z, y = decode_vector(ids, (POSITION,) * 3, numbers)
    return x, y, z


def encode_goal(goal: tuple[float, float], numbers: NumberFormat) -> list[int]:
    """A place on the ground to go to: two numbers (range `POSITION`).

    Raises:
        BadRecord: ``number_not_finite``.
    """
    return encode_vector(goal, (POSITION,) * 2, numbers)


def decode_goal(ids: Sequence[int], numbers: NumberFormat) -> tuple[float, float]:
    """Inverse of :func:`encode_goal`, within `numbers.error(POSITION)`.

    Raises:
        BadRecord: ``numbers_malformed``.
    """
    first, second = decode_vector(ids, (POSITION,) * 2, numbers)
    return first, second
