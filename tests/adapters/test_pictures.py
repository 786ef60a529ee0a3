"""Annotated pictures: published files become examples, examples tasks, and tasks give the annotations back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters.fixtures_picture import (
    COCO_BOXES,
    FORMATS,
    HEIGHT,
    KEYPOINTS,
    WIDTH,
    WORDS,
    put_json,
    put_picture,
    rectangle,
    refcoco,
    references,
)
from adapters.round_trip import Shown, read, render, renders, token_row, tokenizers

from omnimill.infra import storage
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.adapters.coco import CocoSource
from omnimill.pipelines.process import process_unit
from omnimill.schema import Example
from omnimill.tokenizers.keypoints import decode_keypoints

Made = Callable[[str], list[Example]]

# What becomes of the records of every format, and a family that reads its first example.
EXPECTED: dict[str, tuple[dict[str, str], str]] = {
    "coco": ({"25": "kept", "30": "no_annotations", "9": "kept"}, "object-detection"),
    "coco_panoptic": ({"25": "kept", "30": "no_annotations", "9": "kept"}, "semantic-segmentation"),
    "coco_text": ({"217925": "kept", "5": "other_split"}, "text-detection"),
    "lvis": ({"42": "kept"}, "localized-segmentation"),
    "open_images": ({"000026e7ee790996": "kept"}, "image-tagging"),
    "visual_genome": ({"1": "kept"}, "region-captioning"),
    "refcoco": ({"25": "other_split", "30": "other_split", "9": "kept"}, "referring-expression"),
    "vqa_v2": ({"COCO_train2014_000000458752.jpg": "kept"}, "vqa"),
    "ok_vqa": ({"COCO_train2014_000000458752.jpg": "kept"}, "vqa"),
    "a_okvqa": ({"000000299207.jpg": "kept"}, "vqa"),
    "gqa": ({"2354786.jpg": "kept"}, "vqa"),
    "text_vqa": ({"0054c91397f2fe05.jpg": "kept"}, "vqa"),
    "st_vqa": ({"coco-text/COCO_train2014_000000456496.jpg": "kept"}, "vqa"),
    "ocr_vqa": ({"1588382341.jpg": "kept"}, "vqa"),
    "doc_vqa": ({"documents/xnbl0037_1.png": "kept"}, "vqa"),
    "vizwiz": ({"VizWiz_train_00000000.jpg": "kept"}, "vqa"),
    "tally_qa": ({"VG_100K_2/2410408.jpg": "kept"}, "vqa"),
    "clevr": ({"CLEVR_train_000000.png": "kept"}, "vqa"),
    "science_qa": ({"1/image.png": "kept"}, "vqa"),
    "vcr": (
        {"lsmdc_3015_CHARLIE_ST_CLOUD/3015_CHARLIE_ST_CLOUD_00.23.57.935-00.24.00.783@0.jpg": "kept"},
        "vqa",
    ),
    "visual_mrc": ({"images/a/1.png": "kept"}, "vqa"),
    "class_masks": ({"ADE_train_00000001": "kept"}, "semantic-segmentation"),
    "imagenet": ({"n01440764/n01440764_10026.JPEG": "kept", "#0:1": "category_unknown"}, "image-tagging"),
    "inaturalist": ({"0": "kept"}, "image-tagging"),
    "places365": ({"a/apartment_building/outdoor/00000001.jpg": "kept"}, "image-tagging"),
    "sun397": ({"a/abbey/sun_aaaalbzqrimafwbiv.jpg": "kept"}, "image-tagging"),
    "cub_200": ({"1": "kept", "2": "other_split"}, "image-tagging"),
    "text_caps": ({"6fb9bf8b2ab6b5e3": "kept"}, "image-captioning"),
    "no_caps": ({"0": "kept"}, "image-captioning"),
    "vizwiz_captions": ({"0": "kept"}, "image-captioning"),
    "sci_cap": ({"0": "kept"}, "image-captioning"),
    "paragraphs": ({"2356347": "kept"}, "image-captioning"),
    "vsr": ({"000000050403.jpg": "kept"}, "vqa"),
    "nlvr2": ({"train-10171-0": "kept"}, "image-pair-qa"),
    "visual_dialog": ({"378466": "kept"}, "image-instruction-following"),
    "visual_stories": ({"30355": "kept", "30356": "missing_file"}, "image-instruction-following"),
}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return lambda name: read(FORMATS[name](tmp_path / name))[0]


def texts(example: Example, role: str) -> list[str]:
    return [text.text for text in example.text if text.role == role]


def items(example: Example, *roles: str) -> list[tuple[str, ...]]:
    """The texts of these roles, item by item, of items that have all of them."""
    numbers = sorted({text.item for text in example.text if text.item is not None})
    found = [[next(iter(of(example, role, item)), None) for role in roles] for item in numbers]
    return [tuple(map(str, one)) for one in found if None not in one]


def of(example: Example, role: str, item: int | None) -> list[str]:
    return [text.text for text in example.text if text.role == role and text.item == item]


def pixels(box: Any) -> list[float]:
    """Shares y1, x1, y2, x2 as x, y, width, height in pixels."""
    y1, x1, y2, x2 = box
    return [x1 * WIDTH, y1 * HEIGHT, (x2 - x1) * WIDTH, (y2 - y1) * HEIGHT]


def assert_boxes(shown: Shown, expected: dict[str, list[float]]) -> None:
    """Labelled boxes come back within a location token of what was annotated, in pixels."""
    found = {label: pixels(box) for box, label in shown.boxes()}
    assert found.keys() == expected.keys()
    down, across = shown.error()
    for label, box in expected.items():
        tolerance = np.array([across * WIDTH, down * HEIGHT, across * WIDTH, down * HEIGHT]) + 1e-6
        assert (np.abs(np.subtract(found[label], box)) <= tolerance).all()


def assert_mask(shown: Shown, expected: np.ndarray) -> None:
    """White pixels come back where the mask was, but for the patches of codes that its border crosses."""
    found = shown.content()
    rows = (np.arange(found.shape[0]) + 0.5) / found.shape[0] * expected.shape[0]
    columns = (np.arange(found.shape[1]) + 0.5) / found.shape[1] * expected.shape[1]
    wanted = expected[rows.astype(int)][:, columns.astype(int)]
    assert np.mean((found[..., 0] > 127) != wanted) < 0.05


@pytest.mark.parametrize("name", FORMATS)
def test_every_record_of_a_published_layout_has_its_verdict_and_every_example_its_task(
    name: str, tmp_path: Path
) -> None:
    examples, verdicts = read(FORMATS[name](tmp_path / name))
    expected, family = EXPECTED[name]
    assert verdicts == expected
    assert len(examples) == list(expected.values()).count("kept")
    assert len({example.id for example in examples}) == len(examples)
    for example in examples:
        token_row(example, tokenizers())
    assert render(examples[0], family).rendered.lengths.decoder > 0


def test_coco_gives_back_what_it_says_of_a_picture(made: Made) -> None:
    example = next(one for one in made("coco") if one.key == "9")
    names = {"dog": COCO_BOXES["dog"], "sports ball": COCO_BOXES["ball"], "person": COCO_BOXES["person"]}
    assert_boxes(render(example, "object-detection"), names)
    assert {shown.text for shown in renders(example, "image-captioning")} == {"A dog runs.", "A man and a dog."}
    for shown in renders(example, "object-localization"):
        ((box, label),) = shown.boxes()
        (name,) = (name for name in names if name in shown.prompt)
        assert label == ""
        np.testing.assert_allclose(pixels(box), names[name], atol=0.2)
        assert name != "person"  # there is a crowd of them, whose boxes nobody drew
    assert {shown.text for shown in renders(example, "region-classification", 30)} == set(names)
    for shown in renders(example, "localized-segmentation", 20):
        (name,) = (name for name in names if name in shown.prompt)
        left, top, width, height = (round(edge) for edge in names[name])
        assert_mask(shown, rectangle(left, top, width, height))


def test_coco_masks_of_classes_hold_the_polygon_the_compressed_and_the_crowd_run_lengths(made: Made) -> None:
    example = next(one for one in made("coco") if one.key == "9")
    person = rectangle(41, 2, 16, 60) | rectangle(70, 4, 20, 8)
    expected = {"dog": rectangle(12, 8, 24, 32), "sports ball": rectangle(60, 40, 10, 10), "person": person}
    found = {
        classes: shown
        for shown in renders(example, "semantic-segmentation", 40)
        for classes in expected
        if classes in shown.prompt
    }
    assert found.keys() == expected.keys()
    for classes, mask in expected.items():
        assert_mask(found[classes], mask)


def test_coco_keypoints_are_points_of_a_person_and_missing_ones_are_missing(made: Made) -> None:
    example = next(one for one in made("coco") if one.key == "9")
    shown = render(example, "keypoint-detection")
    points = decode_keypoints(shown.ids, shown.frame(), tokenizers().numbers)
    for (x, y, visibility), point in zip(zip(*[iter(KEYPOINTS)] * 3, strict=True), points, strict=True):
        assert (point.visibility > 0) == (visibility > 0)
        if visibility:
            np.testing.assert_allclose((point.x * WIDTH, point.y * HEIGHT), (x + 0.5, y + 0.5), atol=0.2)


def test_panoptic_segments_are_the_masks_of_classes_where_there_are_some(made: Made) -> None:
    example = next(one for one in made("coco_panoptic") if one.key == "9")
    assert texts(example, "classes") == ["dog", "sand"]
    expected = {"dog": rectangle(12, 8, 24, 32), "sand": ~rectangle(12, 8, 24, 32)}
    found = {
        classes: shown
        for shown in renders(example, "semantic-segmentation")
        for classes in expected
        if classes in shown.prompt
    }
    for classes, mask in expected.items():
        assert_mask(found[classes], mask)


def test_words_are_read_with_their_places_and_illegible_ones_are_not(made: Made) -> None:
    (example,) = made("coco_text")
    assert_boxes(render(example, "text-detection"), {word: box for word, box in WORDS.items() if word})


def test_lvis_asks_for_no_class_that_is_not_annotated_exhaustively(made: Made) -> None:
    (example,) = made("lvis")
    assert [box.role for box in example.annotations if box.kind == "box" and box.item is None] == []
    assert texts(example, "classes") == ["sofa", "crab (animal)"]
    assert sorted(label for label in texts(example, "label")) == ["cup", "sofa", "sofa"]
    shown = {
        classes: one
        for one in renders(example, "semantic-segmentation")
        for classes in ("sofa", "crab")
        if classes in one.prompt
    }
    assert_mask(shown["sofa"], rectangle(10, 20, 60, 30))
    assert not (shown["crab"].content()[..., 0] > 127).any()


def test_open_images_keeps_what_people_confirmed_and_what_is_whole(made: Made) -> None:
    (example,) = made("open_images")
    assert texts(example, "label")[0] == "cat"
    assert "tree" not in texts(example, "label")
    for shown in renders(example, "object-localization"):
        ((box, _),) = shown.boxes()
        assert ("table" in shown.prompt) == (pixels(box)[0] > 20)
    assert texts(example, "caption") == ["In this image I can see a cat."]
    assert_boxes(
        render(example, "object-detection"),
        {"cat": [12.0, 16.0, 24.0, 32.0], "table": [48.0, 32.0, 48.0, 32.0]},
    )
    relation = render(example, "relationship-prediction")
    assert relation.text == "inside of"
    assert relation.prompt.index("cat") < relation.prompt.index("table")
    assert texts(example, "phrase") == ["wooden table"]
    assert_mask(render(example, "semantic-segmentation"), rectangle(12, 16, 24, 32))


def test_visual_genome_regions_attributes_relations_and_questions(made: Made) -> None:
    (example,) = made("visual_genome")
    assert {shown.text for shown in renders(example, "region-captioning")} == {
        "the clock is green",
        "green, tall clock",
    }
    assert render(example, "relationship-prediction").text == "on"
    assert_boxes(render(example, "object-detection"), {"clock": [24, 16, 48, 32], "street": [0, 32, 96, 32]})
    shown = render(example, "vqa")
    assert "What colour is the clock?" in shown.prompt
    assert shown.text == "Green."


def test_phrases_of_the_largest_regions_make_a_caption(tmp_path: Path) -> None:
    source = {**FORMATS["visual_genome"](tmp_path), "caption_phrases": 2}
    file = tmp_path / "region_descriptions.json"
    said = json.loads(file.read_text())
    (region,) = said[0]["regions"]
    small, large = ({"width": side, "height": side, "x": 0, "y": 0} for side in (8, 60))
    more = [{**region, **small, "phrase": "A hand."}, {**region, **large, "phrase": "A street at noon."}]
    said[0]["regions"] += [*more, region]
    file.write_text(json.dumps(said))
    (example,), _ = read(source)
    assert render(example, "image-captioning").text == "A street at noon; the clock is green"


@pytest.mark.parametrize("protocol", range(5))
def test_expressions_lead_to_their_box_and_their_mask(protocol: int, tmp_path: Path) -> None:
    (example,), _ = read(refcoco(tmp_path, protocol))
    places = {"ball": COCO_BOXES["ball"], "the dog": COCO_BOXES["dog"], "brown dog": COCO_BOXES["dog"]}
    for shown in renders(example, "referring-expression"):
        (expression,) = (expression for expression in places if expression in shown.prompt)
        np.testing.assert_allclose(pixels(shown.boxes()[0][0]), places[expression], atol=0.2)
    masks = {"ball": rectangle(60, 40, 10, 10), "dog": rectangle(12, 8, 24, 32)}
    for shown in renders(example, "referring-expression-segmentation", 4):
        assert_mask(shown, masks["ball" if "ball" in shown.prompt else "dog"])


def test_expressions_are_read_from_json_too(tmp_path: Path) -> None:
    source = refcoco(tmp_path)
    (from_pickle,), _ = read(source)
    put_json(tmp_path / "refcoco/refs.json", references())
    (from_json,), _ = read(source | {"refs": "{dataset}/refs.json"})
    assert from_json.text == from_pickle.text


def test_answers_of_ten_people_are_drawn_as_often_as_they_were_given(made: Made, tmp_path: Path) -> None:
    (example,) = made("vqa_v2")
    assert texts(example, "answer") == ["net"] * 7 + ["netting"] * 3
    assert {shown.text for shown in renders(example, "vqa", 40)} == {"net", "netting"}
    (strict,), _ = read(FORMATS["vqa_v2"](tmp_path / "strict") | {"min_agreement": 4})
    assert set(texts(strict, "answer")) == {"net"}


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("a_okvqa", [("What is the man by the bags awaiting?", "ride")]),
        ("science_qa", [("Which of these states is farthest north? Choose one: (A) West Virginia", "West Virginia")]),
        ("vcr", [("Does person 1 feel comfortable with person 2 and car 3? Choose", "No, person 1 does not.")]),
        ("tally_qa", [("How many men are wearing ties?", "2")]),
        ("vsr", [("The teddy bear is in the person.", "true"), ("The person is under the bed.", "false")]),
        ("nlvr2", [("An image shows one leather pencil case.", "false"), ("There are two cases.", "true")]),
        ("visual_dialog", [("a woman with a dog. is the dog big?", "no"), ("a woman", "a poodle")]),
        ("visual_stories", [("How does this story end? The day began. We went to the park.", "It was fun.")]),
    ],
)
def test_questions_have_the_answers_of_their_own_item(name: str, pairs: list[tuple[str, str]], made: Made) -> None:
    found = items(made(name)[0], "question", "answer")
    for (question, answer), (start, right) in zip(found, pairs, strict=False):
        assert question.startswith(start)
        assert answer == right
    assert len(found) >= len(pairs)


def test_of_two_pictures_the_right_one_is_the_current_one(made: Made) -> None:
    (example,) = made("nlvr2")
    assert [image.uri.rsplit("-", 1)[1] for image in example.images if image.uri] == ["img0.png", "img1.png"]
    assert render(example, "image-pair-qa").rendered.lengths.earlier_images == 1


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("imagenet", "tench"),
        ("inaturalist", "Turdus merula"),
        ("places365", "apartment building, outdoor"),
        ("sun397", "abbey"),
        ("cub_200", "Black footed Albatross"),
        ("class_masks", "airport terminal"),
    ],
)
def test_classes_of_pictures_are_words(name: str, label: str, made: Made) -> None:
    assert render(made(name)[0], "image-tagging").text == label


def test_masks_of_numbers_become_masks_of_named_classes(made: Made) -> None:
    (example,) = made("class_masks")
    assert texts(example, "classes") == ["sky", "person"]
    found = {
        classes: shown
        for shown in renders(example, "semantic-segmentation")
        for classes in ("sky", "person")
        if classes in shown.prompt
    }
    assert_mask(found["person"], rectangle(12, 8, 24, 32))


def test_captions_that_say_nothing_are_left_out(made: Made) -> None:
    assert texts(made("vizwiz_captions")[0], "caption") == ["A can on a table."]
    assert texts(made("sci_cap")[0], "caption") == ["Loss over time."]


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    said = json.loads(path.read_bytes())
    put_json(path, edit(said) or said)


HOSTILE: list[tuple[str, str, Callable[[Any], Any], str, str]] = [
    (
        "coco",
        "annotations/instances_train2017.json",
        lambda s: s["annotations"][0].update(bbox=[1, 2]),
        "9",
        "boxes_malformed",
    ),
    (
        "coco",
        "annotations/instances_train2017.json",
        lambda s: s["annotations"][0].update(category_id=77),
        "9",
        "category_unknown",
    ),
    (
        "coco",
        "annotations/instances_train2017.json",
        lambda s: s["annotations"][0].update(segmentation=[[1, 2, 3]]),
        "9",
        "mask_malformed",
    ),
    (
        "coco",
        "annotations/instances_train2017.json",
        lambda s: s["annotations"][3]["segmentation"].update(size=[9, 9]),
        "9",
        "mask_size_mismatch",
    ),
    (
        "coco",
        "annotations/instances_train2017.json",
        lambda s: s["annotations"][4].update(image_id=77),
        "77",
        "missing_field",
    ),
    ("coco", "annotations/instances_train2017.json", lambda s: s["annotations"].append(None), "#1:8", "missing_field"),
    (
        "coco",
        "annotations/captions_train2017.json",
        lambda s: s["images"][0].update(file_name="../../x.jpg"),
        "9",
        "path_outside",
    ),
    (
        "coco",
        "annotations/captions_train2017.json",
        lambda s: s["images"][0].update(height=10),
        "9",
        "picture_size_mismatch",
    ),
    (
        "coco",
        "annotations/person_keypoints_train2017.json",
        lambda s: s["annotations"][0].update(keypoints=[1]),
        "9",
        "keypoints_malformed",
    ),
    ("coco_text", "cocotext.v2.json", lambda s: s["anns"]["45000"].update(utf8_string=4), "217925", "wrong_type"),
    ("lvis", "lvis_v1_train.json", lambda s: s["images"][0].update(neg_category_ids=3), "42", "wrong_type"),
    ("visual_genome", "objects.json", lambda s: s[0].update(objects=5), "1", "wrong_type"),
    ("visual_genome", "relationships.json", lambda s: s[0]["relationships"][0].update(subject=None), "1", "wrong_type"),
    (
        "vqa_v2",
        "v2_mscoco_train2014_annotations.json",
        lambda s: s["annotations"][0].update(answers=[]),
        "COCO_train2014_000000458752.jpg",
        "no_answer",
    ),
    ("a_okvqa", "aokvqa_v1p0_train.json", lambda s: s[0].update(correct_choice_idx=9), "#0:0", "choice_unknown"),
    ("gqa", "train_balanced_questions.json", lambda s: s["02930152"].update(question=None), "#0:0", "missing_field"),
    (
        "text_vqa",
        "TextVQA_0.5.1_train.json",
        lambda s: s["data"][0].update(image_id="../x"),
        "../x.jpg",
        "path_outside",
    ),
    ("inaturalist", "train.json", lambda s: s["annotations"][0].update(category_id=1), "#0:1", "category_unknown"),
    ("paragraphs", "paragraphs_v1.json", lambda s: s[0].update(paragraph=None), "2356347", "missing_field"),
    (
        "visual_dialog",
        "visdial_1.0_train.json",
        lambda s: s["data"]["dialogs"][0]["dialog"][0].update(answer=99),
        "378466",
        "missing_field",
    ),
    (
        "visual_stories",
        "sis/train.story-in-sequence.json",
        lambda s: s["annotations"][0][0].update(worker_arranged_photo_order="x"),
        "30355",
        "wrong_type",
    ),
]


@pytest.mark.parametrize(("name", "file", "edit", "key", "reason"), HOSTILE)
def test_a_row_that_cannot_be_read_costs_its_own_record_alone(
    name: str, file: str, edit: Callable[[Any], Any], key: str, reason: str, tmp_path: Path
) -> None:
    source = FORMATS[name](tmp_path)
    change(tmp_path / file, lambda said: edit(said) and None)
    examples, verdicts = read(source)
    assert verdicts[key] == reason
    assert len(examples) == sum(verdict == "kept" for verdict in verdicts.values())
    untouched = {one: verdict for one, verdict in EXPECTED[name][0].items() if one not in (key, "25")}
    assert untouched.items() <= verdicts.items() or key.startswith(("#", "../"))


def test_masks_and_pictures_that_are_not_there(tmp_path: Path) -> None:
    source = FORMATS["open_images"](tmp_path)
    (tmp_path / "train-masks/000026e7ee790996_m01yrx_34fbc4fa.png").unlink()
    assert read(source)[1] == {"000026e7ee790996": "missing_file"}
    few = FORMATS["coco"](tmp_path / "few")
    (tmp_path / "few/train2017/000000000025.jpg").unlink()
    validated = CocoSource.model_validate(few | {"name": "made", "missing": "drop"})
    (unit,) = validated.units()
    commit = process_unit(validated, (), unit, Dataset(str(tmp_path / "root"), "made"))
    assert commit.counts.records_dropped == {"missing_file": 1, "no_annotations": 1}
    source = FORMATS["class_masks"](tmp_path / "ade")
    put_picture(tmp_path / "ade/images/training/ADE_train_00000001.jpg", width=40, height=90)
    assert read(source)[1] == {"ADE_train_00000001": "picture_size_mismatch"}


def test_units_part_the_pictures_and_depend_on_their_own_slice(tmp_path: Path) -> None:
    settings = FORMATS["coco"](tmp_path) | {"name": "made", "media_per_unit": 1}
    source = CocoSource.model_validate(settings)
    units = list(source.units())
    assert len(units) >= 1
    parts = [unit.model_copy(update={"options": {"part": part, "parts": 3}}) for unit in units[:1] for part in range(3)]
    assert [[record.key for record in source.read(unit)] for unit in parts] == [["25"], ["30"], ["9"]]
    before = [source.inputs(unit) for unit in parts]
    change(
        tmp_path / "annotations/captions_train2017.json", lambda said: said["annotations"][0].update(caption="Other.")
    )
    after = [source.inputs(unit) for unit in parts]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, False]
    assert {ref.uri.rsplit("/", 1)[1] for ref in after[2]} >= {"000000000009.jpg", "captions_train2017.json"}


def test_of_many_objects_the_same_ones_are_drawn_every_time(tmp_path: Path) -> None:
    limits = {"classes": 2, "regions": 1, "masks": 1, "class_masks": 1, "boxes": 2, "people": 0}
    source = FORMATS["coco"](tmp_path) | {"objects": limits}
    first, second = (read(source)[0] for _ in range(2))
    assert first == second
    example = next(one for one in first if one.key == "9")
    listed = [box.label for box in example.annotations if box.kind == "box" and box.item is None]
    assert listed == ["dog", "person"]
    assert example.meta.tags == {"incomplete": "person; sports ball"}
    assert len(texts(example, "label")) == 3
    assert len(texts(example, "classes")) == 1


def test_a_unit_is_the_same_whatever_the_number_of_threads(tmp_path: Path) -> None:
    source = CocoSource.model_validate(FORMATS["coco"](tmp_path / "coco") | {"name": "made"})
    (unit,) = source.units()
    commits = [
        process_unit(source, (), unit, Dataset(str(tmp_path / f"root{threads}"), "made"), threads=threads)
        for threads in (1, 4)
    ]
    assert commits[0] == commits[1]
    assert commits[0].counts.as_json() == {
        "records": {"in": 3, "kept": 2, "dropped": {"no_annotations": 1}, "quarantined": {}},
        "examples": {"written": 2, "dropped": {}},
    }
    assert storage.digest_file(str(tmp_path / "coco/train2017/000000000009.jpg")) in {
        ref.digest for ref in commits[0].inputs
    }


@pytest.mark.parametrize("name", ["coco", "open_images", "class_masks"])
def test_a_remote_store_gives_what_a_local_folder_gives(name: str, tmp_path: Path) -> None:
    source = FORMATS[name](tmp_path)
    remote = f"memory://{tmp_path.name}"
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        storage.publish_bytes(f"{remote}/{path.relative_to(tmp_path)}", path.read_bytes())
    (local, verdicts), (far, same) = read(source), read(source | {"path": remote})
    assert verdicts == same
    assert [example.text for example in local] == [example.text for example in far]
    assert [example.annotations for example in local] == [example.annotations for example in far]


def test_a_damaged_annotation_file_quarantines_its_unit(tmp_path: Path) -> None:
    settings = FORMATS["coco"](tmp_path / "coco") | {"name": "made"}
    path = tmp_path / "coco/annotations/instances_train2017.json"
    path.write_bytes(path.read_bytes()[:-40])
    source = CocoSource.model_validate(settings)
    (unit,) = source.units()
    commit = process_unit(source, (), unit, Dataset(str(tmp_path / "root"), "made"))
    assert commit.counts.quarantined == {"invalid_json": 1}
