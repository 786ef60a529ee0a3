"""Annotated films, sound and agents in their published layouts come out as the examples that tasks need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from adapters import round_trip
from adapters.fixtures_clip import FORMATS, put_csv, put_json
from adapters.round_trip import levels_of, render, renders, tokenizers

from omnimill.schema import PICTURE_MARK, Example
from omnimill.tokenizers.embodied import decode_table_steps
from omnimill.tokenizers.places import decode_boxes
from omnimill.tokenizers.vocabulary import CODE_OFFSET
from omnimill.training.loading.batch import EncoderModality


@pytest.fixture(autouse=True)
def _own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of tables are made anew."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


def read(config: dict[str, Any]) -> tuple[list[Example], dict[str, str]]:
    """The examples of a source, and by record the reason why there are none."""
    examples, verdicts = round_trip.read(config)
    return examples, {key: verdict for key, verdict in verdicts.items() if verdict != "kept"}


def texts(example: Example, role: str) -> list[str]:
    return [text.text for text in example.text if text.role == role]


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], tuple[list[Example], dict[str, str]]]:
    return lambda name: read(FORMATS[name](tmp_path / name))


@pytest.mark.parametrize(
    ("name", "captions", "labels", "clips"),
    [
        ("audiocaps", ["A woman talks nearby as water pours"], [], 5),
        ("clotho", [f"A muddled noise of broken channel {n}" for n in "abcde"], [], 1),
        ("ljspeech", ['"Printing, in fifteen'], [], 1),
        ("macs", ["Adults talking and some footsteps.", "People are walking."], ["adults talking", "footsteps"], 1),
        ("musiccaps", ["The low quality recording features a ballad."], ["low quality", "sustained strings melody"], 5),
    ],
)
def test_sound(name: str, captions: list[str], labels: list[str], clips: int, made: Any) -> None:
    (example,), refused = made(name)
    assert texts(example, "caption") == captions
    assert texts(example, "label") == labels
    assert len(example.audio) == clips
    assert refused == ({"train/notInTheTable_0.wav": "not_in_table"} if name == "audiocaps" else {})


def test_windows_of_sound_are_spread_over_the_recording(made: Any) -> None:
    (example,), _ = made("audiocaps")
    starts = [clip.start for clip in example.audio]
    # Middles of five equal parts of 10 s; a window of 4.08 s does not reach beyond the ends.
    assert starts == pytest.approx([0, 0.96, 2.96, 4.96, 5.92], abs=1e-3)
    assert {clip.samples for clip in example.audio} == {65_280}


@pytest.mark.parametrize(
    ("name", "captions", "labels"),
    [
        ("epic_kitchens", [], ["open door"]),
        ("kinetics", [], ["testifying"]),
        ("msrvtt", ["a cartoon animals runs through an ice cave", "cartoon character runs around"], []),
        ("ssv2", [], ["Holding something next to something"]),
        ("ucf101", [], ["apply lipstick"]),
        ("vatex", ["Someone is using a rope.", "A man climbs."], []),
        ("vggsound", [], ["people marching"]),
    ],
)
def test_films(name: str, captions: list[str], labels: list[str], made: Any) -> None:
    (example,), refused = made(name)
    assert refused == {}
    assert texts(example, "caption") == captions
    assert texts(example, "label") == labels
    assert len(example.images) == len(example.audio) == 5
    times = [image.time for image in example.images]
    start, end = (1.1, 1.9) if name == "epic_kitchens" else (0.0, 2.0)
    assert times == pytest.approx([start + (end - start) * (n + 0.5) / 5 for n in range(5)], abs=0.02)


def test_an_action_is_anticipated_from_what_comes_before(made: Any) -> None:
    (example,), _ = made("epic_anticipation")
    times = [image.time for image in example.images]
    assert min(times) > 0.3 and max(times) < 0.9  # the action begins at 1.1 s; the gap is 0.2 s, the span 0.6 s


def test_each_event_of_a_film_is_an_example(made: Any) -> None:
    examples, _ = made("activitynet")
    assert [texts(example, "caption") for example in examples] == [["A girl dances."], ["She sits."]]
    assert examples[0].images[-1].time == pytest.approx(1.08, abs=0.02)
    assert examples[1].images[0].time == pytest.approx(1.1, abs=0.02)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("m4_vitevqa", [("what is on the sign?", ["stop", "stop sign"])]),
        (
            "msrvtt_qa",
            [("what are three people sitting on?", ["couch"]), ("what is a family having?", ["show"])],
        ),
        (
            "star",
            [
                (
                    "Which object was tidied up by the person? (The blanket.; The closet/cabinet.)",
                    ["The closet/cabinet."],
                )
            ],
        ),
    ],
)
def test_questions_about_films(name: str, asked: list[tuple[str, list[str]]], made: Any) -> None:
    (example,), _ = made(name)
    found = [
        (
            text.text,
            [other.text for other in example.text if other.role == "answer" and other.item == text.item],
        )
        for text in example.text
        if text.role == "question"
    ]
    assert found == asked
    # The third of five frames is the current one, which comes last.
    times = [image.time for image in example.images]
    assert times[-1] == sorted(times)[2]
    assert times[:-1] == sorted(times[:-1])


def test_got10k(made: Any) -> None:
    (example,), refused = made("got10k")
    assert refused == {}
    assert texts(example, "label") == ["beetle"]
    assert [(a.role, a.image) for a in example.annotations] == [("track", n) for n in range(4)] + [("boxes", 4)]
    # Frames 1, 3, 5, 7, 9: the square lies where the box says.
    for annotation, number in zip(example.annotations, (1, 3, 5, 7, 9), strict=True):
        left = 4 + 4 * number
        assert annotation.box == pytest.approx([20 / 60, left / 80, 36 / 60, (left + 16) / 80])
        pixels = cv2.imdecode(np.frombuffer(example.images[annotation.image].data, np.uint8), cv2.IMREAD_COLOR)
        assert pixels[28, left + 8, 2] > 200 > pixels[28, left - 6, 2]


def test_lasot(made: Any) -> None:
    examples, _ = made("lasot")
    assert [example.key for example in examples] == ["airplane/airplane-1#0"]
    assert texts(examples[0], "label") == ["airplane"]
    assert texts(examples[0], "expression") == ["white airplane landing on ground"]
    assert [a.image for a in examples[0].annotations] == [0, 2, 3, 4]  # it is hidden in the second frame


def test_tracks_that_cannot_be_read(tmp_path: Path) -> None:
    config = FORMATS["got10k"](tmp_path / "t")
    home = tmp_path / "t" / "train" / "GOT-10k_Train_000001"
    (home / "absence.label").write_text("0\n" * 8 + "1\n")
    assert read(config) == ([], {"train/GOT-10k_Train_000001#0": "object_absent"})
    (home / "absence.label").write_text("0\n" * 9)
    (home / "00000009.jpg").unlink()
    assert read(config)[1] == {"train/GOT-10k_Train_000001#0": "frame_missing"}
    (home / "groundtruth.txt").write_text("1,2,3\n")
    assert read(config)[1] == {"train/GOT-10k_Train_000001": "track_malformed"}


def test_youtube_bb(made: Any) -> None:
    examples, _ = made("youtube_bb")
    # Present at 0.25, 0.5, 0.75 s, absent at 1 s, present at 1.25 and 1.5 s.
    times = [[image.time for image in example.images] for example in examples]
    assert times == [[0.25, 0.5, 0.75], [1.25, 1.5]]
    assert [a.role for a in examples[0].annotations] == ["track", "track", "boxes"]
    assert examples[0].annotations[-1].box == pytest.approx([0.2, 0.25, 0.8, 0.55])
    assert texts(examples[0], "label") == ["person"]


def test_ava(made: Any) -> None:
    (example,), _ = made("ava")
    assert [image.time for image in example.images] == pytest.approx([0.4, 0.7, 1.3, 1.6, 1.0])
    said = {text.item: text.text for text in example.text}
    boxes = {item: [a.box for a in example.annotations if a.item == item] for item in said}
    assert {said[item]: len(found) for item, found in boxes.items()} == {"read": 2, "watch (a person)": 1}
    assert all(a.image == 4 for a in example.annotations)
    assert [0.151, 0.077, 0.811, 0.283] in boxes[0]


def test_rows_of_boxes_that_cannot_be_read(tmp_path: Path) -> None:
    config = FORMATS["ava"](tmp_path / "t")
    table = tmp_path / "t" / "ava_train_v2.2.csv"
    put_csv(table, [["-5KQ66BBWC4", "0001", 0.1, 0.1, 0.2, 0.2, 77, 1]])
    assert read(config)[1] == {"videos/-5KQ66BBWC4.mkv": "label_unknown"}
    put_csv(table, [["-5KQ66BBWC4", "0001", 0.1, "x", 0.2, 0.2, 9, 1]])
    assert read(config)[1] == {"videos/-5KQ66BBWC4.mkv": "boxes_malformed"}
    put_csv(table, [["-5KQ66BBWC4", "0100", 0.1, 0.1, 0.2, 0.2, 9, 1]])
    assert read(config)[1] == {"videos/-5KQ66BBWC4.mkv": "span_outside"}


def test_flickr_soundnet(made: Any) -> None:
    (example,), refused = made("flickr_soundnet")
    assert set(refused.values()) == {"sidecar"}
    assert len(example.audio) == 5
    (annotation,) = example.annotations
    assert annotation.box == pytest.approx([64 / 256, 32 / 256, 190 / 256, 128 / 256])  # medians


def test_a_sound_nobody_agrees_on(tmp_path: Path) -> None:
    config = FORMATS["flickr_soundnet"](tmp_path / "t")
    notes = tmp_path / "t" / "Annotations" / "10000130166.xml"
    notes.write_text("<annotation><bbox><a>1</a><b>2</b><c>30</c><d>40</d></bbox></annotation>")
    assert read(config)[1]["frames/10000130166.jpg"] == "no_consensus"
    notes.write_text('<!DOCTYPE x [<!ENTITY e "x">]><annotation>&e;</annotation>')
    assert read(config)[1]["../Annotations/10000130166.xml".removeprefix("../")] == "boxes_malformed"


def test_vima(made: Any) -> None:
    (example,), _ = made("vima")
    assert texts(example, "instruction") == [f"Put the {PICTURE_MARK} into the {PICTURE_MARK}."]
    # The prompt's pictures in the order in which it names them, then the scene.
    lefts = []
    for image in example.images:
        pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)
        lefts.append(int(np.argmax(pixels[28, :, 2] > 150)))
    assert np.abs(np.array(lefts) - [8, 20, 36]).max() <= 1
    (annotation,) = example.annotations
    assert (annotation.kind, annotation.role, annotation.label) == ("table_steps", "action", "pick")
    assert annotation.values == pytest.approx([0.61, -0.2, 0.0, 0.42, 0.1, 90.0], abs=0.1)


def test_the_goal_of_a_manipulation_is_its_last_frame(tmp_path: Path) -> None:
    config = FORMATS["vima"](tmp_path)
    (start,), _ = read(config)
    (goal,), _ = read({**config, "shows": "goal"})
    last = tmp_path / "visual_manipulation" / "000000" / "frames" / "000001.jpg"
    assert [image.digest for image in goal.images[:-1]] == [image.digest for image in start.images]
    assert goal.images[-1].uri == str(last)
    assert goal.annotations == []
    assert PICTURE_MARK in texts(goal, "instruction")[0]
    assert render(goal, "goal-generation").picture is not None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": "Put {nothing} there."}, "trajectory_malformed"),
        ({"frames": ["frames/9.jpg"]}, "frame_missing"),
        ({"actions": [{"pose0_position": [0.5]}]}, "trajectory_malformed"),
        ({"end_effector": "hand"}, "trajectory_malformed"),
        ({"prompt": "{base_obj}" * 5}, "too_many_pictures"),
    ],
)
def test_episodes_that_cannot_be_read(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    import json

    config = FORMATS["vima"](tmp_path / "t")
    path = tmp_path / "t" / "visual_manipulation" / "000000" / "episode.json"
    put_json(path, json.loads(path.read_text()) | change)
    assert set(read(config)[1].values()) == {reason}


def test_tracks_are_read_back(made: Any) -> None:
    (example,), _ = made("got10k")
    shown = render(example, "video-tracking")
    ((box, _),) = shown.boxes()
    assert example.annotations[-1].box == pytest.approx(list(box), abs=max(shown.error()))
    # The earlier boxes stand in the prompt, each behind its picture's marker.
    vocabulary = tokenizers().text.vocabulary
    ids = shown.rendered.text.tolist()
    for place, annotation in enumerate(example.annotations[:-1]):
        begin = len(ids) - 1 - ids[::-1].index(vocabulary.image_history(place + 1)) + 1
        ((earlier, _),) = decode_boxes(ids[begin : begin + 4], shown.frame(place), tokenizers().numbers)
        assert annotation.box == pytest.approx(list(earlier), abs=max(shown.error(place)))
    frame = render(example, "next-frame-generation")
    assert frame.picture is not None and len(frame.rendered.frames[EncoderModality.IMAGE_HISTORY]) == 4


def test_actions_are_read_back(made: Any) -> None:
    (example,), _ = made("ava")
    names = {text.item: text.text for text in example.text}
    found = set()
    for shown in renders(example, "video-action-localization"):
        item = next(item for item, name in names.items() if name in shown.prompt)
        wanted = sorted(one.box for one in example.annotations if one.item == item)
        boxes = sorted(list(box) for box, _ in shown.boxes())
        assert np.abs(np.array(boxes) - wanted).max() <= max(shown.error())
        found.add(item)
    assert found == set(names)


def test_where_sound_comes_from_is_read_back(made: Any) -> None:
    (example,), _ = made("flickr_soundnet")
    shown = render(example, "video-sound-localization")
    ((box, _),) = shown.boxes()
    assert example.annotations[0].box == pytest.approx(list(box), abs=max(shown.error()))
    assert shown.rendered.frames[EncoderModality.AUDIO]


def test_steps_on_a_table_are_read_back(made: Any) -> None:
    (example,), _ = made("vima")
    shown = render(example, "action-prediction", prompts=("{instruction} Act.",))
    (step,) = decode_table_steps(shown.ids, tokenizers().numbers)
    assert step.kind == "pick"
    assert [*step.start, *step.end] == pytest.approx([0.61, -0.2, 0.0, 0.42, 0.1, 90.0], abs=0.4)
    vocabulary = tokenizers().text.vocabulary
    markers = [i for i in shown.rendered.text.tolist() if i in {vocabulary.image_history(k) for k in (1, 2)}]
    assert markers[-2:] == [vocabulary.image_history(1), vocabulary.image_history(2)]


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("audiocaps", "audio-captioning"),
        ("epic_kitchens", "video-tagging"),
        ("macs", "audio-tagging"),
        ("msrvtt", "video-captioning"),
        ("msrvtt_qa", "video-question-answering"),
        ("star", "video-question-answering"),
        ("vggsound", "audio-tagging"),
    ],
)
def test_words_are_read_back(name: str, family: str, made: Any) -> None:
    (example,), _ = made(name)
    asked = {text.item: text.text for text in example.text if text.role == "question"}
    told = {(text.item, text.text) for text in example.text if text.role in ("answer", "caption", "label")}
    for shown in renders(example, family):
        items = [item for item, question in asked.items() if question in shown.prompt] or [None]
        assert (items[0], shown.text) in told


def test_sound_is_a_target(made: Any) -> None:
    (example,), _ = made("clotho")
    shown = render(example, "audio-from-text")
    assert any(caption in shown.prompt for caption in texts(example, "caption"))
    levels = levels_of(shown.rendered.target.targets - CODE_OFFSET)
    assert levels.max() - levels.min() > 5  # a tone, and silence above it
