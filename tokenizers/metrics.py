"""How close reconstructions are to what they were made from, and how well a codebook is used."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from omnimill.tokenizers.audio import FloatArray

# Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
_SSIM_WINDOW, _SSIM_DEVIATION = 11, 1.5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03
# No two pictures are further from each other in decibels: an error of 1e-6 of the range.
_LEAST_ERROR = 1e-12


def psnr(original: FloatArray, made: FloatArray) -> float:
    """Peak signal-to-noise ratio in dB of values in 0..1; 120 when they are equal."""
    error = float(np.square(original.astype(np.float64) - made).mean())
    return -10.0 * math.log10(max(error, _LEAST_ERROR))


def ssim(original: FloatArray, made: FloatArray) -> float:
    """Structural similarity of two pictures [H, W, C] of values in 0..1, the mean over windows and channels.

    Windows are Gaussian, 11 x 11 of deviation 1.5, and lie within the picture; a picture with a shorter side has
    windows of that side.
    """
    taps = min(_SSIM_WINDOW, *original.shape[:2])
    places = np.arange(taps) - (taps - 1) / 2.0
    weights = np.exp(-(places**2) / (2.0 * _SSIM_DEVIATION**2))
    weights /= weights.sum()

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = sliding_window_view(values, taps, axis=0) @ weights
        return np.asarray(sliding_window_view(rows, taps, axis=1) @ weights)

    x, y = original.astype(np.float64), made.astype(np.float64)
    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = _SSIM_K1**2, _SSIM_K2**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean())


def mel_error(original: FloatArray, made: FloatArray) -> float:
    """Mean absolute difference of log-mel values (natural logarithm of power)."""
    return float(np.abs(original.astype(np.float64) - made).mean())


def spectral_convergence(original: FloatArray, made: FloatArray) -> float:
    """Frobenius norm of the difference of mel magnitudes, over that of the original's (Arik et al. 2019).

    Args:
        original: log-mel [frames, mels], natural logarithm of power; exact zeros count as silence.
        made: a reconstruction of it.
    """
    silent = original == 0
    one, other = (np.where(silent, 0.0, np.exp(mel.astype(np.float64) / 2.0)) for mel in (original, made))
    return float(np.linalg.norm(one - other) / max(float(np.linalg.norm(one)), _LEAST_ERROR))


def codebook_use(name: str, codes: NDArray[np.integer], size: int) -> dict[str, float]:
    """How many codes occur, their share of all, and the perplexity of their distribution.

    The perplexity is the number of codes used, when all of these are equally frequent.
    """
    counts = np.bincount(codes.reshape(-1), minlength=size)
    used = int((counts > 0).sum())
    return {
        f"{name}_codes_used": float(used),
        f"{name}_codebook_usage": round(used / size, 4),
        f"{name}_perplexity": round(perplexity(counts), 2),
    }


def perplexity(counts: NDArray[np.integer]) -> float:
    """Exponential of the entropy of a distribution, given as counts; 0 when there are none."""
    total = counts.sum()
    if not total:
        return 0.0
    shares = counts[counts > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))
