"""Task augmentation: every answer that an operator adds is worked out again here, from the scene itself."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator
from typing import Any

import family_examples as scene
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from omnimill.mixtures.config import Task
from omnimill.mixtures.items import complete_items, needs
from omnimill.mixtures.row_columns import RowLengths
from omnimill.mixtures.task_families import families
from omnimill.pipelines.operators.augment_boxes import FORMATS, PROPERTIES
from omnimill.pipelines.operators.augment_detection import JOINT
from omnimill.pipelines.operators.augment_keypoints import PARTS
from omnimill.pipelines.operators.augmentation_types import AUGMENTATION_TYPES
from omnimill.schema import Annotation, Example, Meta, Text, to_table
from omnimill.tokenizers import keypoints
from omnimill.tokenizers.box_variants import BOX_FORMATS, BOX_PROPERTIES

MANY = 40
VOCABULARY = [*scene.OBJECTS, "cup", "sofa"]


def grown(operator: str, columns: dict[str, Any], number: int = 0, **settings: Any) -> Example:
    """An example, one of many alike, that an operator has been over."""
    return scene.augmented(operator, settings, scene.example(f"s{number}", columns))


def added(operator: str, columns: dict[str, Any], **settings: Any) -> Iterator[tuple[dict[str, str], list[Annotation]]]:
    """New items of many examples: their texts by role, and their annotations."""
    for number in range(MANY):
        before = scene.example(f"s{number}", columns)
        kept = {one.item for one in (*before.text, *before.annotations)}
        after = grown(operator, columns, number, **settings)
        items = {one.item for one in (*after.text, *after.annotations, *after.targets)} - kept - {None}
        for item in sorted(items):
            texts = {text.role: text.text for text in after.text if text.item == item}
            yield texts, [one for one in after.annotations if one.item == item]


def pixels(png: bytes | None) -> np.ndarray:
    assert png is not None
    with Pillow.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("L")) > 127


def inside(box: list[float] | None) -> np.ndarray:
    """Pixels whose middle lies in a box."""
    assert box is not None
    rows = (np.arange(scene.HEIGHT) + 0.5) / scene.HEIGHT
    columns = (np.arange(scene.WIDTH) + 0.5) / scene.WIDTH
    return np.outer((rows > box[0]) & (rows < box[2]), (columns > box[1]) & (columns < box[3]))


def names(text: str) -> list[str]:
    return re.split(", | or ", text)


BOXED = scene.photo(*scene.EXPRESSIONS, annotations=(*scene.LISTED, *scene.EXPRESSION_BOXES))
SEGMENTED = scene.photo(scene.CAPTION, *scene.CLASS_TEXTS, annotations=scene.CLASS_MASKS)
OF_WORDS = dict(zip([text.text for text in scene.EXPRESSIONS], scene.OBJECTS, strict=True))
MASKS = {name: pixels(scene.mask(name)) for name in (*scene.OBJECTS, "cup")}


@pytest.mark.parametrize(
    ("variant", "role", "counts"), [("any_of", "any_of", {2, 3, 4}), ("none_of", "none_of", {1, 2, 3, 4})]
)
def test_pixels_of_any_and_of_no_class(variant: str, role: str, counts: set[int]) -> None:
    asked = []
    for texts, (mask,) in added("augment_segmentation", SEGMENTED, variants=[variant]):
        classes = names(texts[role])
        union = sum((MASKS[name] for name in classes), np.zeros_like(MASKS["cup"]))
        np.testing.assert_array_equal(pixels(mask.mask), union if variant == "any_of" else ~union)
        assert len(set(classes)) == len(classes)
        asked.append(classes)
    assert len(asked) == MANY
    assert {len(classes) for classes in asked} == counts
    # A class that is not there is asked for too, but never alone.
    assert any("cup" in classes for classes in asked)
    assert all(set(classes) & set(scene.OBJECTS) for classes in asked)


def test_a_class_in_a_box() -> None:
    cut = 0
    for texts, found in added("augment_segmentation", SEGMENTED, variants=["within"]):
        (box,) = [one for one in found if one.role == "within"]
        (mask,) = [one for one in found if one.mask]
        wanted = MASKS[texts["wanted"]] & inside(box.box)
        np.testing.assert_array_equal(pixels(mask.mask), wanted)
        assert wanted.any()
        cut += int(wanted.sum() < MASKS[texts["wanted"]].sum())
    assert cut > MANY / 2


def test_classes_of_the_vocabulary_are_absent_only_where_all_boxes_are_listed() -> None:
    listed = {**SEGMENTED, "annotations": [*SEGMENTED["annotations"], *scene.LISTED]}
    for columns, asked_for in ((SEGMENTED, False), (listed, True)):
        found = added("augment_segmentation", columns, variants=["any_of"], vocabulary=VOCABULARY)
        assert any("sofa" in texts["any_of"] for texts, _ in found) == asked_for


def test_a_class_with_a_crowd_is_neither_absent_nor_known() -> None:
    name = next(one.label for one in scene.LISTED if one.label)
    listed = {**scene.photo(annotations=scene.LISTED), "meta": Meta(tags={"incomplete": f"{name}; sofa"})}
    found = list(added("augment_detection", listed, variants=["any_of"], vocabulary=VOCABULARY))
    assert found
    assert not any(word in texts["any_of"] for texts, _ in found for word in ("sofa", str(name)))


def test_every_property_and_format_of_the_tokenizers_is_asked_for() -> None:
    assert set(PROPERTIES) == set(BOX_PROPERTIES)
    # The remaining one is how boxes are written anyway.
    assert {*FORMATS, "yxyx"} == set(BOX_FORMATS)


@pytest.mark.parametrize(
    ("variant", "role", "words"), [("property", "measure", PROPERTIES), ("format", "written", FORMATS)]
)
def test_properties_and_formats_are_of_the_thing_that_is_meant(variant: str, role: str, words: dict[str, str]) -> None:
    seen = set()
    for texts, (one,) in added("augment_boxes", BOXED, variants=[variant], items=2):
        name = OF_WORDS.get(texts["query"], texts["query"])
        assert (one.role, one.box) == (role, scene.box(name))
        assert one.form is not None
        assert texts[variant] == words[one.form]
        seen.add(one.form)
    assert len(seen) > len(words) / 2


def test_a_class_with_two_objects_is_not_asked_for_as_one() -> None:
    twice = scene.photo(
        annotations=(*scene.LISTED, Annotation(kind="box", image=0, label="ball", box=[0, 0, 0.1, 0.1]))
    )
    assert "ball" not in {texts["query"] for texts, _ in added("augment_boxes", twice, variants=["property"])}


def test_boxes_of_some_classes_are_all_of_theirs() -> None:
    pair = Annotation(kind="box", image=0, label="ball", box=[0, 0, 0.1, 0.1])
    columns = scene.photo(annotations=(*scene.LISTED, pair))
    counts = set()
    for texts, boxes in added("augment_detection", columns, variants=["any_of"], vocabulary=VOCABULARY):
        classes = names(texts["any_of"])
        wanted = [(one.label, one.box) for one in columns["annotations"] if one.label in classes]
        labelled = texts["labelling"] == "with names"
        assert sorted((one.box or [], one.label) for one in boxes) == sorted(
            (box, label if labelled else None) for label, box in wanted
        )
        counts.add(len(classes))
    assert counts == {1, 2, 3, 4}


def test_boxes_of_several_expressions_come_in_their_order() -> None:
    for texts, boxes in added("augment_detection", BOXED, variants=["several"]):
        wanted = [scene.box(OF_WORDS.get(words, words)) for words in texts["several"].split("; ")]
        assert [(one.role, one.box, one.label) for one in boxes] == [("boxes_in_order", box, None) for box in wanted]
        assert 2 <= len(boxes) <= 4


def test_joint_properties_by_counting_pixels() -> None:
    near = Annotation(kind="box", image=0, label="rug", box=[0.4, 0.1, 0.9, 0.6])
    columns = scene.photo(annotations=(*scene.LISTED, near))
    covered = {str(one.label): inside(one.box) for one in columns["annotations"]}
    seen = []
    for texts, (one,) in added("augment_detection", columns, variants=["joint"], items=3):
        things = [covered[name] for name in texts["several"].split("; ")]
        joint = {words: name for name, words in JOINT.items()}[texts["joint"]]
        answer = inside(one.box)
        if joint == "overlap":
            assert (len(things), one.form) == (2, "area")
            assert answer.sum() == (things[0] & things[1]).sum()
        elif joint == "union":
            rows, columns_ = np.where(np.logical_or.reduce(things))
            found = np.where(answer)
            assert [(side.min(), side.max()) for side in found] == [
                (rows.min(), rows.max()),
                (columns_.min(), columns_.max()),
            ]
        else:
            choose = min if joint == "smallest" else max
            np.testing.assert_array_equal(answer, choose(things, key=np.sum))
        seen.append((joint, bool(answer.any())))
    assert {joint for joint, _ in seen} == set(JOINT)
    # Things that do not meet have nothing in common, and that is asked too.
    assert {("overlap", True), ("overlap", False)} <= set(seen)


def test_relations_are_all_of_the_subject() -> None:
    boxes = {
        texts["relations"]: one for texts, (one,) in added("augment_relations", scene.RELATIONS, variants=["of_box"])
    }
    ((relations, box),) = boxes.items()
    assert (relations, box.role, box.label, box.box) == (
        "left of crate; under lamp",
        "focus",
        "ball",
        scene.box("ball"),
    )
    classes = {tuple(texts.values()) for texts, _ in added("augment_relations", scene.RELATIONS, variants=["of_class"])}
    assert classes == {("ball", "ball left of crate; ball under lamp")}
    # More than the source may have taken: what is there may not be all.
    assert list(added("augment_relations", scene.RELATIONS, most=1)) == []


@given(st.text(min_size=1, max_size=80).filter(str.strip), st.integers(0, 50))
def test_captions_meet_what_is_demanded_of_them(caption: str, number: int) -> None:
    after = grown("augment_captions", {"text": [Text(role="caption", text=caption)]}, number, items=2)
    for item in {text.item for text in after.text} - {None}:
        texts = {text.role: text.text for text in after.text if text.item == item}
        given_caption = texts.pop("fitting_caption")
        assert given_caption == caption.strip()
        ((role, demand),) = texts.items()
        if role in ("more_than", "fewer_than"):
            bound, unit = demand.split()
            length = len(given_caption.split()) if unit.startswith("word") else len(given_caption)
            assert (length > int(bound)) if role == "more_than" else (length < int(bound))
        elif role == "words":
            assert all(word in given_caption for word in demand.split(", "))
        else:
            assert role == "start"
            assert given_caption.split()[: len(demand.split())] == demand.split()


def test_a_part_of_a_person_is_where_it_is_or_missing() -> None:
    seen = set()
    for texts, found in added("augment_keypoints", scene.PERSON):
        part = PARTS.index(texts["part"])
        y, x, visibility = scene.POSE[3 * part : 3 * part + 3]
        assert found[0].role == "person"
        assert found[0].box == scene.PERSON["annotations"][0].box
        assert [one.points for one in found[1:]] == ([[y, x]] if visibility else [])
        assert texts.get("place") == (None if visibility else "MISSING")
        seen.add(bool(visibility))
    assert seen == {True, False}
    assert PARTS == keypoints.PARTS


def normals() -> np.ndarray:
    return scene.rounded() / np.maximum(np.linalg.norm(scene.rounded(), axis=-1, keepdims=True), 1e-12)


def test_channels_of_normals_show_the_axes_that_are_named() -> None:
    for number in range(MANY):
        after = grown("augment_normals", scene.NORMALS, number, variants=["channels"])
        (words,) = [text.text for text in after.text if text.role == "channels"]
        (target,) = [one for one in after.targets if one.role == "channels"]
        with Pillow.open(io.BytesIO(target.data)) as picture:
            shown = np.asarray(picture, np.float64)
        assert words != "red shows x, green shows y, blue shows z"
        for channel, part in enumerate(words.split(", ")):
            colour, _, what = part.partition(" ")
            assert colour == ("red", "green", "blue")[channel]
            if what == "is dark":
                assert not shown[..., channel].any()
            else:
                axis = "xyz".index(what.removeprefix("shows "))
                assert np.abs(shown[..., channel] / 127.5 - 1 - normals()[..., axis]).max() <= 1 / 255 + 1e-9


def test_the_normal_at_a_point_is_the_map_s() -> None:
    for _, (point, orientation) in added("augment_normals", scene.NORMALS, variants=["point"]):
        y, x = point.points or []
        wanted = normals()[int(y * scene.HEIGHT), int(x * scene.WIDTH)]
        np.testing.assert_allclose(orientation.values, wanted, atol=1e-6)
        assert (orientation.low, orientation.high) == (-1.0, 1.0)


def test_surfaces_that_face_a_direction_lie_within_the_angle() -> None:
    sides = {"to the right": (1, 0, 0), "to the left": (-1, 0, 0), "down": (0, -1, 0)}
    directions = {**sides, "up": (0, 1, 0), "towards the camera": (0, 0, 1)}
    # The sides of the ball are less than a hundredth of the picture.
    for min_share, wanted_directions in ((0.001, set(directions)), (0.01, set(directions) - set(sides))):
        seen = set()
        settings = {"variants": ["facing"], "angle": 40, "min_share": min_share}
        for texts, (mask,) in added("augment_normals", scene.NORMALS, **settings):
            cosine = normals() @ np.array(directions[texts["facing"]])
            wanted = np.degrees(np.arccos(np.clip(cosine, -1, 1))) <= 40
            assert (pixels(mask.mask) != wanted).mean() < 1e-3
            seen.add(texts["facing"])
        assert seen == wanted_directions


def test_plans_and_affordances_are_what_the_agent_does() -> None:
    feasible = []
    for texts, _ in added("augment_episodes", scene.robot()):
        if "plan" in texts:
            assert texts["plan"] == "1. go to the ball 2. grasp the ball 3. lift the ball"
        else:
            assert (texts["proposal"] == "lift the ball") == (texts["feasible"] == "yes")
            feasible.append(texts["feasible"])
    assert len(feasible) == MANY
    assert 0.2 < feasible.count("yes") / MANY < 0.8


def test_goals_are_the_last_picture_and_nothing_tells_them() -> None:
    first, *_, last = scene.robot()["images"]
    after = grown("augment_goals", scene.robot())
    assert [image.data for image in after.images] == [first.data, last.data]
    assert [(text.role, text.text) for text in after.text] == [("instruction", "lift the ball")]
    assert after.trajectory is None


def test_subgoals_are_stretches_of_pictures() -> None:
    told = [scene.said("subgoal", words, image=i) for i, words in enumerate(("turn", "turn", "turn", "go", "go"))]
    frames = scene.film()["images"]
    found = {
        after.text[0].text: [image.data for image in after.images]
        for after in (grown("augment_goals", {"images": frames, "text": told}, i, of="subgoal") for i in range(MANY))
    }
    assert found == {
        "turn": [frames[0].data, frames[2].data],
        "go": [frames[3].data, frames[4].data],
    }


def test_inpainting_cuts_out_an_object_of_a_tenth_of_the_picture() -> None:
    cut = set()
    for number in range(MANY):
        after = grown("augment_inpainting", BOXED, number)
        ((label,), (hole,), (target,)) = after.text, after.annotations, after.targets
        (y1, x1, y2, x2), (top, left, bottom, right) = hole.box or [], scene.box(label.text)
        # Whole pixels, at most one more on each side.
        assert top - 1 / scene.HEIGHT < y1 <= top and bottom <= y2 < bottom + 1 / scene.HEIGHT
        assert left - 1 / scene.WIDTH < x1 <= left and right <= x2 < right + 1 / scene.WIDTH
        with Pillow.open(io.BytesIO(after.images[0].data)) as picture:
            shown = np.asarray(picture.convert("RGB"), np.int64)
        gone = inside(hole.box)
        assert shown[gone].mean() < 5
        assert np.abs(shown - scene.scene())[~gone].mean() < 5
        assert target.data == BOXED["images"][0].data
        cut.add(label.text)
    # The lamp and the ball cover less than a tenth.
    assert cut == {"crate"}


def test_pictures_that_cannot_be_turned_into_tasks_are_dropped_with_a_reason() -> None:
    def verdict(operator: str, columns: dict[str, Any], **settings: Any) -> str | None:
        return scene.verdict(operator, settings, scene.example("s", columns))

    assert verdict("augment_inpainting", BOXED, min_share=0.5) == "no_large_object"
    assert verdict("augment_inpainting", {}) == "no_picture"
    assert verdict("augment_control", scene.photo(scene.CAPTION)) == "no_class_masks"
    assert verdict("augment_control", {**SEGMENTED, "text": list(scene.CLASS_TEXTS)}) == "no_caption"
    assert verdict("augment_goals", {**scene.robot(), "text": []}) == "no_instruction"
    assert verdict("augment_goals", {**scene.robot(), "images": scene.robot()["images"][:1]}) == "no_second_picture"


def test_a_segmentation_steers_its_picture_with_a_colour_per_class() -> None:
    after = grown("augment_control", SEGMENTED)
    assert [(text.role, text.text) for text in after.text] == [
        ("control", "segmentation"),
        ("caption", scene.CAPTION.text),
    ]
    assert after.targets[0].data == SEGMENTED["images"][0].data
    with Pillow.open(io.BytesIO(after.images[0].data)) as picture:
        shown = np.asarray(picture.convert("RGB"), np.int64)
    colours = {name: np.median(shown[MASKS[name]], axis=0) for name in scene.OBJECTS}
    assert all(np.abs(shown[MASKS[name]] - colour).mean() < 8 for name, colour in colours.items())
    assert all(np.abs(a - b).sum() > 30 for a, b in itertools.combinations(colours.values(), 2))
    assert shown[~np.logical_or.reduce(list(MASKS.values()))].mean() < 8


# Operators that make another picture of an example leave none of its other tasks.
REPLACING = {"augment_control", "augment_goals", "augment_inpainting"}


@pytest.mark.parametrize("name", scene.AUGMENTED)
def test_the_same_example_is_augmented_alike_in_any_company(name: str) -> None:
    operator, settings, columns = scene.AUGMENTED[name]
    kind = next(kind for kind in AUGMENTATION_TYPES if operator in str(kind.model_fields["op"].annotation))
    alone = scene.augmented(operator, settings, scene.example("one", columns))
    both = [scene.example("other", columns), scene.example("one", columns)]
    kind.model_validate({"op": operator, **settings})(both)
    scene.settle(both[1])
    assert to_table([both[1]]).equals(to_table([alone]))
    assert kind.per_example


@pytest.mark.parametrize("name", [name for name, entry in scene.AUGMENTED.items() if entry[0] not in REPLACING])
def test_tasks_of_the_table_find_what_they_found_before(name: str) -> None:
    operator, settings, columns = scene.AUGMENTED[name]
    before, after = scene.example("s", columns), grown(operator, columns, **settings)
    for family in families().values():
        if family.kind != "augmentation" and family.name != name:
            task = Task.model_validate({**family.defaults(), "name": family.name, "rate": 1, "sources": ["s"]})
            assert complete_items(lengths(after), needs(task)) == complete_items(lengths(before), needs(task)), (
                family.name
            )


def lengths(example: Example) -> RowLengths:
    """The row that an example becomes, as far as roles and items go."""
    kinds = {"box": "boxes", "cuboid": "cuboids"}
    said = [(text.role, text.item) for text in example.text]
    said += [
        (one.role or kinds.get(one.kind, one.kind), one.item)
        for one in example.annotations
        if one.box or one.points or one.values
    ]
    drawn = [("segmentation", one.item) for one in example.annotations if one.mask]
    drawn += [(one.role or one.kind, one.item) for one in example.targets]
    row: dict[str, Any] = {name: [] for name in RowLengths.__dataclass_fields__}
    row |= {"text_roles": [role for role, _ in said], "text_items": [item for _, item in said]}
    row |= {"target_roles": [role for role, _ in drawn], "target_items": [item for _, item in drawn]}
    for side, count in (("text_lengths", len(said)), ("target_codes_lengths", len(drawn))):
        row[side] = [1] * count
    for side in ("text_images", "text_audio"):
        row[side] = [None] * len(said)
    row["target_images"] = [None] * len(drawn)
    return RowLengths(**row)
