"""Maps, pictures, sound and distributions: by hand and against scipy, and what holds for any."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from omnimill.training.metrics.distributions import (
    class_divergence,
    frechet_distance,
    inception_score,
    kernel_distance,
)
from omnimill.training.metrics.maps import (
    Mask,
    depth_errors,
    flow_errors,
    mask_scores,
    normal_errors,
    picture_likeness,
)
from omnimill.training.metrics.sound import mel_distance

NAN = np.nan
MASKS = arrays(np.bool_, (3, 4))


def floats(*values: Any) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


# --- masks ---


def test_masks_by_hand() -> None:
    left = np.array([[True, True, False, False]])
    all_, none = np.ones((1, 4), np.bool_), np.zeros((1, 4), np.bool_)
    found = mask_scores(
        [left, all_, none, None], [Mask(all_, "sky"), Mask(all_, "Sky"), Mask(none, "sea"), Mask(left, "sand")]
    )
    assert found == {
        "mask_iou": pytest.approx((0.5 + 1 + 1 + 0) / 4),
        "overall_iou": pytest.approx(6 / 10),
        # Sky 6 of 8, sand 0 of 2; nobody has sea.
        "class_iou": pytest.approx((6 / 8 + 0) / 2),
    }


def test_an_unread_mask_is_wrong_even_where_nothing_is_to_be_found() -> None:
    assert mask_scores([None], [Mask(np.zeros((2, 2), np.bool_))])["mask_iou"] == 0.0


@given(MASKS, MASKS)
def test_masks_are_compared_alike_both_ways(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> None:
    found = mask_scores([one], [Mask(other)])
    assert found == mask_scores([other], [Mask(one)])
    assert found["mask_iou"] <= mask_scores([one], [Mask(one)])["mask_iou"] == 1.0  # type: ignore[operator]


# --- depth, normals, flow ---


def test_depth_by_hand_where_it_is_known() -> None:
    found = depth_errors([floats([2.0, 3.0, 9.0]), None], [floats([2.0, 2.0, 0.0]), floats([4.0, NAN, -1.0])])
    assert found == {
        # Errors 0 and 1 of 2 m, and 4 of 4 m where nothing could be read.
        "rmse": pytest.approx((17 / 3) ** 0.5),
        "abs_rel": pytest.approx((0 + 0.5 + 1) / 3),
        "delta_1": pytest.approx(1 / 3),
        "delta_2": pytest.approx(2 / 3),
        "delta_3": pytest.approx(2 / 3),
    }
    assert set(depth_errors([floats([1.0])], [floats([NAN])]).values()) == {None}


def test_normals_by_hand() -> None:
    def at(degrees: float) -> list[float]:
        return [float(np.sin(np.radians(degrees))), 0.0, float(np.cos(np.radians(degrees)))]

    front = [0.0, 0.0, 2.0]
    found = normal_errors(
        [floats([at(0), at(10), at(20), at(28), at(50)])], [floats([front, front, front, front, [0, 0, 0]])]
    )
    assert found == {
        "angle_mean": pytest.approx(58 / 4, abs=1e-3),
        "angle_median": pytest.approx(10, abs=0.011),
        "within_11_25": 0.5,
        "within_22_5": 0.75,
        "within_30": 1.0,
    }
    unread = normal_errors([None], [floats([front, front])])
    assert unread["angle_mean"] == pytest.approx(90.0)
    assert unread["within_30"] == 0.0


def test_flow_by_hand() -> None:
    found = flow_errors([floats([[3, 4], [96, 0], [NAN, 0], [0, 0]])], [floats([[0, 0], [100, 0], [0, 1], [NAN, 0]])])
    # Off by 5 (an outlier), by 4 of 100 (none), by 1 and not known (one); the last is not judged.
    assert found == {"end_point_error": pytest.approx(10 / 3), "f1_all": pytest.approx(2 / 3)}
    assert flow_errors([None], [floats([[1, 0]])]) == {"end_point_error": 1.0, "f1_all": 1.0}


@settings(max_examples=30)
@given(arrays(np.float32, (2, 3, 3), elements=st.floats(0.125, 8, width=32)))
def test_what_is_perfect_scores_best(values: npt.NDArray[np.float32]) -> None:
    depth = depth_errors([values[..., 0]], [values[..., 0]])
    assert depth == {"rmse": 0.0, "abs_rel": 0.0, "delta_1": 1.0, "delta_2": 1.0, "delta_3": 1.0}
    normals = normal_errors([values], [values])
    assert normals["angle_mean"] == pytest.approx(0.0, abs=1e-5)
    assert (normals["angle_median"], normals["within_11_25"]) == (0.0, 1.0)
    assert flow_errors([values[..., :2]], [values[..., :2]]) == {"end_point_error": 0.0, "f1_all": 0.0}
    assert picture_likeness([values / 8], [values / 8]) == {"psnr": pytest.approx(120.0), "ssim": pytest.approx(1.0)}
    assert mel_distance([values[..., 0]], [values[..., 0]])["mel_distance"] == 0.0


def test_maps_of_other_shapes_are_refused_and_not_stretched() -> None:
    with pytest.raises(ValueError, match=r"\(2,\), its reference is of \(3,\)"):
        depth_errors([floats(1, 2)], [floats(1, 2, 3)])


def test_unread_pictures_and_sounds_are_black_and_silent() -> None:
    picture = np.full((8, 8, 3), 0.1, np.float32)
    assert picture_likeness([None], [picture])["psnr"] == pytest.approx(20.0, abs=1e-4)
    loud = floats([-11.0, -1.0])[None]
    assert mel_distance([None], [loud])["mel_distance"] == pytest.approx(5.0)


# --- distributions ---


def test_frechet_distance_is_that_of_scipys_matrix_root() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)), rng.normal(0.5, 2.0, size=(150, 6))
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(first + second - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_known_gaussians_and_of_fewer_examples_than_features() -> None:
    values = np.array([[-1.0], [1.0]])
    # Equal means; deviations s and 2 s with s^2 = 2: (2 s - s)^2.
    assert frechet_distance(2 * values, values) == pytest.approx(2.0)
    rng = np.random.default_rng(1)
    few = rng.normal(size=(5, 40))
    assert frechet_distance(few, few) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(few + 3.0, few) == pytest.approx(9 * 40)
    # A large common offset does not cost precision.
    assert frechet_distance(few + 1e5, few + 1e5 + 3.0) == pytest.approx(9 * 40, rel=1e-6)


def test_kernel_distance_is_the_sum_over_pairs() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=(7, 3)), rng.normal(1.0, size=(5, 3))

    def kernel(a: Any, b: Any) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within = np.mean([kernel(a, b) for i, a in enumerate(one) for j, b in enumerate(one) if i != j])
    without = np.mean([kernel(a, b) for i, a in enumerate(other) for j, b in enumerate(other) if i != j])
    across = np.mean([kernel(a, b) for a in one for b in other])
    assert kernel_distance(one, other) == pytest.approx(within + without - 2 * across)


@settings(max_examples=30)
@given(*[arrays(np.float64, (6, 3), elements=st.floats(-4, 4))] * 2)
def test_distances_are_symmetric(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> None:
    for distance in (frechet_distance, kernel_distance):
        there, back = distance(one, other), distance(other, one)
        assert there == pytest.approx(back, rel=1e-6, abs=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0.0, abs=1e-6)


def test_one_example_has_no_distribution() -> None:
    assert frechet_distance([[1.0]], [[1.0], [2.0]]) is None
    assert kernel_distance([[1.0], [2.0]], [[1.0]]) is None
    with pytest.raises(ValueError, match="one row for each example"):
        frechet_distance([1.0, 2.0], [1.0])


def test_inception_score_goes_from_one_to_the_number_of_classes() -> None:
    assert inception_score(np.eye(4)) == pytest.approx(4.0)
    assert inception_score(np.full((3, 4), 0.25)) == pytest.approx(1.0)
    assert class_divergence([[0.5, 0.5]], [[1.0, 0.0]]) == pytest.approx(np.log(2))
    assert class_divergence([[0.3, 0.7]], [[0.3, 0.7]]) == pytest.approx(0.0)
