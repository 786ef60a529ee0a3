"""Outputs are read by the tokenizers' decoders; what cannot be read counts; every family has metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from adapters import round_trip
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import ConfigError
from omnimill.locations import SINE, UNIT
from omnimill.mixtures.task_families import families
from omnimill.schema import View
from omnimill.tokenizers import cuboids, dense, embodied, keypoints, optical_flow, places, sparse
from omnimill.tokenizers.embodied import TablePose, TableStep
from omnimill.tokenizers.places import Box, Frame
from omnimill.training.metrics import families as registry
from omnimill.training.metrics.evaluate import Case, evaluate
from omnimill.training.metrics.families import FAMILIES, Measure, measures, scores
from omnimill.training.metrics.reading import (
    CANVAS_READINGS,
    TEXT_READINGS,
    Shown,
    TextReading,
    as_reference,
    read_canvas,
    read_codes,
    read_sound,
    read_text,
)
from omnimill.training.metrics.score import Score

HEIGHT, WIDTH = 40, 60
STRUCTURES = [one for one in TEXT_READINGS if one != "text"]
CAMERA = cuboids.Camera(50.0, (30.0, 20.0), HEIGHT)
SHOWN = Shown(HEIGHT, WIDTH, label="dog", camera=CAMERA, flow_maximum=8.0)
BOX = Box(0.1, 0.2, 0.6, 0.7)


def outputs() -> dict[TextReading, list[int]]:
    """Ids of every reading."""
    made = round_trip.tokenizers()
    numbers, frame = made.numbers, Frame(HEIGHT, WIDTH, made.layout.image.input_size)
    points = [keypoints.Keypoint(0.01 * i, 0.02 * i + 0.1) for i in range(17)]
    cuboid = cuboids.Cuboid((0.1, 0.0, 4.0), (1.0, 2.0, 0.5), np.eye(3))
    views = [View(image=i, theta=0.1 * i, phi=0.3 * i, radius=1.5, sin_phi=0, cos_phi=1, bins=[]) for i in range(2)]
    step = TableStep("pick", TablePose(0.3, 0.1, 20.0), TablePose(0.5, -0.2, 90.0))
    return {
        "text": made.text.encode("a dog"),
        "box": places.encode_boxes([(BOX, "")], frame, numbers),
        "boxes": places.encode_boxes([(BOX, "a cat"), (Box(0, 0, 1, 1), "")], frame, numbers),
        "keypoints": keypoints.encode_keypoints(points, frame, numbers),
        "cuboids": cuboids.encode_object(cuboid, BOX, CAMERA, frame, numbers, "a box"),
        "camera": sparse.encode_camera(views[1], views[0], numbers),
        "vector": sparse.encode_vector((0.25, 0.5), (UNIT, UNIT), numbers),
        "action": embodied.encode_table_steps([step], numbers),
    }


class Levels:
    """Stands for a network: a picture or clip is as bright or loud as the first of its codes."""

    def decode(self, codes: Any) -> Any:
        made = round_trip.tokenizers()
        picture = len(codes[0]) == made.layout.image.target_grid**2
        shape = (
            (made.layout.image.target_size,) * 2 + (3,)
            if picture
            else (made.layout.audio.frames, made.layout.audio.mels)
        )
        return np.array([np.full(shape, row[0] / 100, np.float32) for row in codes])


def sum_of(parts: tuple[list[int], list[int]]) -> list[int]:
    return parts[0] + parts[1]


def measures_of(reading: str) -> list[Measure]:
    """All measures of a reading that need no network."""
    found = {one.names: one for row in FAMILIES.values() for one in row if one.reading == reading and not one.network}
    return list(found.values())


def judged(family: str, predictions: list[Any], references: list[Any]) -> dict[str, float | None]:
    """All metrics of a family that need no network."""
    found = [s for one in measures(family) if one.network is None for s in scores(one, predictions, references)]
    return {score.name: score.value for score in found}


def test_every_family_has_metrics_and_no_other_has() -> None:
    assert set(FAMILIES) == set(families())
    with pytest.raises(ConfigError, match="found 'vaq'"):
        measures("vaq")


def test_a_family_is_judged_by_what_its_target_can_be_read_as() -> None:
    media = {
        **dict.fromkeys((*TEXT_READINGS, "loss"), "text"),
        **dict.fromkeys(CANVAS_READINGS, "image"),
        "sound": "audio",
    }
    for name, family in families().items():
        for one in measures(name):
            assert family.target.partition(":")[0] == media[one.reading], name


def test_text_is_read_as_it_was_written() -> None:
    made = round_trip.tokenizers()
    found = read_text("text", outputs()["text"], SHOWN, made)
    assert judged("vqa", [found], [as_reference("text", found, SHOWN)]) == {"vqa_accuracy": 1.0, "exact_match": 1.0}


@pytest.mark.parametrize("reading", STRUCTURES)
def test_what_a_task_wrote_is_read_and_scores_best_against_itself(reading: TextReading) -> None:
    found = read_text(reading, outputs()[reading], SHOWN, round_trip.tokenizers())
    reference = as_reference(reading, found, SHOWN)
    for measure in measures_of(reading):
        for score in scores(measure, [found], [reference]):
            # A perfect overlap of 1 is not above the last of 21 thresholds.
            best = {"success_auc": 20 / 21}.get(score.name, 0.0 if score.name in measure.lower else 1.0)
            assert score.value == pytest.approx(best, abs=1e-6), score
            assert (score.count, score.unread) == (1, 0)


@pytest.mark.parametrize("reading", STRUCTURES)
def test_malformed_output_is_unread_and_counts_as_wrong(reading: TextReading) -> None:
    ids, made = outputs()[reading], round_trip.tokenizers()
    shown = replace(SHOWN, ranges=(UNIT, UNIT)) if reading == "vector" else SHOWN
    reference = as_reference(reading, read_text(reading, ids, shown, made), shown)
    # Cut within its numbers, words where numbers should be, and another kind of token.
    broken = [ids[:1], made.text.encode("no idea"), [made.text.vocabulary.prefix("image", "S")]]
    found = [read_text(reading, one, shown, made) for one in broken]
    assert found == [None, None, None]
    for measure in measures_of(reading):
        for score in scores(measure, found, [reference] * 3):
            assert (score.count, score.unread) == (3, 3)
            assert score.value == 0.0 or score.name in measure.lower, score


@settings(max_examples=60)
@given(st.data())
def test_whatever_a_model_writes_is_read_or_unread(data: st.DataObject) -> None:
    made = round_trip.tokenizers()
    vocabulary = made.text.vocabulary
    token = st.one_of(st.integers(0, vocabulary.size - 1), st.integers(0, 999).map(vocabulary.location))
    whole = st.sampled_from(list(outputs().values()))
    ids = data.draw(st.one_of(st.lists(token, max_size=40), st.tuples(whole, st.lists(token, max_size=2)).map(sum_of)))
    for reading in TEXT_READINGS:
        found = read_text(reading, ids, SHOWN, made)
        if found is not None and reading != "text":
            reference = as_reference(reading, read_text(reading, outputs()[reading], SHOWN, made), SHOWN)
            for measure in measures_of(reading):
                for score in scores(measure, [found], [reference]):
                    assert score.value is not None
                    assert math.isfinite(score.value)


def test_places_come_back_in_shares_and_pixels() -> None:
    made = round_trip.tokenizers()
    box = read_text("box", outputs()["box"], SHOWN, made)
    assert box == pytest.approx(BOX, abs=2 * made.numbers.error(UNIT))
    labelled = read_text("boxes", outputs()["boxes"], SHOWN, made)
    assert [one.label for one in labelled] == ["a cat", "dog"]
    assert read_text("box", outputs()["boxes"], SHOWN, made) is None
    person = read_text("keypoints", outputs()["keypoints"], SHOWN, made)
    assert person.points[16] == pytest.approx([0.16 * HEIGHT, 0.42 * WIDTH, 2], abs=0.2)
    inverted = places.encode_points((0.5, 0.5, 0.2, 0.2), Frame(HEIGHT, WIDTH, 64), made.numbers)
    assert read_text("box", inverted, SHOWN, made) is None


def test_vectors_are_read_with_their_ranges_and_measures_without() -> None:
    made = round_trip.tokenizers()
    ids = sparse.encode_vector((0.25, -0.5, 1.0), (SINE,) * 3, made.numbers)
    ranged = replace(SHOWN, ranges=(SINE,) * 3)
    assert read_text("vector", ids, ranged, made).values == pytest.approx((0.25, -0.5, 1.0), abs=0.003)
    assert read_text("action", ids, ranged, made).ranges == (SINE,) * 3
    assert len(read_text("vector", ids, SHOWN, made).values) == 3
    assert read_text("vector", made.text.encode("MISSING nose"), SHOWN, made).words == ("MISSING",)
    assert read_text("action", outputs()["action"], SHOWN, made).words == ("pick",)
    with pytest.raises(ValueError, match="camera"):
        read_text("cuboids", outputs()["cuboids"], replace(SHOWN, camera=None), made)


MAPS: dict[str, tuple[Callable[[], Any], str]] = {
    "mask": (lambda: dense.encode_mask(np.eye(HEIGHT, WIDTH, dtype=np.bool_)), "semantic-segmentation"),
    "depth": (
        lambda: dense.encode_depth(np.linspace(1, 9, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH))[0],
        "depth-estimation",
    ),
    "normals": (
        lambda: dense.encode_normals(np.random.default_rng(0).normal(size=(HEIGHT, WIDTH, 3)))[0],
        "surface-normal-estimation",
    ),
    "flow": (
        lambda: optical_flow.encode_flow(np.random.default_rng(0).uniform(-5, 5, (HEIGHT, WIDTH, 2)), 8.0)[0],
        "optical-flow",
    ),
}


@pytest.mark.parametrize("reading", MAPS)
def test_canvases_are_read_as_what_they_show(reading: Any) -> None:
    rendered, family = MAPS[reading][0](), MAPS[reading][1]
    canvas = dense.onto_canvas(rendered, HEIGHT, WIDTH, 128)
    found = read_canvas(reading, canvas, SHOWN)
    assert found.shape[:2] == (HEIGHT, WIDTH)
    reference = as_reference(reading, found, SHOWN)
    (measure,) = measures(family)
    perfect = scores(measure, [found], [reference])
    half = scores(measure, [found, read_canvas(reading, None, SHOWN)], [reference, reference])
    for alone, score in zip(perfect, half, strict=True):
        assert alone.value == pytest.approx(0.0 if score.name in measure.lower else 1.0, abs=1e-4)
        assert (score.count, score.unread) == (2, 1)
    worse = [score.value != pytest.approx(alone.value, abs=1e-4) for alone, score in zip(perfect, half, strict=True)]
    # Half of all angles being right, their lower median is.
    assert all(bad or score.name == "angle_median" for bad, score in zip(worse, half, strict=True))


def test_pictures_are_cut_from_their_padding() -> None:
    canvas = np.zeros((60, 60, 3), np.uint8)
    canvas[10:50] = 255
    shown = read_canvas("picture", canvas, SHOWN)
    assert shown.shape == (40, 60, 3)
    assert shown.min() == 1.0


def test_codes_that_are_too_few_or_not_of_the_book_are_unread_and_the_others_are_not() -> None:
    made = replace(round_trip.tokenizers(), image_codes=Levels(), audio_codes=Levels())
    grid, (time, mels) = made.layout.image.target_grid, made.layout.audio.target_grid
    good, book = [7] * grid**2, made.layout.image.codes
    found = read_codes([good[1:], good, [*good[1:], book], [], [*good[1:], -1]], made)
    assert [one is None for one in found] == [True, False, True, True, True]
    assert found[1].max() == np.float32(0.07)
    clip = [7] * (time * mels)
    assert [one is None for one in read_sound([clip, [*clip, 0]], made)] == [False, True]
    assert read_codes([[]], made) == [None]


def test_a_family_is_evaluated_from_ids_and_codes() -> None:
    made = replace(round_trip.tokenizers(), image_codes=Levels(), audio_codes=Levels())
    ids, grid = outputs(), made.layout.image.target_grid
    found = Case(ids["box"], ids["box"], SHOWN)
    lost = replace(found, output=made.text.encode("no idea"))
    assert evaluate("referring-expression", [found, lost], made) == [
        Score("acc_50", 0.5, 2, 1),
        Score("mean_iou", 0.5, 2, 1),
    ]
    near, far = ([level] * grid**2 for level in (40, 80))
    depths = [Case(near, near, SHOWN), Case(far, near, SHOWN)]
    assert [score.value for score in evaluate("depth-estimation", depths, made)][:3] == [
        pytest.approx((16 / 2) ** 0.5),
        pytest.approx(0.5),
        0.5,
    ]
    assert [score.name for score in evaluate("image-editing", depths, made)] == ["psnr", "ssim"]
    networks: Any = {"picture_features": lambda pictures: np.array([[one.mean()] for one in pictures])}
    assert [s.name for s in evaluate("image-editing", depths, made, networks)] == ["psnr", "ssim", "fid", "kid"]


def test_answers_are_judged_by_all_texts_that_are_right_and_losses_when_all_are_measured() -> None:
    made = round_trip.tokenizers()
    case = Case(made.text.encode("a hound"), made.text.encode("a dog"), texts=("a dog", "a hound"), loss=(2.0, 2))
    assert Score("vqa_accuracy", 1.0, 1) in evaluate("vqa", [case], made)
    assert Score("exact_match", 0.0, 1) in evaluate("vqa", [replace(case, texts=())], made)
    assert Score("perplexity", pytest.approx(math.e), 1) in evaluate("text-instruction-following", [case], made)
    without = evaluate("language-modeling", [case, replace(case, loss=None)], made)
    assert without == []


def test_networks_see_what_was_made_and_what_was_wanted() -> None:
    seen: list[list[Any]] = []

    def network(pictures: Any) -> Any:
        seen.append(list(pictures))
        return np.array([one.mean(axis=(0, 1)) for one in pictures])

    pictures = [np.full((4, 4, 3), level, np.float32) for level in (0.2, 0.4, 0.6)]
    found = scores(registry.FID, [*pictures[:2], None], pictures, network)
    assert [(one.name, one.count, one.unread) for one in found] == [("fid", 3, 1), ("kid", 3, 1)]
    assert seen[0][2].max() == 0.0
    assert all(one is other for one, other in zip(seen[1], pictures, strict=True))
    assert scores(registry.FID, pictures, pictures, network)[0].value == pytest.approx(0.0, abs=1e-9)
    parts = [([pictures[0]], [pictures[0]]), ([pictures[1], None], pictures[1:])]
    assert registry.network_scores(registry.FID, parts, network) == found
    with pytest.raises(ValueError, match="fid, kid need the network picture_features"):
        scores(registry.FID, pictures, pictures)


@pytest.mark.parametrize(
    "measure", {(*one.names, one.reading): one for row in FAMILIES.values() for one in row}.values()
)
def test_without_examples_nothing_is_said(measure: Measure) -> None:
    for score in scores(measure, [], [], lambda _: np.zeros((0, 1))):
        assert (score.value, score.count, score.unread) == (None, 0, 0)
    assert measure.lower <= set(measure.names)


def test_a_prediction_that_is_unread_stays_in_the_count() -> None:
    assert judged("vqa", ["2 dogs", None], [["two dogs"], ["cat"]]) == {"vqa_accuracy": 0.5, "exact_match": 0.0}
