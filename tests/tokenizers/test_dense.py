"""Masks, depth, normals and optical flow: rendered to 8-bit RGB and read back within the stated errors."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from omnimill.errors import BadRecord, ConfigError
from omnimill.tokenizers import dense, image, optical_flow
from omnimill.tokens import ImageLayout

LAYOUT = ImageLayout()
# Any number of a file: huge, tiny, negative, NaN, infinite.
ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)
SIDES = st.integers(0, 7)


def png(mask: np.ndarray, mode: str = "1") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def random_mask(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).random((height, width)) < 0.5


def test_a_mask_by_hand() -> None:
    # 3 x 5 pixels on a canvas of 10: each pixel twice as large, two rows of padding above and below.
    mask = np.array([[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 1]], bool)
    canvas = dense.render_mask(png(mask), 3, 5, ImageLayout(target_size=10))
    assert canvas.shape == (10, 10, 3)
    expected = np.zeros((10, 10), bool)
    expected[2:8] = mask.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(canvas, np.where(expected, 255, 0)[..., None].repeat(3, axis=2))


@given(st.integers(1, 256), st.integers(1, 256))
@settings(max_examples=40)
def test_masks_that_the_canvas_does_not_shrink_come_back_exactly(height: int, width: int) -> None:
    mask = random_mask(height, width)
    canvas = dense.render_mask(png(mask), height, width, LAYOUT)
    np.testing.assert_array_equal(dense.decode_mask(dense.from_canvas(canvas, height, width)), mask)
    around = np.ones((256, 256), bool)
    around[image.placement(height, width, 256)] = False
    assert not canvas[around].any()


@given(st.integers(1, 900), st.integers(1, 900))
@settings(max_examples=25)
def test_a_shrunk_mask_errs_by_a_canvas_pixel_at_most(height: int, width: int) -> None:
    # A disc: a pixel that comes back wrong lies within a canvas pixel (and a pixel) of its rim.
    y, x = np.mgrid[:height, :width] + 0.5
    radius = min(height, width) / 3
    distance = np.hypot(y - height / 2, x - width / 2)
    canvas = dense.render_mask(png(distance < radius), height, width, LAYOUT)
    back = dense.decode_mask(dense.from_canvas(canvas, height, width))
    wrong = back != (distance < radius)
    rows, columns = image.placement(height, width, 256)
    pixel = max(height / (rows.stop - rows.start), width / (columns.stop - columns.start), 1.0)
    assert np.abs(distance - radius)[wrong].max(initial=0.0) <= np.sqrt(2) * pixel


def test_a_mask_at_another_scale_covers_the_same_picture() -> None:
    mask = np.zeros((90, 120), bool)
    mask[30:60, 40:80] = True
    shrunk = dense.render_mask(png(mask), 30, 40, LAYOUT)
    np.testing.assert_array_equal(shrunk, dense.render_mask(png(mask), 90, 120, LAYOUT))


@given(st.integers(1, 2000), st.integers(1, 2000), st.floats(0.05, 3.0))
@settings(max_examples=60)
def test_masks_of_pictures_that_were_scaled_are_of_their_shape(height: int, width: int, scale: float) -> None:
    small = ImageLayout(target_size=16)
    rounded = max(round(height * scale), 1), max(round(width * scale), 1)
    dense.render_mask(png(np.ones((height, width), bool)), *rounded, small)


def test_masks_that_are_none() -> None:
    good = png(random_mask(8, 8))
    cases = {
        "mask_undecodable": [b"", b"no png", good[: len(good) // 2], image.encode_jpeg(np.zeros((8, 8, 3), np.uint8))],
        "mask_shape_mismatch": [png(random_mask(60, 80))],
    }
    cases["mask_undecodable"].append(png(random_mask(8, 8), "RGB"))
    for reason, broken in cases.items():
        for data in broken:
            with pytest.raises(BadRecord) as caught:
                dense.render_mask(data, 80, 60, LAYOUT)
            assert caught.value.reason == reason
            assert "0x" not in caught.value.message


def test_a_mask_too_large_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "MAX_PIXELS", 63)
    with pytest.raises(BadRecord) as caught:
        dense.decode_mask_png(png(random_mask(8, 8)))
    assert caught.value.reason == "mask_too_large"


def test_grey_levels_are_masks_from_the_middle_on() -> None:
    levels = np.array([[0, 127, 128, 255]], np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    assert dense.decode_mask_png(buffer.getvalue()).tolist() == [[False, False, True, True]]
    # Of a network's output the mean of the channels counts, and exactly one half is outside.
    rgb = np.array([[[0.2, 0.5, 0.8], [0.9, 0.9, 0.0], [1.2, 0.4, -0.3], [0.0, np.nan, 1.0]]], np.float32)
    assert dense.decode_mask(rgb).tolist() == [[False, True, False, False]]


def test_depth_by_hand() -> None:
    depth = [[0.0, 0.02, 5.0, 10.0, 40.0, -1.0, np.nan, np.inf]]
    rgb, known = dense.encode_depth(depth)
    assert rgb[0, :, 0].tolist() == [0, 1, 128, 255, 255, 0, 0, 0]
    assert known[0].tolist() == [False, True, True, True, True, False, False, False]
    assert (rgb == rgb[..., :1]).all()
    np.testing.assert_allclose(dense.decode_depth(rgb)[0, :5], [0.0, 0.0392, 5.0196, 10.0, 10.0], atol=1e-4)


@given(hnp.arrays(np.float64, st.tuples(SIDES, SIDES), elements=ANY), st.floats(1e-3, 1e6))
def test_depth_comes_back_within_its_error(depth: np.ndarray, maximum: float) -> None:
    rgb, known = dense.encode_depth(depth, maximum)
    assert rgb.shape == (*depth.shape, 3)
    np.testing.assert_array_equal(known, np.isfinite(depth) & (depth > 0))
    back = dense.decode_depth(rgb, maximum)
    assert np.abs(back - np.minimum(depth, maximum))[known].max(initial=0.0) <= maximum / 510 * (1 + 1e-5)
    assert not rgb[~known].any()


def test_normals_by_hand() -> None:
    normals = [[[0, 0, 1], [-2, 0, 0], [3, 0, 4], [0, 0, 0], [np.nan, 0, 1], [1e300, 0, 1e300]]]
    rgb, known = dense.encode_normals(normals)
    assert rgb[0].tolist() == [[128, 128, 255], [0, 128, 128], [204, 128, 230], [0] * 3, [0] * 3, [218, 128, 218]]
    assert known[0].tolist() == [True, True, True, False, False, True]
    assert dense.decode_normals(rgb)[0, 3].tolist() == [0, 0, 0]


@given(hnp.arrays(np.float64, st.tuples(SIDES, SIDES, st.just(3)), elements=ANY))
def test_normals_come_back_within_their_error(normals: np.ndarray) -> None:
    rgb, known = dense.encode_normals(normals)
    largest = np.abs(normals).max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = normals / largest
        unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
    for centre, degrees in ((dense.NORMAL_CENTRE, 0.4), (dense.GRIT_NORMAL_CENTRE, 4.3)):
        back = dense.decode_normals(rgb, centre)
        cosine = np.clip((back * unit).sum(axis=-1), -1, 1)[known]
        assert np.degrees(np.arccos(cosine)).max(initial=0.0) <= degrees
        np.testing.assert_allclose(np.linalg.norm(back, axis=-1)[known], 1.0, atol=1e-6)
    assert not dense.decode_normals(rgb)[~known].any()


def test_flow_by_hand() -> None:
    # The wheel begins and ends at the right: red, and a hair further up its last hue, 255 * 5 // 6 of the way from
    # magenta. Left is its 27th: 2 of 11 steps from cyan to blue; at half the speed half as saturated. None is white.
    flow = [[[4, 0.0], [0, 0], [8, -0.0], [-2, 0], [np.nan, 0], [1e10, 0]]]
    rgb, known = optical_flow.encode_flow(flow, 4.0)
    assert known[0].tolist() == [True, True, True, True, False, False]
    assert rgb[0].tolist() == [[255, 0, 0], [255] * 3, [255, 0, 43], [128, 232, 255], [0] * 3, [0] * 3]
    back = optical_flow.decode_flow(rgb, 4.0)
    np.testing.assert_allclose(back[0, :4], [[4, 0], [0, 0], [4, 0], [-2, 0]], atol=0.04)
    assert np.isnan(back[0, 4:]).all()


@given(hnp.arrays(np.float64, st.tuples(SIDES, SIDES, st.just(2)), elements=ANY), st.floats(1e-2, 1e4))
def test_flow_of_any_numbers_is_known_or_black(flow: np.ndarray, maximum: float) -> None:
    rgb, known = optical_flow.encode_flow(flow, maximum)
    assert not rgb[~known].any()
    assert (rgb.max(axis=-1)[known] == 255).all()
    back = optical_flow.decode_flow(rgb, maximum)
    np.testing.assert_array_equal(np.isfinite(back).all(axis=-1), known)


@given(
    hnp.arrays(np.float64, (200,), elements=st.floats(-np.pi, np.pi)),
    hnp.arrays(np.float64, (200,), elements=st.floats(0, 2)),
    st.floats(1e-2, 1e4),
)
def test_flow_comes_back_within_its_error(angle: np.ndarray, share: np.ndarray, maximum: float) -> None:
    flow = (np.stack([np.cos(angle), np.sin(angle)], axis=-1) * share[:, None] * maximum)[None]
    back = optical_flow.decode_flow(optical_flow.encode_flow(flow, maximum)[0], maximum)
    shown = flow / np.maximum(share, 1.0)[None, :, None]
    assert np.linalg.norm(back - shown, axis=-1).max() <= 0.01 * maximum


@given(hnp.arrays(np.uint8, (4, 4, 3)), st.floats(1e-2, 1e4))
def test_any_colours_read_as_something(rgb: np.ndarray, maximum: float) -> None:
    flow = optical_flow.decode_flow(rgb, maximum)
    dark = rgb.max(axis=-1) < 128
    np.testing.assert_array_equal(np.isnan(flow).any(axis=-1), dark)
    assert np.linalg.norm(flow, axis=-1)[~dark].max(initial=0.0) <= maximum * (1 + 1e-5)
    depth = dense.decode_depth(rgb, maximum)
    assert ((depth >= 0) & (depth <= maximum * (1 + 1e-5))).all()
    lengths = np.linalg.norm(dense.decode_normals(rgb), axis=-1)
    np.testing.assert_allclose(lengths, rgb.any(axis=-1), atol=1e-6)


def test_codes_of_unknown_depth_are_told_apart() -> None:
    # The right half of a wide picture is not measured: so are the codes there and those on the padding.
    depth = np.full((10, 20), 3.0)
    depth[:, 10:] = np.nan
    _, known = dense.encode_depth(depth)
    codes = dense.known_codes(known, 10, 20, LAYOUT).reshape(32, 32)
    expected = np.zeros((32, 32), bool)
    expected[8:24, :16] = True
    np.testing.assert_array_equal(codes, expected)


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(BadRecord, match=r"array of \[3\], wanted is \[H, W\]"):
        dense.encode_depth([1.0, 2.0, 3.0])
    with pytest.raises(BadRecord, match=r"wanted is \[H, W, 3\]"):
        dense.encode_normals(np.zeros((2, 2, 4)))
    with pytest.raises(BadRecord, match=r"wanted is \[H, W, 2\]"):
        optical_flow.encode_flow(np.zeros((2, 2)), 1.0)
    for maximum in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match="positive number"):
            dense.encode_depth([[1.0]], maximum)
        with pytest.raises(ConfigError, match="positive number"):
            optical_flow.encode_flow(np.zeros((1, 1, 2)), maximum)
    with pytest.raises(BadRecord) as caught:
        dense.onto_canvas(np.zeros((0, 4, 3), np.uint8), 2, 4, 16)
    assert caught.value.reason == "dense_empty"
