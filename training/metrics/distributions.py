"""How close made pictures or sounds are to real ones as a whole, by the features that some network has of them.

The network is the caller's: with Inception's pooled features the distances are FID and KID, with those of VGGish that
of Fréchet is FAD. None of them can be compared between networks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_ROWS = 1024  # of a kernel at a time


def frechet_distance(made: npt.ArrayLike, real: npt.ArrayLike) -> float | None:
    """Fréchet distance of the Gaussians with the features' means and covariances.

    Heusel et al., arXiv 1706.08500 (FID); Kilgour et al., arXiv 1812.08466 (FAD). The trace of the root of the product
    of covariances is the sum of singular values of the product of their factors, in float64: no root of a matrix that
    is not symmetric, and no complex numbers when there are fewer examples than features.

    Args:
        made, real: [n, features], [m, features]. None comes back when one has fewer than two.
    """
    one, other = _features(made), _features(real)
    if min(len(one), len(other)) < 2:
        return None
    difference = one.mean(axis=0) - other.mean(axis=0)
    factors = [_factor(one), _factor(other)]
    traces = sum(float(np.square(factor).sum()) for factor in factors)
    root = float(np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum())
    return max(float(difference @ difference) + traces - 2.0 * root, 0.0)


def _factor(features: Array) -> Array:
    """F [k, features] with F' F the covariance, k at most the number of features."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(centred) > centred.shape[1] else centred


def kernel_distance(made: npt.ArrayLike, real: npt.ArrayLike) -> float | None:
    """Kernel distance (Bińkowski et al., arXiv 1801.01401, KID): the unbiased squared maximum mean discrepancy with the
    kernel (x y / d + 1)^3, over all examples at once; it can be a little below zero.

    Args:
        made, real: [n, d], [m, d]. None comes back when one has fewer than two.
    """
    one, other = _features(made), _features(real)
    n, m = len(one), len(other)
    if min(n, m) < 2:
        return None
    within = (_kernel_sum(one, one) - _kernel_diagonal(one)) / (n * (n - 1))
    without = (_kernel_sum(other, other) - _kernel_diagonal(other)) / (m * (m - 1))
    return within + without - 2.0 * _kernel_sum(one, other) / (n * m)


def _kernel_sum(one: Array, other: Array) -> float:
    dimensions = one.shape[1]
    return sum(float(((one[i : i + _ROWS] @ other.T / dimensions + 1.0) ** 3).sum()) for i in range(0, len(one), _ROWS))


def _kernel_diagonal(features: Array) -> float:
    return float(((np.square(features).sum(axis=1) / features.shape[1] + 1.0) ** 3).sum())


def inception_score(probabilities: npt.ArrayLike) -> float | None:
    """exp of the mean divergence of each example's classes from the mean of all (Salimans et al., arXiv 1606.03498), in
    one group.

    Args:
        probabilities: [n, classes], rows sum to 1. 1 … the number of classes comes back.
    """
    classes = _features(probabilities)
    return float(np.exp(_divergence(classes, classes.mean(axis=0)).mean())) if len(classes) else None


def class_divergence(made: npt.ArrayLike, real: npt.ArrayLike) -> float | None:
    """Mean divergence of the classes of what was made from those of what it should be, pair by pair, in nats.

    As AudioGen measures sound against its reference: KL(real || made) (arXiv 2209.15352).

    Args:
        made, real: [n, classes], rows sum to 1.
    """
    one, other = _features(made), _features(real)
    if one.shape != other.shape:
        raise ValueError(f"found classes of {one.shape} and of {other.shape}")
    return float(_divergence(other, one).mean()) if len(one) else None


def _divergence(one: Array, other: Array) -> Array:
    """KL(one || other) of each row; probabilities below 1e-12 of the second count as that."""
    ratio = np.log(np.maximum(one, 1e-300)) - np.log(np.maximum(other, 1e-12))
    return np.asarray((one * ratio).sum(axis=1))


def _features(values: npt.ArrayLike) -> Array:
    found = np.asarray(values, np.float64)
    if found.ndim != 2:
        raise ValueError(f"found features of shape {found.shape}, wanted is one row for each example")
    return found
