"""Pictures of structures against what they should show: masks, depth, surface normals, optical flow, and pixels.

Sums run over all pixels of all pictures whose reference is known, so large pictures count more; masks say where they
do otherwise. A picture that could not be read is taken as black, which is no object, no depth, no direction and an
unknown flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omnimill.tokenizers.image import BoolArray, FloatArray
from omnimill.tokenizers.metrics import psnr, ssim
from omnimill.training.metrics.answers import normalise
from omnimill.training.metrics.score import mean, paired

Array = npt.NDArray[np.float64]

# Angles of surface normals are counted in steps of a hundredth of a degree, for their median.
_STEPS = 18000


@dataclass(frozen=True)
class Mask:
    """inside: bool [H, W]. label: of what it shows; empty: of whatever the example asks for."""

    inside: BoolArray
    label: str = ""


def mask_scores(predictions: Sequence[BoolArray | None], references: Sequence[Mask]) -> dict[str, float | None]:
    """Intersection over union of masks.

    Returns:
        ``mask_iou``: the mean over examples, as GRIT judges them (arXiv 2204.13653), 1 when both are empty;
        ``overall_iou``: all intersections over all unions, as referring segmentation is judged (arXiv 1603.06180);
        ``class_iou``: that for each label, and the mean over labels (Pascal VOC's mIoU).
    """
    paired(predictions, references)
    single, sums = [], dict[str, Array]()
    for prediction, reference in zip(predictions, references, strict=True):
        found = np.zeros_like(reference.inside) if prediction is None else prediction
        both = int((found & reference.inside).sum())
        either = int((found | reference.inside).sum())
        single.append(0.0 if prediction is None else both / either if either else 1.0)
        label = normalise(reference.label)
        sums[label] = sums.get(label, np.zeros(2)) + np.array([both, either], np.float64)
    totals = list(sums.values())
    return {
        "mask_iou": mean(single),
        "overall_iou": _share(np.sum(totals, axis=0)) if totals else None,
        "class_iou": mean([share for share in map(_share, totals) if share is not None]),
    }


def _share(counts: Array) -> float | None:
    return float(counts[0] / counts[1]) if counts[1] else None


def depth_errors(predictions: Sequence[FloatArray | None], references: Sequence[FloatArray]) -> dict[str, float | None]:
    """Errors of depth (Eigen, Puhrsch and Fergus, arXiv 1406.2283, section 4).

    Args:
        predictions: metres [H, W]. references: of the same shapes; not known where not finite or not above zero.

    Returns:
        ``rmse`` in metres; ``abs_rel``: mean of |d - d*| / d*; ``delta_1`` … ``delta_3``: shares of pixels with
        max(d / d*, d* / d) below 1.25, its square and its cube.
    """
    count, sums = 0, np.zeros(5)
    for prediction, reference in _maps(predictions, references):
        known = np.isfinite(reference) & (reference > 0)
        found, wanted = np.nan_to_num(prediction[known], nan=0.0), reference[known]
        ratio = np.maximum(found / wanted, wanted / np.maximum(found, 1e-9))
        difference = found - wanted
        deltas = [(ratio < 1.25**power).sum() for power in (1, 2, 3)]
        sums += (np.square(difference).sum(), (np.abs(difference) / wanted).sum(), *deltas)
        count += len(wanted)
    if not count:
        return dict.fromkeys(("rmse", "abs_rel", "delta_1", "delta_2", "delta_3"))
    square, relative, *deltas = (float(value) for value in sums / count)
    return {"rmse": square**0.5, "abs_rel": relative, "delta_1": deltas[0], "delta_2": deltas[1], "delta_3": deltas[2]}


def normal_errors(
    predictions: Sequence[FloatArray | None], references: Sequence[FloatArray]
) -> dict[str, float | None]:
    """Angles between surface normals (Fouhey, Gupta and Hebert, ICCV 2013, section 5).

    Args:
        predictions: [H, W, 3], of any length; without direction (zero, not finite) they are at right angles to all.
        references: of the same shapes; not known where zero or not finite.

    Returns:
        ``angle_mean`` and ``angle_median`` in degrees, the median (of an even number
        of pixels the lower one) rounded down to a hundredth; ``within_11_25``, ``within_22_5`` and
        ``within_30``: shares of pixels with a smaller angle.
    """
    counts, total, within = np.zeros(_STEPS + 1, np.int64), 0.0, np.zeros(3)
    for prediction, reference in _maps(predictions, references):
        wanted, known = _directions(reference)
        angles = np.degrees(np.arccos(np.clip((_directions(prediction)[0] * wanted).sum(axis=-1), -1.0, 1.0)))[known]
        counts += np.bincount((angles * (_STEPS / 180.0)).astype(np.int64), minlength=_STEPS + 1)
        total += float(angles.sum())
        within += [(angles < limit).sum() for limit in (11.25, 22.5, 30.0)]
    pixels = int(counts.sum())
    if not pixels:
        return dict.fromkeys(("angle_mean", "angle_median", "within_11_25", "within_22_5", "within_30"))
    middle = int(np.searchsorted(np.cumsum(counts), (pixels + 1) // 2))
    shares = within / pixels
    return {
        "angle_mean": total / pixels,
        "angle_median": middle * (180.0 / _STEPS),
        "within_11_25": float(shares[0]),
        "within_22_5": float(shares[1]),
        "within_30": float(shares[2]),
    }


def _directions(normals: Array) -> tuple[Array, BoolArray]:
    """Unit vectors, zero where there is no direction, and where there is one."""
    finite = np.where(np.isfinite(normals).all(axis=-1, keepdims=True), normals, 0.0)
    lengths: Array = np.linalg.norm(finite, axis=-1, keepdims=True)
    return finite / np.where(lengths > 0, lengths, 1.0), np.asarray(lengths[..., 0] > 0)


def flow_errors(predictions: Sequence[FloatArray | None], references: Sequence[FloatArray]) -> dict[str, float | None]:
    """Errors of optical flow.

    Args:
        predictions: [H, W, 2], pixels; what is not finite is no motion, and an outlier. references: of the same shapes;
            not known where not finite or 1e9 and more.

    Returns:
        ``end_point_error``: mean distance in pixels (Baker et al., IJCV 2011); ``f1_all``: the share of outliers, more
        than 3 pixels and 5 % off (KITTI 2015, Menze and Geiger, CVPR 2015).
    """
    count, distance, outliers = 0, 0.0, 0
    for prediction, reference in _maps(predictions, references, np.nan):
        known: BoolArray = np.asarray((np.isfinite(reference) & (np.abs(reference) < 1e9)).all(axis=-1), np.bool_)
        found, wanted = prediction[known], reference[known]
        lost: BoolArray = ~np.asarray(np.isfinite(found).all(axis=-1), np.bool_)
        errors = np.linalg.norm(np.where(lost[:, None], 0.0, found) - wanted, axis=-1)
        off = lost | ((errors > 3.0) & (errors > 0.05 * np.linalg.norm(wanted, axis=-1)))
        count, distance, outliers = count + len(wanted), distance + float(errors.sum()), outliers + int(off.sum())
    if not count:
        return {"end_point_error": None, "f1_all": None}
    return {"end_point_error": distance / count, "f1_all": outliers / count}


def picture_likeness(
    predictions: Sequence[FloatArray | None], references: Sequence[FloatArray]
) -> dict[str, float | None]:
    """How close pictures [H, W, 3] in 0..1 are to the ones that were wanted, pixel by pixel: means of PSNR in dB and
    SSIM.
    """
    pairs = [(found.astype(np.float32), wanted.astype(np.float32)) for found, wanted in _maps(predictions, references)]
    return {
        "psnr": mean([psnr(wanted, found) for found, wanted in pairs]),
        "ssim": mean([ssim(wanted, found) for found, wanted in pairs]),
    }


def _maps(
    predictions: Sequence[FloatArray | None], references: Sequence[FloatArray], black: float = 0.0
) -> Iterator[tuple[Array, Array]]:
    """Pairs as float64; ValueError when a prediction is not of its reference's shape."""
    paired(predictions, references)
    for prediction, reference in zip(predictions, references, strict=True):
        wanted = np.asarray(reference, np.float64)
        found = np.full_like(wanted, black) if prediction is None else np.asarray(prediction, np.float64)
        if found.shape != wanted.shape:
            raise ValueError(f"found a map of {found.shape}, its reference is of {wanted.shape}")
        yield found, wanted
