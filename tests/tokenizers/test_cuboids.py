"""Boxes in space: twelve numbers and back, the rotation in six numbers, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import BadRecord
from omnimill.locations import SINE
from omnimill.tokenizers import cuboids
from omnimill.tokenizers.cuboids import Camera, Cuboid, CuboidLayout, Region
from omnimill.tokenizers.number_format import LocationFormat, NumberFormat
from omnimill.tokenizers.sparse import decode_vector, encode_vector
from omnimill.tokenizers.text import TextTokenizer

quaternions = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(c * c for c in q) > 1e-2)
CAMERA = Camera(focal=600.0, centre=(320.0, 240.0), height=480.0)
UPRIGHT = np.eye(3)


def rotation(quaternion: tuple[float, ...]) -> cuboids.Matrix:
    w, x, y, z = np.array(quaternion) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def angle_between(a: cuboids.Matrix, b: cuboids.Matrix) -> float:
    """Radians of the rotation from one to the other, exact also where it is small."""
    return 2 * math.asin(min(float(np.linalg.norm(a - b)) / (2 * math.sqrt(2)), 1.0))


@given(quaternions)
@settings(max_examples=100)
def test_six_numbers_are_a_rotation(quaternion: tuple[float, ...]) -> None:
    told = rotation(quaternion)
    np.testing.assert_allclose(cuboids.six_to_rotation(cuboids.rotation_to_six(told)), told, atol=1e-12)


@given(quaternions)
@settings(max_examples=100)
def test_a_rotation_comes_back_within_its_error(numbers: NumberFormat, quaternion: tuple[float, ...]) -> None:
    told = rotation(quaternion)
    ids = encode_vector(cuboids.rotation_to_six(told), (SINE,) * 6, numbers)
    back = cuboids.six_to_rotation(decode_vector(ids, (SINE,) * 6, numbers))
    np.testing.assert_allclose(back.T @ back, np.eye(3), atol=1e-9)
    error = cuboids.cuboid_error(Region(0, 0, 10, 10), CAMERA, numbers).allocentric
    assert angle_between(back, told) <= error
    assert error < math.radians(0.6)


@given(
    quaternion=quaternions,
    u=st.floats(-0.1, 1.1),
    v=st.floats(-0.1, 1.1),
    depth=st.floats(0.5, 80),
    size=st.tuples(*[st.floats(0.01, 100)] * 3),
    region=st.builds(Region, st.floats(0, 200), st.floats(0, 300), st.floats(210, 480), st.floats(310, 640)),
)
@settings(max_examples=100)
def test_cuboids_come_back_within_their_error(
    numbers: NumberFormat,
    quaternion: tuple[float, ...],
    u: float,
    v: float,
    depth: float,
    size: tuple[float, float, float],
    region: Region,
) -> None:
    column, row = region.x1 + u * (region.x2 - region.x1), region.y1 + v * (region.y2 - region.y1)
    x, y, z = (float(c) for c in CAMERA.ray(column, row) * depth)
    told = Cuboid((x, y, z), size, rotation(quaternion))
    back = cuboids.decode_cuboid(cuboids.encode_cuboid(told, region, CAMERA, numbers), region, CAMERA, numbers)
    error = cuboids.cuboid_error(region, CAMERA, numbers)
    assert abs(back.centre[2] - z) <= error.depth + 1e-7
    found = [CAMERA.focal * back.centre[i] / back.centre[2] + CAMERA.centre[i] for i in (0, 1)]
    assert abs(found[0] - column) <= error.column + 1e-6
    assert abs(found[1] - row) <= error.row + 1e-6
    for a, b in zip(back.size, size, strict=True):
        assert b / error.size / (1 + 1e-9) <= a <= b * error.size * (1 + 1e-9)
    assert angle_between(back.rotation, told.rotation) <= error.rotation + 1e-9


def test_twelve_numbers_by_hand(text: TextTokenizer) -> None:
    # On the optical axis the allocentric rotation is the rotation, and the virtual camera is this one.
    layout = CuboidLayout(focal=600.0, height=480.0)
    told = Cuboid((0.0, 0.0, 10.0), (1.0, 100.0, 0.01), UPRIGHT)
    ids = cuboids.encode_cuboid(told, Region(140, 220, 340, 420), CAMERA, LocationFormat(text), layout)
    bins = [text.vocabulary.location_bin(token) for token in ids]
    assert bins == [499, 499, 99, 499, 999, 0, 999, 499, 499, 499, 999, 499]


def test_what_looks_alike_has_one_rotation(numbers: NumberFormat) -> None:
    """An object that is carried round the camera, always showing it the same side, keeps its six numbers."""
    rotations = set()
    for turn in np.linspace(-0.4, 0.4, 5):
        yaw = np.array([[math.cos(turn), 0, math.sin(turn)], [0, 1, 0], [-math.sin(turn), 0, math.cos(turn)]])
        x, y, z = (float(c) for c in yaw @ np.array([0.0, 0.0, 5.0]))
        cuboid = Cuboid((x, y, z), (1.0, 1.0, 1.0), yaw @ rotation((0.9, 0.2, 0.3, 0.1)))
        ids = cuboids.encode_cuboid(cuboid, Region(0, 0, 480, 640), CAMERA, numbers)
        values = decode_vector(ids, CuboidLayout().ranges, numbers)
        rotations.add(tuple(round(value, 2) for value in values[6:]))
    assert len(rotations) == 1


@pytest.mark.parametrize(
    ("cuboid", "reason"),
    [
        (Cuboid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), UPRIGHT), "cuboid_behind_camera"),
        (Cuboid((0.0, 0.0, 1.0), (1.0, 0.0, 1.0), UPRIGHT), "cuboid_size_invalid"),
        (Cuboid((0.0, 0.0, 1.0), (1.0, 1.0, 1.0), -UPRIGHT), "rotation_invalid"),
        (Cuboid((0.0, 0.0, 1.0), (1.0, 1.0, 1.0), 2 * UPRIGHT), "rotation_invalid"),
        (Cuboid((0.0, 0.0, 1.0), (1.0, 1.0, 1.0), np.full((3, 3), math.nan)), "rotation_invalid"),
        (Cuboid((0.0, 0.0, math.inf), (1.0, 1.0, 1.0), UPRIGHT), "number_not_finite"),
        (Cuboid((0.0, 0.0, 1.0), (1.0, math.inf, 1.0), UPRIGHT), "number_not_finite"),
    ],
)
def test_what_is_no_cuboid_is_refused(numbers: NumberFormat, cuboid: Cuboid, reason: str) -> None:
    with pytest.raises(BadRecord) as caught:
        cuboids.encode_cuboid(cuboid, Region(0, 0, 10, 10), CAMERA, numbers)
    assert caught.value.reason == reason


def test_what_spans_no_rotation_is_refused() -> None:
    with pytest.raises(BadRecord) as caught:
        Region(0, 0, 0, 10)
    assert caught.value.reason == "region_empty"
    for six in ((0.0,) * 6, (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)):
        with pytest.raises(BadRecord) as caught:
            cuboids.six_to_rotation(six)
        assert caught.value.reason == "rotation_invalid"
