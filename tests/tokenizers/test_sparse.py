"""Vectors, cameras, places, keypoints, boxes in space, what agents do and time stamps come back within their error."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill import locations
from omnimill.errors import BadRecord
from omnimill.locations import UNIT, Range
from omnimill.tokenizers import box_variants, embodied, keypoints, places, sparse, timestamps
from omnimill.tokenizers.embodied import ArmStep, TablePose, TableStep
from omnimill.tokenizers.keypoints import Keypoint
from omnimill.tokenizers.number_format import LocationFormat, NumberFormat
from omnimill.tokenizers.places import Box, Frame
from omnimill.tokenizers.text import TextTokenizer

unit = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 1 / 999, 0.5]))
frames = st.builds(Frame, st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([64, 256, 384]))
labels = st.text("abc é中.[]<>", max_size=8)
boxes = st.tuples(unit, unit, unit, unit).map(
    lambda n: Box(min(n[0], n[2]), min(n[1], n[3]), max(n[0], n[2]), max(n[1], n[3]))
)
angle = st.floats(-math.pi, math.pi)
ROUNDING = 1e-8


def near(found: float, told: float, error: float) -> bool:
    return abs(found - told) <= error + ROUNDING


def test_vectors_need_their_ranges(numbers: NumberFormat) -> None:
    with pytest.raises(BadRecord) as caught:
        sparse.encode_vector([1.0, 2.0], [UNIT], numbers)
    assert caught.value.reason == "vector_length"
    for ids in ([], numbers.write([(0.5,), (0.5,)], (UNIT,)), numbers.write([(0.5,), "dog"], (UNIT,))):
        with pytest.raises(BadRecord) as caught:
            sparse.decode_vector(ids, [UNIT], numbers)
        assert caught.value.reason == "numbers_malformed"


cameras = st.tuples(st.floats(0, math.pi), angle, st.floats(0.1, 0.8))


@given(reference=cameras, pose=cameras)
@settings(max_examples=60)
def test_cameras(
    numbers: NumberFormat, reference: tuple[float, float, float], pose: tuple[float, float, float]
) -> None:
    first, view = locations.spherical_views([reference, pose])
    found = sparse.decode_camera(sparse.encode_camera(view, first, numbers), numbers)
    error = sparse.camera_error(numbers)
    assert near(found.theta, pose[0] - reference[0], error.theta)
    assert abs(math.remainder(found.phi - (pose[1] - reference[1]), math.tau)) <= error.phi + ROUNDING
    assert near(found.radius, pose[2] - reference[2], error.radius)


def test_a_camera_has_the_bins_that_its_view_stores(text: TextTokenizer) -> None:
    views = locations.spherical_views([(1.0, 0.0, 2.0), (1.2, 0.5, 2.5), (2.0, -3.0, 1.9)])
    for view in views:
        ids = sparse.encode_camera(view, views[0], LocationFormat(text))
        assert [text.vocabulary.location_bin(token) for token in ids] == view.bins
    error = sparse.camera_error(LocationFormat(text))
    assert [round(value, 4) for value in error] == [0.0063, 0.0028, 0.0014]


def test_boxes_are_placed_on_the_padded_canvas(text: TextTokenizer) -> None:
    # 60 x 100 on 384: scale 3.84, 230 rows, 77 rows of padding above.
    frame = Frame(60, 100, 384)
    np.testing.assert_allclose(
        frame.to_canvas([0.1, 0.2, 0.6, 0.9]), [(77 + 23.04) / 384, 0.2, (77 + 138.24) / 384, 0.9]
    )
    ids = places.encode_boxes([(Box(0.0, 0.0, 1.0, 1.0), "")], frame, LocationFormat(text))
    assert [text.vocabulary.location_bin(token) for token in ids] == [200, 0, 799, 999]
    assert ids == places.encode_points([0.0, 0.0, 1.0, 1.0], frame, LocationFormat(text))


@given(found=st.lists(st.tuples(boxes, labels), max_size=4), frame=frames)
@settings(max_examples=60)
def test_labelled_boxes(numbers: NumberFormat, found: list[tuple[Box, str]], frame: Frame) -> None:
    back = places.decode_boxes(places.encode_boxes(found, frame, numbers), frame, numbers)
    assert [label for _, label in back] == [label for _, label in found]
    for (told, _), (box, _) in zip(found, back, strict=True):
        assert all(near(a, b, frame.error(numbers)[i % 2]) for i, (a, b) in enumerate(zip(box, told, strict=True)))
        assert box.y1 <= box.y2
        assert box.x1 <= box.x2


@given(groups=st.lists(st.tuples(st.lists(st.tuples(unit, unit), min_size=1, max_size=3), labels), max_size=3))
@settings(max_examples=60)
def test_labelled_points(numbers: NumberFormat, groups: list[tuple[list[tuple[float, float]], str]]) -> None:
    frame = Frame(480, 640, 384)
    groups = [(points, label or "x") for points, label in groups]
    ids = [
        token
        for points, label in groups
        for token in places.encode_points([c for point in points for c in point], frame, numbers, label)
    ]
    found = places.decode_points(ids, frame, numbers)
    assert [(len(points), label) for points, label in found] == [(2 * len(points), label) for points, label in groups]
    for (points, _), (told, _) in zip(found, groups, strict=True):
        flat = [c for point in told for c in point]
        assert all(near(a, b, frame.error(numbers)[i % 2]) for i, (a, b) in enumerate(zip(points, flat, strict=True)))


@given(box=boxes, frame=frames, form=st.sampled_from(box_variants.BOX_FORMATS))
@settings(max_examples=60)
def test_other_ways_to_write_a_box(numbers: NumberFormat, box: Box, frame: Frame, form: str) -> None:
    back = box_variants.decode_box(box_variants.encode_form(box, form, frame, numbers), form, frame, numbers)
    assert all(near(a, b, 2 * frame.error(numbers)[i % 2]) for i, (a, b) in enumerate(zip(back, box, strict=True)))


@given(box=boxes, frame=frames, name=st.sampled_from(box_variants.BOX_PROPERTIES))
@settings(max_examples=60)
def test_properties_of_a_box(numbers: NumberFormat, box: Box, frame: Frame, name: str) -> None:
    told = box_variants.box_property(box, name, frame)
    back = box_variants.decode_property(box_variants.encode_form(box, name, frame, numbers), name, numbers)
    assert all(near(a, b, numbers.error(UNIT)) for a, b in zip(back, told, strict=True))


def test_properties_by_hand() -> None:
    box, frame = Box(0.0, 0.5, 0.5, 1.0), Frame(100, 100, 256)
    told = {name: box_variants.box_property(box, name, frame) for name in ("area", "centre", "distance_to_left")}
    assert told == {"area": (0.25,), "centre": (0.25, 0.75), "distance_to_left": (0.5,)}


def test_boxes_that_are_none_are_refused(numbers: NumberFormat) -> None:
    frame = Frame(10, 10, 64)
    for box in (Box(0.5, 0.0, 0.4, 1.0), Box(0.0, 0.5, 1.0, 0.4)):
        with pytest.raises(BadRecord, match="found y"):
            places.encode_boxes([(box, "dog")], frame, numbers)
    with pytest.raises(BadRecord, match="'dog' first"):
        places.decode_boxes(numbers.write(["dog", (0.1, 0.1, 0.2, 0.2)], (UNIT,) * 4), frame, numbers)
    with pytest.raises(BadRecord) as caught:
        places.encode_points([0.1, 0.2, 0.3], frame, numbers)
    assert caught.value.reason == "vector_length"


def test_the_order_of_boxes_is_drawn_from_its_keys() -> None:
    found = list(range(20))
    orders = [places.shuffled(found, "example", epoch) for epoch in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == found for order in orders)


@given(
    points=st.lists(st.tuples(unit, unit, st.integers(0, 2)), min_size=17, max_size=17), least=st.sampled_from([1, 2])
)
@settings(max_examples=40)
def test_keypoints(numbers: NumberFormat, points: list[tuple[float, float, int]], least: int) -> None:
    frame = Frame(300, 200, 384)
    told = [Keypoint(*point) for point in points]
    back = keypoints.decode_keypoints(keypoints.encode_keypoints(told, frame, numbers, least), frame, numbers)
    for a, b in zip(back, told, strict=True):
        if b.visibility < least:
            assert a == Keypoint(0.0, 0.0, keypoints.NOT_LABELLED)
        else:
            assert a.visibility == keypoints.VISIBLE
            assert near(a.y, b.y, frame.error(numbers)[0])
            assert near(a.x, b.x, frame.error(numbers)[1])


def test_keypoints_read_as_published(text: TextTokenizer) -> None:
    points = [Keypoint(0.0, 1.0)] + [Keypoint(0.0, 0.0, keypoints.NOT_LABELLED)] * 16
    ids = keypoints.encode_keypoints(points, Frame(100, 100, 384), LocationFormat(text))
    assert text.decode(ids).startswith("<extra_id_200> <extra_id_1199> nose MISSING left eye MISSING right eye")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda parts: parts[1:], "'nose' without coordinates"),
        (lambda parts: parts[:-1], "coordinates at the end"),
        (lambda parts: parts[:-2], "16 parts"),
        (lambda parts: [*parts, "MISSING nose"], "'nose' twice"),
        (lambda parts: [*parts, "tail"], "'tail'"),
        (lambda parts: [parts[0], *parts], "no part's name"),
        (lambda parts: [*parts, "MISSING"], "coordinates at the end"),
        (lambda parts: [*parts[:-1], "right anklet"], "'right anklet'"),
    ],
)
def test_malformed_keypoints_are_refused(numbers: NumberFormat, change: object, found: str) -> None:
    parts = [part for name in keypoints.PARTS for part in ((0.5, 0.5), name)]
    with pytest.raises(BadRecord, match="each of 17 parts once") as caught:
        keypoints.decode_keypoints(
            numbers.write(change(parts), (UNIT, UNIT)),  # type: ignore[operator]
            Frame(9, 9, 64),
            numbers,
        )
    assert found in caught.value.message


@given(st.lists(st.floats(-0.1, 0.1), min_size=7, max_size=7))
@settings(max_examples=30)
def test_arm_steps(numbers: NumberFormat, values: list[float]) -> None:
    within = [Range(low=-0.05, high=0.05)] * 3 + [Range(low=-0.1, high=0.1)] * 3 + [Range(low=0.0, high=1.0)]
    step = ArmStep((values[0], values[1], values[2]), (values[3], values[4], values[5]), values[6])
    back = embodied.decode_arm_step(embodied.encode_arm_step(step, within, numbers), within, numbers)
    for value, found, r in zip(values, (*back.position, *back.rotation, back.gripper), within, strict=True):
        assert near(found, min(max(value, r.low), r.high), numbers.error(r))


poses = st.builds(TablePose, st.floats(0.25, 0.75), st.floats(-0.5, 0.5), st.floats(-720, 720))
steps = st.builds(TableStep, st.sampled_from(["pick", "push"]), poses, poses)


@given(st.lists(steps, max_size=3))
@settings(max_examples=40)
def test_table_steps(numbers: NumberFormat, told: list[TableStep]) -> None:
    back = embodied.decode_table_steps(embodied.encode_table_steps(told, numbers), numbers)
    assert [step.kind for step in back] == [step.kind for step in told]
    errors = [numbers.error(r) + ROUNDING for r in embodied.TABLE]
    for pose, found in [
        (a, b) for t, f in zip(told, back, strict=True) for a, b in ((t.start, f.start), (t.end, f.end))
    ]:
        assert abs(found.x - pose.x) <= errors[0]
        assert abs(found.y - pose.y) <= errors[1]
        assert abs(math.remainder(found.rotation - pose.rotation, 360.0)) <= errors[2]


def test_table_steps_read_as_numbered_steps_and_others_are_refused(text: TextTokenizer, numbers: NumberFormat) -> None:
    pose = TablePose(0.25, -0.5, 0.0)
    steps = [TableStep("pick", pose, pose), TableStep("push", pose, pose)]
    low = "<extra_id_200> <extra_id_200> <extra_id_200>"
    read = text.decode(embodied.encode_table_steps(steps, LocationFormat(text)))
    assert read == f"1. pick {low} place {low} 2. push {low} to {low}"
    p = tuple(pose)
    for parts in (
        ["1. pick", p, "place"],
        ["2. pick", p, "place", p],
        ["1. drop", p, "place", p],
        ["1. pick", p, "to", p],
        [p, "pick", p, "place"],
    ):
        with pytest.raises(BadRecord, match="numbered from 1"):
            embodied.decode_table_steps(numbers.write(parts, embodied.TABLE), numbers)


@given(st.lists(st.sampled_from(embodied.MOVES), max_size=9))
@settings(max_examples=20)
def test_moves(text: TextTokenizer, moves: list[embodied.Move]) -> None:
    assert embodied.decode_moves(embodied.encode_moves(moves, text), text) == moves
    with pytest.raises(BadRecord, match="found 'jump'; allowed: forward, left, right, stop"):
        embodied.decode_moves(text.encode("left jump"), text)


@given(st.tuples(*[st.floats(-60, 60)] * 3))
@settings(max_examples=20)
def test_positions_and_goals(numbers: NumberFormat, position: tuple[float, float, float]) -> None:
    error = numbers.error(embodied.POSITION)
    told = [min(max(value, -50.0), 50.0) for value in position]
    back = embodied.decode_position(embodied.encode_position(position, numbers), numbers)
    assert all(near(a, b, error) for a, b in zip(back, told, strict=True))
    goal = embodied.decode_goal(embodied.encode_goal(position[:2], numbers), numbers)
    assert all(near(a, b, error) for a, b in zip(goal, told[:2], strict=True))


def test_a_position_is_written_x_z_y(text: TextTokenizer) -> None:
    ids = embodied.encode_position((-50.0, 0.0, 50.0), LocationFormat(text))
    assert [text.vocabulary.location_bin(token) for token in ids] == [0, 999, 499]


@given(st.floats(1e-3, 1e5), unit, unit)
@settings(max_examples=60)
def test_times_and_intervals(numbers: NumberFormat, length: float, first: float, second: float) -> None:
    start, end = sorted((first * length, second * length))
    error = timestamps.time_error(length, numbers) + 1e-9 * length
    assert abs(timestamps.decode_time(timestamps.encode_time(start, length, numbers), length, numbers) - start) <= error
    back = timestamps.decode_interval(timestamps.encode_interval((start, end), length, numbers), length, numbers)
    assert abs(back[0] - start) <= error
    assert abs(back[1] - end) <= error
    assert 0 <= back[0] <= back[1] <= length + error


def test_times_that_are_none_are_refused(numbers: NumberFormat) -> None:
    for length in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(BadRecord) as caught:
            timestamps.encode_time(0.0, length, numbers)
        assert caught.value.reason == "clip_length_invalid"
    with pytest.raises(BadRecord) as caught:
        timestamps.encode_interval((2.0, 1.0), 4.08, numbers)
    assert caught.value.reason == "interval_inverted"
    with pytest.raises(BadRecord) as caught:
        timestamps.decode_interval(numbers.write([(3.0, 1.0)], [Range(low=0, high=4)] * 2), 4.0, numbers)
    assert caught.value.reason == "interval_inverted"
    with pytest.raises(BadRecord) as caught:
        timestamps.encode_time(math.nan, 4.08, numbers)
    assert caught.value.reason == "number_not_finite"


def test_golden_location_and_box_tokens(parity: Path, text: TextTokenizer) -> None:
    file = parity / "tokenizer" / "location_tokens.json"
    if not file.exists():
        return
    vocabulary = text.vocabulary
    golden = json.loads(file.read_text())
    for value, token, back in zip(golden["values"], golden["tokens"], golden["roundtrip"], strict=True):
        found = locations.to_bin(value, locations.UNIT)
        assert vocabulary.surface(vocabulary.location(found)) == token
        assert locations.from_bin(found, locations.UNIT) == pytest.approx(back)
    for token, value in golden["token_id_to_float"].items():
        shifted = int(token) - 32000 + vocabulary.pieces
        assert locations.from_bin(vocabulary.location_bin(shifted), UNIT) == pytest.approx(value)
    pictures = np.load(parity / "12_preprocess_image.npz")
    for name in ("landscape", "portrait", "big", "square"):
        height, width = pictures[f"{name}/in/image_u8"].shape[:2]
        found_boxes, tokens = pictures[f"{name}/in/boxes_yxyx_px"], pictures[f"{name}/out/box_tokens"]
        for box, expected in zip(found_boxes.astype(float), tokens, strict=True):
            shares = Box(box[0] / height, box[1] / width, box[2] / height, box[3] / width)
            ids = places.encode_boxes([(shares, "")], Frame(height, width, 384), LocationFormat(text))
            assert text.decode(ids) == expected
