"""Training augmentation: keyed draws within the reference's ranges, resize kernels, boxes that follow the pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from omnimill.tokenizers import image
from omnimill.tokenizers.augment import AugmentConfig, draw_geometry, draw_kernel, place
from omnimill.tokenizers.image_geometry import fitted
from omnimill.tokenizers.resampling import KERNELS, resample

SIDE = st.integers(1, 500)


def noise(height: int, width: int) -> image.FloatArray:
    return np.random.default_rng(height * 1000 + width).random((height, width, 3), np.float32)


@given(SIDE, SIDE, st.integers(0, 1 << 40))
def test_draws_lie_within_the_stated_ranges(height: int, width: int, key: int) -> None:
    geometry = draw_geometry(height, width, 384, "x", key)
    assert geometry == draw_geometry(height, width, 384, "x", key)
    side = float(geometry.scale) * np.array([min(height, width), max(height, width)])
    # One of the sides is what was drawn, unless the shorter would fall below 64.
    drawn = (side > 0.75 * 384 - 1.001) & (side < 1.3333 * 384 + 0.001)
    assert drawn.any() or np.isclose(side[0], 64)
    assert side[0] > 63.999
    for length, scaled, offset in (
        (height, geometry.scaled_height, geometry.offset_y),
        (width, geometry.scaled_width, geometry.offset_x),
    ):
        exact = length * float(geometry.scale)
        assert exact - 1.001 < scaled <= exact * (1 + 1e-6)
        assert 0 <= offset <= max(scaled - 384, 0)


def test_draws_are_spread_as_the_reference_says() -> None:
    drawn = [draw_geometry(300, 400, 384, "spread", i) for i in range(4000)]
    # Filling the drawn square scales by its side over 300, fitting it by its side over 400.
    low, high = np.array([0.75, 1.3333]) * 384
    scales = np.array([float(geometry.scale) for geometry in drawn])
    below, above = (scales < low / 300 - 1e-3).mean(), (scales > high / 400 + 1e-3).mean()
    # Fitted and small: (low / 300 - low / 400) of the fitted range; filled and large likewise.
    share = (low / 300 - low / 400) / ((high - low) / 400) / 2
    assert abs(below - share) < 0.03
    assert abs(above - (high / 300 - high / 400) / ((high - low) / 300) / 2) < 0.03
    cropped = [geometry for geometry in drawn if geometry.scaled_width > 484]
    offsets = np.array([geometry.offset_x / (geometry.scaled_width - 384) for geometry in cropped])
    assert abs(offsets.mean() - 0.5) < 0.03
    kernels = [draw_kernel("spread", i) for i in range(800)]
    assert {kernel: kernels.count(kernel) > 60 for kernel in KERNELS} == dict.fromkeys(KERNELS, True)


def test_a_long_picture_is_cut_instead_of_becoming_a_line() -> None:
    geometry = draw_geometry(20, 4000, 384, "long", 0)
    assert min(geometry.scaled_height, geometry.scaled_width) >= 64
    assert geometry.columns == slice(0, 384)


@pytest.mark.parametrize(("kernel", "name"), [("bilinear", "bilinear"), ("bicubic", "bicubic")])
@pytest.mark.parametrize("size", [(20, 31), (7, 64), (40, 9), (90, 100)])
def test_two_kernels_are_those_of_torch(kernel: str, name: str, size: tuple[int, int]) -> None:
    pixels = noise(40, 31)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    expected = F.interpolate(tensor, size, mode=name, antialias=True)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(resample(pixels, *size, kernel), expected, atol=2e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(20, 31), (7, 12), (90, 100)])
def test_lanczos_is_pillows_and_area_opencvs(size: tuple[int, int]) -> None:
    pixels = noise(40, 31)
    expected = np.stack(
        [
            np.asarray(Image.fromarray(channel).resize(size[::-1], Image.Resampling.LANCZOS))
            for channel in np.moveaxis(pixels, -1, 0)
        ],
        axis=-1,
    )
    np.testing.assert_allclose(resample(pixels, *size, "lanczos3"), expected, atol=1e-5)
    if size < pixels.shape[:2]:
        shrunk = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(resample(pixels, *size, "area"), shrunk, atol=1e-5)


def test_kernels_by_hand() -> None:
    # Twice as many pixels: new centres lie a quarter of a pixel beside the old ones.
    spike = np.zeros((1, 31, 1), np.float32)
    spike[0, 15] = 1
    near, far = 0.25, 0.75
    values: dict[str, dict[float, float]] = {
        "bilinear": {near: 0.75, far: 0.25, 1.25: 0.0},
        "bicubic": {near: 1.5 / 64 - 2.5 / 16 + 1, far: 1.5 * 27 / 64 - 2.5 * 9 / 16 + 1},
        "mitchell": {near: 7 / 6 / 64 - 2 / 16 + 8 / 9, 1.25: -7 / 18 * 1.25**3 + 2 * 1.25**2 - 10 / 3 * 1.25 + 16 / 9},
        "area": {near: 1.0, far: 0.0},
        "nearest": {near: 1.0, far: 0.0},
    }
    gauss = {x: np.exp(-2 * x * x) for x in (0.25, 0.75, 1.25)}
    values["gaussian"] = {x: value / (sum(gauss.values())) for x, value in gauss.items()}
    for kernel, expected in values.items():
        grown = resample(spike, 1, 62, kernel)[0, :, 0]  # type: ignore[arg-type]
        for distance, value in expected.items():
            assert grown[round(2 * (15.5 + distance) - 0.5)] == pytest.approx(value, abs=1e-6), (kernel, distance)
    # sinc(1/4) sinc(1/20) and its neighbours', normalised.
    taps = [np.sinc(x) * np.sinc(x / 5) for x in np.arange(-4.75, 5)]
    assert resample(spike, 1, 62, "lanczos5")[0, 31, 0] == pytest.approx(taps[5] / sum(taps), abs=1e-6)


@given(SIDE, SIDE, st.sampled_from(KERNELS), st.integers(0, 1000))
@settings(max_examples=30)
def test_a_window_is_a_part_of_the_whole(height: int, width: int, kernel: str, key: int) -> None:
    pixels = noise(height % 50 + 1, width % 50 + 1)
    wanted = height % 90 + 1, width % 90 + 1
    rng = np.random.default_rng(key)
    window = tuple(slice(*sorted(rng.choice(size + 1, 2, replace=False))) for size in wanted)
    whole = resample(pixels, *wanted, kernel)  # type: ignore[arg-type]
    part = resample(pixels, *wanted, kernel, window)  # type: ignore[arg-type]
    np.testing.assert_allclose(part, whole[window], atol=1e-6)


@given(SIDE, SIDE, st.integers(0, 1000))
@settings(max_examples=25)
def test_pixels_lie_where_the_geometry_says(height: int, width: int, key: int) -> None:
    # The picture's red and green are its rows and columns, so every canvas pixel tells where it comes from.
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = (np.arange(height) * 255 // max(height - 1, 1))[:, None]
    rgb[..., 1] = (np.arange(width) * 255 // max(width - 1, 1))[None]
    geometry = draw_geometry(height, width, 96, "pixels", key)
    canvas, mask = place(rgb, geometry, draw_kernel("pixels", key))
    np.testing.assert_array_equal(mask, geometry.mask)
    assert not canvas[~mask].any()
    y, x = np.nonzero(mask)
    found = geometry.from_canvas(np.stack([y, x], axis=1) + 0.5)
    for channel, (sides, places) in enumerate(((height, found[:, 0]), (width, found[:, 1]))):
        expected = np.clip((places - 0.5) / max(sides - 1, 1), 0, 1)
        # A pixel's width, and the kernel's ringing at the edges.
        tolerance = 1.5 / max(sides - 1, 1) + 0.1 + 1.5 / 96
        assert np.abs(canvas[y, x, channel] - expected).max(initial=0) <= tolerance


def test_without_a_draw_it_is_the_plain_canvas() -> None:
    rgb = (noise(60, 100) * 255).astype(np.uint8)
    canvas, mask = place(rgb, fitted(60, 100, 384), "bilinear")
    plain, plain_mask = image.to_canvas(rgb, 384)
    np.testing.assert_allclose(canvas, plain, atol=2e-5)
    np.testing.assert_array_equal(mask, plain_mask)


def test_a_picture_of_one_line_takes_no_memory() -> None:
    rgb = np.full((1, 60000, 3), 200, np.uint8)
    geometry = draw_geometry(1, 60000, 384, "line", 0)
    assert geometry.scaled_width >= 64 * 60000
    canvas, _ = place(rgb, geometry, "lanczos5")
    np.testing.assert_allclose(canvas[geometry.rows], 200 / 255, atol=1e-5)


def test_ranges_that_are_none_are_refused() -> None:
    with pytest.raises(ValidationError, match="scale_low must not be above scale_high"):
        AugmentConfig(scale_low=1.2, scale_high=1.1)
