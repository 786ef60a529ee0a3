"""Measures of quality against values that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from omnimill.tokenizers import metrics


def test_psnr() -> None:
    original = np.zeros((4, 4, 3), np.float32)
    assert metrics.psnr(original, original + 0.1) == pytest.approx(20.0, abs=1e-5)
    assert metrics.psnr(original, original) == 120.0


def test_ssim_of_flat_pictures_is_that_of_their_brightness() -> None:
    one, other = np.full((20, 16, 3), 0.2, np.float32), np.full((20, 16, 3), 0.6, np.float32)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert metrics.ssim(one, other) == pytest.approx(expected, abs=1e-6)
    assert metrics.ssim(one, one) == pytest.approx(1.0)


def test_ssim_of_one_window() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 11, 11, 1))
    distances = np.add.outer(np.arange(-5, 6) ** 2, np.arange(-5, 6) ** 2)
    weights = np.exp(-distances / (2 * 1.5**2))
    weights /= weights.sum()
    means = [(weights * v[..., 0]).sum() for v in (x, y)]
    variances = [(weights * (v[..., 0] - m) ** 2).sum() for v, m in zip((x, y), means, strict=True)]
    covariance = (weights * (x[..., 0] - means[0]) * (y[..., 0] - means[1])).sum()
    c1, c2 = 0.01**2, 0.03**2
    brightness = (2 * means[0] * means[1] + c1) / (means[0] ** 2 + means[1] ** 2 + c1)
    structure = (2 * covariance + c2) / (sum(variances) + c2)
    assert metrics.ssim(x, y) == pytest.approx(brightness * structure, abs=1e-6)


def test_ssim_sees_lost_detail_and_takes_narrow_pictures() -> None:
    rng = np.random.default_rng(1)
    sharp = rng.random((40, 40, 3)).astype(np.float32)
    flat = np.full_like(sharp, sharp.mean())
    assert metrics.ssim(sharp, flat) < 0.1 < metrics.ssim(sharp, 0.5 * sharp + 0.5 * flat) < 1
    assert metrics.ssim(sharp[:3], sharp[:3]) == pytest.approx(1.0)


def test_errors_of_spectrograms() -> None:
    original = np.log(np.array([[4.0, 16.0], [1.0, 1.0]], np.float32))
    original[1] = 0.0  # silence, as log_mel writes it
    assert metrics.mel_error(original, original - 0.5) == pytest.approx(0.5)
    # Magnitudes are 2 and 4; halved powers make them smaller by the root of two.
    halved = original + np.log(0.5)
    assert metrics.spectral_convergence(original, halved) == pytest.approx(1 - 0.5**0.5, abs=1e-6)


def test_use_of_a_codebook() -> None:
    use = metrics.codebook_use("x", np.array([[0, 0], [3, 3]], np.uint16), 8)
    assert use == {"x_codes_used": 2.0, "x_codebook_usage": 0.25, "x_perplexity": 2.0}
    assert metrics.perplexity(np.array([5, 5, 5, 5])) == pytest.approx(4.0)
    assert metrics.perplexity(np.zeros(4, np.int64)) == 0.0
