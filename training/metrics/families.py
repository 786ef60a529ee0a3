"""Which metrics judge the tasks of each family, and what they need; see docs/evaluation.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from omnimill.errors import ConfigError
from omnimill.training.metrics import answers, boxes, captions, cuboids, distributions, keypoints, maps, sound, vectors
from omnimill.training.metrics.reading import Reading
from omnimill.training.metrics.score import Score, paired, unread

Values = dict[str, float | None]
# Predictions or references of one reading to [n, features] or, of classes, to [n, classes].
Network = Callable[[Sequence[Any]], npt.NDArray[Any]]
NetworkName = Literal["picture_features", "picture_classes", "sound_features", "sound_classes"]


@dataclass(frozen=True)
class Measure:
    """Metrics that are computed together.

    reading: what predictions and references have to be read as. compute: values by metric.
    lower: metrics of which a smaller value is better. network: what turns pictures or sounds into what is compared.
    """

    reading: Reading
    names: tuple[str, ...]
    compute: Callable[[Any, Any], Values]
    lower: frozenset[str] = frozenset()
    network: NetworkName | None = None


def _measure(
    reading: Reading, names: str, compute: Callable[[Sequence[Any], Sequence[Any]], Values], lower: str = ""
) -> Measure:
    return Measure(reading, tuple(names.split()), compute, frozenset(lower.split()))


def _of_network(network: NetworkName, names: str, compute: Callable[[Any, Any], Values], lower: str) -> Measure:
    reading: Reading = "picture" if network.startswith("picture") else "sound"
    return Measure(reading, tuple(names.split()), compute, frozenset(lower.split()), network)


EXACT = _measure("text", "exact_match", answers.exact_match)
VQA = _measure("text", "vqa_accuracy", answers.vqa_accuracy)
TAGS = _measure("text", "tag_precision tag_recall tag_f1", answers.tag_scores)
CAPTION = _measure("text", "cider_d bleu_4", captions.caption_scores)
PERPLEXITY = _measure("loss", "perplexity", answers.perplexity, lower="perplexity")
ONE_BOX = _measure("box", "acc_50 mean_iou", boxes.single_box)
IN_ORDER = _measure("boxes", "acc_50 mean_iou", boxes.boxes_in_order)
TRACKING = _measure("box", "mean_iou success_50 success_auc", boxes.tracking)
DETECTION = _measure(
    "boxes",
    "ap ap_50 ap_75 localisation",
    lambda made, real: boxes.detection([one and boxes.without_repeated(one) for one in made], real),
)
SPOTTING = _measure("boxes", "box_precision box_recall box_f1 word_precision word_recall word_f1", boxes.spotting)
POSE = _measure("keypoints", "oks oks_50 oks_75", keypoints.single_pose)
CUBOIDS = _measure("cuboids", "ap_3d ap_3d_25 ap_3d_50", cuboids.cuboid_detection)
CAMERA = _measure(
    "camera", "direction_error within_15 radius_error", vectors.camera_errors, lower="direction_error radius_error"
)
NUMBERS = _measure("vector", "within_1_bin within_10_bins number_error", vectors.vector_accuracy, lower="number_error")
ACTION = _measure("action", "within_1_bin within_10_bins number_error", vectors.vector_accuracy, lower="number_error")
MASK = _measure("mask", "mask_iou overall_iou class_iou", maps.mask_scores)
DEPTH = _measure("depth", "rmse abs_rel delta_1 delta_2 delta_3", maps.depth_errors, lower="rmse abs_rel")
NORMALS = _measure(
    "normals",
    "angle_mean angle_median within_11_25 within_22_5 within_30",
    maps.normal_errors,
    lower="angle_mean angle_median",
)
FLOW = _measure("flow", "end_point_error f1_all", maps.flow_errors, lower="end_point_error f1_all")
LIKENESS = _measure("picture", "psnr ssim", maps.picture_likeness)
MEL = _measure(
    "sound", "mel_distance spectral_convergence", sound.mel_distance, lower="mel_distance spectral_convergence"
)
FID = _of_network(
    "picture_features",
    "fid kid",
    lambda made, real: {
        "fid": distributions.frechet_distance(made, real),
        "kid": distributions.kernel_distance(made, real),
    },
    lower="fid kid",
)
INCEPTION = _of_network(
    "picture_classes",
    "inception_score",
    lambda made, _: {"inception_score": distributions.inception_score(made)},
    lower="",
)
FAD = _of_network(
    "sound_features", "fad", lambda made, real: {"fad": distributions.frechet_distance(made, real)}, lower="fad"
)
SOUND_CLASSES = _of_network(
    "sound_classes",
    "inception_score class_divergence",
    lambda made, real: {
        "inception_score": distributions.inception_score(made),
        "class_divergence": distributions.class_divergence(made, real),
    },
    lower="class_divergence",
)

_ANSWER = (VQA, EXACT)
_LABEL = (EXACT,)
_REPLY = (EXACT, CAPTION, PERPLEXITY)
_SENTENCE = (CAPTION,)
_PICTURE = (FID, INCEPTION)
_WANTED_PICTURE = (LIKENESS, FID)
_SOUND = (MEL, FAD, SOUND_CLASSES)

# The families of the published table, by their groups; then those that are forms of them.
FAMILIES: Mapping[str, tuple[Measure, ...]] = {
    "image-from-text": _PICTURE,
    "controllable-image-editing": _WANTED_PICTURE,
    "image-editing": _WANTED_PICTURE,
    "next-frame-generation": _WANTED_PICTURE,
    "image-inpainting": _WANTED_PICTURE,
    "view-synthesis": _WANTED_PICTURE,
    "audio-from-text": _SOUND,
    "audio-from-video": _SOUND,
    "vqa": _ANSWER,
    "image-captioning": _SENTENCE,
    "region-classification": _LABEL,
    "image-tagging": _LABEL,
    "relationship-prediction": _LABEL,
    "region-captioning": _SENTENCE,
    "image-instruction-following": _REPLY,
    "image-pair-qa": _ANSWER,
    "object-detection": (DETECTION,),
    "object-localization": (DETECTION,),
    "referring-expression": (ONE_BOX,),
    "3d": (CUBOIDS,),
    "text-detection": (SPOTTING,),
    "keypoint-detection": (POSE,),
    "semantic-segmentation": (MASK,),
    "localized-segmentation": (MASK,),
    "surface-normal-estimation": (NORMALS,),
    "referring-expression-segmentation": (MASK,),
    "depth-estimation": (DEPTH,),
    "optical-flow": (FLOW,),
    "video-captioning": _SENTENCE,
    "video-tagging": _LABEL,
    "video-question-answering": _ANSWER,
    "video-instruction-following": _REPLY,
    "video-tracking": (TRACKING,),
    "video-action-localization": (DETECTION,),
    "video-sound-localization": (DETECTION,),
    "audio-tagging": (EXACT, TAGS),
    "audio-captioning": _SENTENCE,
    "text-instruction-following": _REPLY,
    "language-modeling": (PERPLEXITY,),
    "action-prediction": (ACTION,),
    "next-frame-state-prediction": _WANTED_PICTURE,
    "goal-generation": _WANTED_PICTURE,
    "embodied-qa": _ANSWER,
    "action-anticipation": _LABEL,
    "action-from-picture": (ACTION,),
    "action-in-words": _LABEL,
    "box-format": (NUMBERS,),
    "box-property": (NUMBERS,),
    "camera-pose": (CAMERA,),
    "caption-longer": _SENTENCE,
    "caption-shorter": _SENTENCE,
    "caption-with-start": _SENTENCE,
    "caption-with-words": _SENTENCE,
    "code-modeling": (PERPLEXITY,),
    "detection-any-of": (DETECTION,),
    "episode-affordance": _LABEL,
    "episode-plan": _SENTENCE,
    "expressions-in-order": (IN_ORDER,),
    "image-from-web-text": _PICTURE,
    "joint-boxes": (NUMBERS,),
    "keypoint-of-part": (NUMBERS,),
    "music-captioning": _SENTENCE,
    "music-from-text": _SOUND,
    "next-state-prediction": (NUMBERS,),
    "normals-at-point": (NUMBERS,),
    "normals-channels": (LIKENESS,),
    "normals-facing": (MASK,),
    "paragraph-captioning": _SENTENCE,
    "relations-of-box": (EXACT, TAGS),
    "relations-of-class": (EXACT, TAGS),
    "scene-tagging": _LABEL,
    "segmentation-any-of": (MASK,),
    "segmentation-none-of": (MASK,),
    "segmentation-within": (MASK,),
    "species-tagging": _LABEL,
    "speech-from-text": _SOUND,
    "speech-transcription": (EXACT, CAPTION),
    "subgoal-generation": _WANTED_PICTURE,
    "view-completion": _WANTED_PICTURE,
    "web-image-captioning": _SENTENCE,
}


# Families that judge tasks without one of these, by what they ask for.
_BY_TARGET: Mapping[str, str] = {
    "text:action": "action-prediction",
    "text:answer": "vqa",
    "text:boxes": "object-detection",
    "text:camera": "camera-pose",
    "text:caption": "image-captioning",
    "text:cuboids": "3d",
    "text:keypoints": "keypoint-detection",
    "text": "image-tagging",
    "image:depth": "depth-estimation",
    "image:flow": "optical-flow",
    "image:normals": "surface-normal-estimation",
    "image:segmentation": "semantic-segmentation",
    "image": "image-editing",
    "audio": "audio-from-text",
}


def judging(family: str | None, target: str) -> list[str]:
    """Families whose metrics can judge a task, the best first: its own, or where that is not known those of its target,
    of which the last one can always be read.

    Args:
        target: of the task, such as ``text:caption``.
    """
    if family is not None and family in FAMILIES:
        return [family]
    return [_BY_TARGET[one] for one in (target, target.partition(":")[0]) if one in _BY_TARGET]


def measures(family: str) -> tuple[Measure, ...]:
    """The measures of a family; ConfigError when it has none."""
    if family not in FAMILIES:
        raise ConfigError(f"family: found {family!r}, no metrics are known for it; allowed: {', '.join(FAMILIES)}")
    return FAMILIES[family]


def scores(
    measure: Measure, predictions: Sequence[Any], references: Sequence[Any], network: Network | None = None
) -> list[Score]:
    """What a measure's metrics say.

    Args:
        predictions: read as the measure wants them, None for what could not be read.
        references: of the same examples, in the same order.
        network: for measures that have one. What could not be read is given to it as black or silent.

    Raises:
        ValueError: not as many predictions as references; no network for a measure that has one.
    """
    count = paired(predictions, references)
    if measure.network is not None:
        if network is None:
            raise ValueError(f"{', '.join(measure.names)} need the network {measure.network}")
        return network_scores(measure, [(predictions, references)] if count else [], network)
    values = measure.compute(predictions, references)
    return [Score(name, values[name], count, unread(predictions)) for name in measure.names]


def network_scores(
    measure: Measure, parts: Iterable[tuple[Sequence[Any], Sequence[Any]]], network: Network
) -> list[Score]:
    """:func:`scores` of a measure that has a network, from some examples at a time: only their features are kept.

    Args:
        parts: predictions and references, at least one of each.
    """
    made, real = [], []
    count = missing = 0
    for predictions, references in parts:
        count, missing = count + paired(predictions, references), missing + unread(predictions)
        pairs = zip(predictions, references, strict=True)
        made.append(network([_blank(measure, wanted) if given is None else given for given, wanted in pairs]))
        real.append(network(references))
    values: Values = dict.fromkeys(measure.names)
    if count:
        values = measure.compute(np.concatenate(made), np.concatenate(real))
    return [Score(name, values[name], count, missing) for name in measure.names]


def _blank(measure: Measure, reference: Any) -> Any:
    """A black picture, or a spectrogram at its reference's least level."""
    level = 0.0 if measure.reading == "picture" else float(np.min(reference))
    return np.full_like(reference, level)
