"""Boxes, poses, cuboids and vectors: against pycocotools, OpenCV and by hand, and what holds for any."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from omnimill.locations import UNIT, Range
from omnimill.tokenizers.cuboids import Cuboid
from omnimill.tokenizers.places import Box
from omnimill.tokenizers.sparse import CameraChange
from omnimill.training.metrics.average_precision import COCO_THRESHOLDS, mean_precision
from omnimill.training.metrics.boxes import (
    Finding,
    assignment_score,
    box_ious,
    boxes_in_order,
    compared,
    detection,
    single_box,
    spotting,
    tracking,
    without_repeated,
)
from omnimill.training.metrics.cuboids import cuboid_detection, cuboid_iou
from omnimill.training.metrics.keypoints import Person, keypoint_similarities, pose_detection, single_pose
from omnimill.training.metrics.vectors import Vector, camera_errors, vector_accuracy

SHARES = st.floats(0, 1, width=32)
BOXES = st.builds(lambda y, x, h, w: Box(y, x, y + h, x + w), SHARES, SHARES, SHARES, SHARES)
LISTS = st.lists(st.builds(Finding, BOXES, st.sampled_from("ab"), st.sampled_from((0.2, 0.5, 1.0))), max_size=4)


def turn(angles: tuple[float, float, float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    rotation, _ = cv2.Rodrigues(np.array(angles, np.float64))
    return np.asarray(rotation, np.float64)


CUBOIDS = st.builds(
    lambda centre, size, angles: Cuboid(centre, size, turn(angles)),
    st.tuples(*[st.floats(-1, 1)] * 3),
    st.tuples(*[st.floats(0.2, 2)] * 3),
    st.tuples(*[st.floats(-1.5, 1.5)] * 3),
)


# --- boxes ---


def test_overlaps_of_boxes_by_hand() -> None:
    quarter, half, empty = Box(0, 0, 0.5, 0.5), Box(0, 0, 0.5, 1), Box(0.2, 0.2, 0.2, 0.9)
    assert box_ious([quarter, empty], [half, quarter, empty]).tolist() == [[0.5, 1, 0], [0, 0, 0]]
    assert box_ious([], [half]).shape == (0, 1)


@given(BOXES, BOXES)
def test_overlap_of_boxes_is_symmetric_and_at_most_that_with_itself(one: Box, other: Box) -> None:
    assert box_ious([one], [other]) == box_ious([other], [one])
    assert 0 <= box_ious([one], [other])[0, 0] <= 1 + 1e-12


def test_a_single_box_is_judged_by_the_closest_reference_and_unread_is_wrong() -> None:
    whole, half = Box(0, 0, 1, 1), Box(0, 0, 1, 0.5)
    found = single_box([half, half, None], [[whole, half], [whole], [whole]])
    # Half of the whole overlaps by exactly 0.5, which is not above it.
    assert found == {"acc_50": pytest.approx(1 / 3), "mean_iou": pytest.approx(0.5)}
    followed = tracking([half, half, None], [[half], [whole], [whole]])
    curve = [np.mean([t < overlap for overlap in (1, 0.5, 0)]) for t in np.linspace(0, 1, 21)]
    assert followed == {
        "mean_iou": pytest.approx(0.5),
        "success_50": pytest.approx(1 / 3),
        "success_auc": pytest.approx(np.mean(curve)),
    }


def test_boxes_in_order_are_compared_in_their_places() -> None:
    left, right = Finding(Box(0, 0, 1, 0.5)), Finding(Box(0, 0.5, 1, 1))
    assert boxes_in_order([[left, right]], [[left, right]]) == {"acc_50": 1.0, "mean_iou": 1.0}
    assert boxes_in_order([[right, left]], [[left, right]])["acc_50"] == 0.0
    assert boxes_in_order([[left], None, [left, right]], [[left, right], [left], [left]])["acc_50"] == pytest.approx(
        2 / 5
    )


def coco_figures(kind: str, pictures: list[Any], found: list[Any], names: list[str]) -> Any:
    """AP, AP50 and AP75 of pycocotools, of annotations and results in its format."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(len(pictures))],
            "categories": [{"id": i} for i in range(len(names))],
            "annotations": [
                {"id": 1 + 100 * image + k, "image_id": image, "iscrowd": 0, **one}
                for image, ones in enumerate(pictures)
                for k, one in enumerate(ones)
            ],
        }
        truth.createIndex()
        results = [{"image_id": image, **one} for image, ones in enumerate(found) for one in ones]
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        if kind == "keypoints":
            evaluation.params.maxDets = [20]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_threshold = [np.mean(one[one > -1]) for one in precision]
    return np.mean(per_threshold), per_threshold[0], per_threshold[5]


def test_average_precision_of_boxes_is_that_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    names = ["a", "b", "c"]
    wanted, found = [], []
    for _ in range(30):
        corner, side = rng.uniform(0, 60, (5, 2)), rng.uniform(5, 40, (5, 2))
        labels = rng.integers(0, 3, 5)
        wanted.append([(np.r_[c, s], names[k]) for c, s, k in zip(corner, side, labels, strict=True)])
        moved = [(box + rng.normal(0, 1.0, 4), label) for box, label in wanted[-1] if rng.random() < 0.8]
        made = [(np.r_[rng.uniform(0, 60, 2), rng.uniform(5, 40, 2)], names[rng.integers(0, 3)]) for _ in range(3)]
        found.append([(box, label, rng.random()) for box, label in moved + made])

    def box(xywh: Any) -> Box:
        x, y, w, h = (float(value) / 100 for value in xywh)
        return Box(y, x, y + h, x + w)

    ours = detection(
        [[Finding(box(b), label, score) for b, label, score in ones] for ones in found],
        [[Finding(box(b), label) for b, label in ones] for ones in wanted],
    )
    theirs = coco_figures(
        "bbox",
        [
            [{"bbox": b.tolist(), "area": b[2] * b[3], "category_id": names.index(k)} for b, k in ones]
            for ones in wanted
        ],
        [[{"bbox": b.tolist(), "score": s, "category_id": names.index(k)} for b, k, s in ones] for ones in found],
        names,
    )
    assert [ours["ap"], ours["ap_50"], ours["ap_75"]] == pytest.approx(theirs, abs=1e-12)
    assert 0.2 < theirs[0] < theirs[1] < 1


def test_an_object_can_be_found_once_and_classes_that_no_picture_has_are_not_judged() -> None:
    dog, cat = Finding(Box(0, 0, 1, 0.5), "Dog"), Finding(Box(0, 0.5, 1, 1), "cat")
    twice = detection([[dog, dog, cat]], [[Finding(dog.shape, "dog ")]])
    # One PR point: recall 1, precision 1/2.
    assert twice == {"ap": 0.5, "ap_50": 0.5, "ap_75": 0.5, "localisation": pytest.approx(1 / 3)}


def test_detection_without_findings_or_references() -> None:
    dog = Finding(Box(0, 0, 1, 0.5), "dog")
    assert detection([None, []], [[dog], [dog]]) == {"ap": 0.0, "ap_50": 0.0, "ap_75": 0.0, "localisation": 0.0}
    assert detection([[], [dog]], [[], []]) == {"ap": None, "ap_50": None, "ap_75": None, "localisation": 0.5}


@settings(max_examples=40)
@given(st.lists(st.tuples(LISTS, LISTS), max_size=4))
def test_detection_knows_no_order_of_pictures_and_is_best_when_perfect(pictures: list[Any]) -> None:
    found, wanted = [one for one, _ in pictures], [one for _, one in pictures]
    one_way = mean_precision(compared(found, wanted, box_ious), COCO_THRESHOLDS)
    other_way = mean_precision(compared(found[::-1], wanted[::-1], box_ious), COCO_THRESHOLDS)
    assert (one_way is None) == (other_way is None)
    if one_way is not None and other_way is not None:
        np.testing.assert_allclose(one_way, other_way, atol=1e-12)
        assert (one_way >= 0).all() and (one_way <= 1).all()
    whole = [[one for one in ones if box_ious([one.shape], [one.shape])[0, 0] > 0.5] for ones in wanted]
    perfect = detection(whole, whole)
    assert perfect["ap"] in (None, pytest.approx(1.0))
    assert perfect["localisation"] in (None, pytest.approx(1.0))


def test_grits_assignment_takes_the_best_pairs_and_counts_what_is_missed_and_too_much() -> None:
    # The greedy choice 0.9 would leave 0; together 0.8 + 0.7 is best. One reference is missed.
    assert assignment_score(np.array([[0.9, 0.8, 0.0], [0.7, 0.0, 0.0]])) == pytest.approx(1.5 / 3)
    assert assignment_score(np.zeros((2, 1))) == 0.0
    assert assignment_score(np.zeros((0, 0))) == 1.0


def test_words_count_when_box_and_text_are_right() -> None:
    exit_, door = Finding(Box(0, 0, 1, 0.5), "EXIT"), Finding(Box(0, 0.5, 1, 1), "door")
    read = [Finding(exit_.shape, "exit"), Finding(door.shape, "dour"), Finding(Box(0, 0, 0.1, 0.1), "x")]
    found = spotting([read, None], [[exit_, door], [door]])
    assert found == {
        "box_precision": 2 / 3,
        "box_recall": 2 / 3,
        "box_f1": 2 / 3,
        "word_precision": 1 / 3,
        "word_recall": 1 / 3,
        "word_f1": 1 / 3,
    }


# --- poses ---


def people(seed: int, count: int) -> list[Person]:
    rng = np.random.default_rng(seed)
    points = np.dstack([rng.uniform(0, 100, (count, 17, 2)), rng.choice([0, 1, 2], (count, 17), p=[0.2, 0.2, 0.6])])
    return [Person(one, float(rng.uniform(500, 4000))) for one in points]


def test_average_precision_of_poses_is_that_of_pycocotools() -> None:
    rng = np.random.default_rng(1)
    wanted = [people(i, 3) for i in range(12)]
    found = [
        [
            Finding(
                Person(one.points + np.c_[rng.normal(0, 1 + 2 * k, (17, 2)), np.zeros(17)]), "", float(rng.random())
            )
            for k, one in enumerate(ones)
        ]
        for ones in wanted
    ]

    def flat(person: Person) -> list[float]:
        return [float(value) for y, x, seen in person.points for value in (x, y, seen)]

    ours = pose_detection(found, [[Finding(one) for one in ones] for ones in wanted])
    theirs = coco_figures(
        "keypoints",
        [
            [
                {
                    "keypoints": flat(one),
                    "num_keypoints": int((one.points[:, 2] > 0).sum()),
                    "area": one.area,
                    "bbox": [0, 0, 100, 100],
                    "category_id": 0,
                }
                for one in ones
            ]
            for ones in wanted
        ],
        [[{"keypoints": flat(one.shape), "score": one.confidence, "category_id": 0} for one in ones] for ones in found],
        ["person"],
    )
    assert [ours["ap"], ours["ap_50"], ours["ap_75"]] == pytest.approx(theirs, abs=1e-12)
    assert 0.2 < theirs[0] < theirs[1] <= 1


def test_a_pose_is_best_when_perfect_and_wrong_when_unread() -> None:
    persons = people(3, 3)
    assert single_pose(persons, persons) == {"oks": 1.0, "oks_50": 1.0, "oks_75": 1.0}
    assert single_pose([None, *persons[1:]], persons)["oks"] == pytest.approx(2 / 3)
    # One part moved by d: exp(-d^2 / (2 area (2 s)^2)), the others stay.
    points = persons[0].points.copy()
    points[:, 2] = 2
    moved = points.copy()
    moved[0, 0] += 5
    expected = (16 + math.exp(-25 / (2 * 900 * (2 * 0.026) ** 2))) / 17
    assert keypoint_similarities([Person(moved)], [Person(points, 900.0)])[0, 0] == pytest.approx(expected)


# --- cuboids ---


@settings(max_examples=60)
@given(CUBOIDS, CUBOIDS, st.tuples(*[st.floats(-1.5, 1.5)] * 3))
def test_overlap_of_cuboids_is_symmetric_and_the_same_however_all_is_turned(
    one: Cuboid, other: Cuboid, angles: tuple[float, float, float]
) -> None:
    overlap = cuboid_iou(one, other)
    assert 0 <= overlap <= 1
    assert cuboid_iou(other, one) == pytest.approx(overlap, abs=1e-6)
    assert cuboid_iou(one, one) == pytest.approx(1.0, abs=1e-6)

    def turned(box: Cuboid) -> Cuboid:
        x, y, z = (float(value) for value in turn(angles) @ box.centre)
        return Cuboid((x, y, z), box.size, turn(angles) @ box.rotation)

    assert cuboid_iou(turned(one), turned(other)) == pytest.approx(overlap, abs=1e-6)


@settings(max_examples=40)
@given(CUBOIDS, CUBOIDS, *[st.floats(-3, 3)] * 2)
def test_overlap_of_upright_cuboids_is_that_of_opencvs_rectangles(
    one: Cuboid, other: Cuboid, yaw: float, second: float
) -> None:
    """Turned about the vertical only, the common volume is the common ground times the common height."""
    boxes = [Cuboid(b.centre, b.size, turn((0, a, 0))) for b, a in ((one, yaw), (other, second))]
    # y is height; on the ground (x, z), a turn about y goes the other way round.
    ground = [
        ((b.centre[0], b.centre[2]), (b.size[0], b.size[2]), math.degrees(-a))
        for b, a in zip(boxes, (yaw, second), strict=True)
    ]
    _, corners = cv2.rotatedRectangleIntersection(*ground)
    area = 0.0 if corners is None else cv2.contourArea(cv2.convexHull(corners))
    low = max(b.centre[1] - b.size[1] / 2 for b in boxes)
    high = min(b.centre[1] + b.size[1] / 2 for b in boxes)
    common = area * max(high - low, 0.0)
    union = sum(float(np.prod(b.size)) for b in boxes) - common
    assert cuboid_iou(*boxes) == pytest.approx(common / union, abs=2e-3)


def test_cuboids_that_share_faces_by_hand() -> None:
    unit = Cuboid((0.0, 0.0, 5.0), (1.0, 1.0, 1.0), np.eye(3))
    assert cuboid_iou(unit, Cuboid((0.5, 0.0, 5.0), (1.0, 1.0, 1.0), np.eye(3))) == pytest.approx(1 / 3)
    assert cuboid_iou(unit, Cuboid((1.0, 0.0, 5.0), (1.0, 1.0, 1.0), np.eye(3))) == pytest.approx(0.0, abs=1e-6)
    assert cuboid_iou(unit, Cuboid((0.0, 0.0, 5.0), (0.5, 0.5, 0.5), turn((0.3, 0.2, 0.1)))) == pytest.approx(1 / 8)
    # Turned by 45 degrees, two unit squares share a regular octagon of area 2 sqrt(2) - 2.
    octagon = 2 * math.sqrt(2) - 2
    turned = Cuboid(unit.centre, unit.size, turn((0.0, math.pi / 4, 0.0)))
    assert cuboid_iou(unit, turned) == pytest.approx(octagon / (2 - octagon))


def test_average_precision_in_space_goes_over_omni3ds_thresholds() -> None:
    unit = Cuboid((0.0, 0.0, 5.0), (1.0, 1.0, 1.0), np.eye(3))
    moved = Cuboid((0.5, 0.0, 5.0), (1.0, 1.0, 1.0), np.eye(3))
    # An overlap of 1/3 is enough for 0.05 … 0.30, six of ten thresholds.
    found = cuboid_detection([[Finding(moved, "cup")]], [[Finding(unit, "cup")]])
    assert found == {"ap_3d": pytest.approx(0.6), "ap_3d_25": pytest.approx(1.0), "ap_3d_50": 0.0}


# --- vectors ---


def test_numbers_count_within_bins_of_their_ranges() -> None:
    ranges = (UNIT, Range(low=-10.0, high=10.0))
    wanted = Vector((0.5, 0.0), ranges)
    near = Vector((0.5 + 1 / 999, 20 / 999), ranges)
    far = Vector((0.5, 200 / 999), ranges)
    found = vector_accuracy([wanted, near, far, None], [wanted] * 4)
    assert found["within_1_bin"] == 0.5
    assert found["within_10_bins"] == 0.75
    assert found["number_error"] == pytest.approx((0 + 0 + 1 / 999 + 1 / 999 + 0 + 10 / 999 + 1 + 1) / 8)


def test_words_and_lengths_have_to_agree() -> None:
    pick = Vector((0.5,), (UNIT,), ("pick",))
    others = [Vector((0.5,), (UNIT,), ("push",)), Vector((0.5, 0.5), (UNIT, UNIT), ("pick",)), Vector((), ())]
    assert vector_accuracy(others, [pick] * 3) == {"within_1_bin": 0.0, "within_10_bins": 0.0, "number_error": 1.0}
    missing = Vector((), (), ("MISSING",))
    assert vector_accuracy([missing, pick], [missing, missing])["within_1_bin"] == 0.5


def test_cameras_are_apart_by_the_angle_between_their_places() -> None:
    first = CameraChange(0.0, 0.0, 0.1)
    found = camera_errors([CameraChange(0.0, math.radians(10), 0.3), None], [first, first])
    assert found == {"direction_error": pytest.approx(95.0), "within_15": 0.5, "radius_error": pytest.approx(0.15)}
    # Near a pole a turn hardly moves the camera.
    high = camera_errors([CameraChange(1.5, 1.0, 0)], [CameraChange(1.5, 0.0, 0)])
    assert high["direction_error"] < 5  # type: ignore[operator]


@given(seed=st.integers(0, 1000))
def test_boxes_that_repeat_earlier_ones_are_left_out(seed: int) -> None:
    """What stays does not overlap, what goes is near one that stays; other labels do not matter."""
    random = np.random.default_rng(seed)
    found = []
    for label in random.choice(["cat", "dog"], 12):
        corner = random.choice([0.1, 0.5], 2) + random.uniform(0, 0.03, 2)
        found.append(Finding(Box(*corner, *(corner + 0.3)), str(label)))
    kept = without_repeated(found)

    def repeats(one: Finding[Box], other: Finding[Box]) -> bool:
        return one.label == other.label and float(box_ious([one.shape], [other.shape])[0, 0]) > 0.8

    assert [one for one in found if one in kept] == kept
    assert found[0] == kept[0]
    assert not any(repeats(one, other) for i, one in enumerate(kept) for other in kept[:i])
    assert all(any(repeats(one, other) for other in kept) for one in found if one not in kept)
