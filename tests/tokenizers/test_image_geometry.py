"""Where pictures lie on canvases: the reference's numbers, boxes that follow, the way back, black bars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from omnimill.locations import UNIT, to_bin
from omnimill.tokenizers import image, image_geometry
from omnimill.tokenizers.augment import draw_geometry
from omnimill.tokenizers.image_geometry import Geometry, fitted

SIDE = st.integers(1, 900)


def placements(height: int, width: int) -> list[Geometry]:
    """Without augmentation and with three random ones."""
    return [fitted(height, width, 384), *(draw_geometry(height, width, 384, "test", i) for i in range(3))]


def test_a_picture_of_five_by_three_by_hand() -> None:
    # 5 wide, 3 high on 20: 4 times as large, 12 high, 4 rows of padding above and below.
    geometry = fitted(3, 5, 20)
    assert (geometry.rows, geometry.columns) == (slice(4, 16), slice(0, 20))
    assert geometry.info.tolist() == [4, 0, 0.25, 3, 5, 0, 0, 0, 0, 12, 20]
    boxes, kept = geometry.boxes([[1, 1, 2, 4], [0, 0, 3, 5], [2, 2, 2, 4], [-9, -9, 99, 99], [5, 0, 6, 1]])
    # The third has no height; the last lies below the picture and is cut to what the padding shows of it.
    assert kept.tolist() == [0, 1, 3]
    assert boxes.tolist() == [[8, 4, 12, 16], [4, 0, 16, 20], [0, 0, 20, 20]]
    assert geometry.from_canvas([8, 4, 12, 16]).tolist() == [1, 1, 2, 4]
    assert geometry.from_canvas([[0, 0], [20, 20]]).tolist() == [[0, 0], [3, 5]]


def test_a_crop_by_hand() -> None:
    # Scaled by 10 to 30 x 50 and cut to rows 10 … 29, columns 24 … 43.
    geometry = Geometry(20, 3, 5, np.float32(10), 30, 50, offset_y=10, offset_x=24)
    expected = [0, 0, 0.1, 3, 5, 10 / 3, 24 / 5, 10, 24, 30, 50]
    np.testing.assert_allclose(geometry.info, expected, rtol=1e-6)
    boxes, kept = geometry.boxes([[0, 0, 1, 2], [1, 2, 2, 3], [2, 4, 3, 5]])
    # The first is cut off altogether; the others lose what is outside.
    assert kept.tolist() == [1, 2]
    np.testing.assert_allclose(boxes, [[0, 0, 10, 6], [10, 16, 20, 20]], atol=1e-4)
    np.testing.assert_allclose(geometry.from_canvas([[0, 0], [20, 20]]), [[1, 2.4], [3, 4.4]], rtol=1e-6)


@given(SIDE, SIDE, st.lists(st.tuples(*[st.floats(0, 1)] * 2), min_size=1, max_size=5))
def test_points_come_back_from_any_canvas(height: int, width: int, shares: list[tuple[float, float]]) -> None:
    points = np.array(shares) * [height, width]
    for geometry in placements(height, width):
        back = geometry.from_canvas(geometry.onto_canvas(points))
        np.testing.assert_allclose(back, points, atol=1e-5 * max(height, width))


@given(SIDE, SIDE, st.lists(st.tuples(*[st.floats(-0.5, 1.5)] * 4), max_size=8))
def test_boxes_stay_on_the_canvas_and_keep_an_area(
    height: int, width: int, shares: list[tuple[float, float, float, float]]
) -> None:
    boxes = np.array(shares).reshape(-1, 4) * [height, width, height, width]
    for geometry in placements(height, width):
        placed, kept = geometry.boxes(boxes)
        assert ((placed >= 0) & (placed <= 384)).all()
        assert ((placed[:, 2:] - placed[:, :2]) > 0).all()
        whole = geometry.onto_canvas(boxes[kept])
        np.testing.assert_array_equal(placed, np.clip(whole, 0, 384))
        gone = np.setdiff1d(np.arange(len(boxes)), kept)
        cut = np.clip(geometry.onto_canvas(boxes[gone]), 0, 384)
        assert ((cut[:, 2:] - cut[:, :2]).min(axis=1) <= 0).all()


@given(SIDE, SIDE)
def test_the_fitted_geometry_is_the_canvas_of_pictures(height: int, width: int) -> None:
    geometry = fitted(height, width, 384)
    assert (geometry.rows, geometry.columns) == image.placement(height, width, 384)
    np.testing.assert_array_equal(geometry.valid_patches(16), image.valid_patches(height, width, 384, 16))


def test_nearest_by_hand() -> None:
    values = np.arange(6).reshape(2, 3)
    assert image_geometry.nearest(values, 4, 6).tolist() == np.kron(values, np.ones((2, 2), int)).tolist()
    # Of five to two, the new centres lie over the second (1.25) and fourth (3.75).
    assert image_geometry.nearest(np.arange(5)[None], 1, 2).tolist() == [[1, 3]]
    assert image_geometry.nearest(values, 1, 1).tolist() == [[4]]


def test_black_bars_by_hand() -> None:
    frames = np.full((2, 10, 20, 3), 15, np.uint8)
    frames[0, 2:9, 5, 0] = 16
    frames[1, 4, 5:12, 2] = 200
    # Seven rows; columns 5 … 11, of which the right side may lose three tenths only.
    assert image_geometry.content_window(frames) == (slice(2, 9), slice(5, 14))
    assert image_geometry.content_window(frames[:, :, :12]) == (slice(2, 9), slice(3, 12))
    # All black: three tenths go at each side.
    assert image_geometry.content_window(frames[:, :2]) == (slice(0, 2), slice(6, 14))


def test_golden_geometry_and_boxes(parity: Path) -> None:
    file = parity / "12_preprocess_image.npz"
    if not file.exists():
        return
    golden = np.load(file)
    for name in ("landscape", "portrait", "big", "square"):
        picture = golden[f"{name}/in/image_u8"]
        geometry = fitted(*picture.shape[:2], 384)
        np.testing.assert_array_equal(geometry.info, golden[f"{name}/out/image_info"])
        boxes, kept = geometry.boxes(golden[f"{name}/in/boxes_yxyx_px"])
        np.testing.assert_allclose(boxes, golden[f"{name}/out/boxes_px_on_384"], atol=1e-4)
        assert len(kept) == len(boxes)
        shares = (boxes / np.float32(384)).tolist()
        tokens = [" ".join(f"<extra_id_{200 + to_bin(share, UNIT)}>" for share in box) for box in shares]
        assert tokens == golden[f"{name}/out/box_tokens"].tolist()
        np.testing.assert_allclose(
            geometry.from_canvas(boxes), golden[f"{name}/in/boxes_yxyx_px"][kept], rtol=1e-5, atol=1e-3
        )
    frames = golden["bars/in/frames_u8"]
    rows, columns = image_geometry.content_window(frames)
    np.testing.assert_array_equal(frames[:, rows, columns], golden["bars/out/frames_u8_thresh16"])
