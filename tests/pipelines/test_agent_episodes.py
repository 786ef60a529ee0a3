"""Episodes of agents in houses: ALFRED's trials, recordings of Habitat and ProcTHOR, and what these publish."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.actions import action_words
from omnimill.pipelines.sources.alfred import AlfredSource
from omnimill.pipelines.sources.navigation import NavigationSource
from omnimill.schema import Example, Image

Read = Callable[[Source], tuple[list[Example], dict[str, str]]]

TRIAL = "valid_seen/pick_and_place_simple-Bowl-None-CoffeeTable-201/trial_T20190907_171639_045329"


def frame(level: int) -> bytes:
    stream = io.BytesIO()
    Pillow.new("RGB", (30, 30), (level, level, level)).save(stream, "JPEG")
    return stream.getvalue()


def level(image: Image) -> int:
    return round(float(np.asarray(Pillow.open(io.BytesIO(image.data))).mean()))


def trial(**other: Any) -> dict[str, Any]:
    """Three low-level actions in two subgoals, the second of which was filmed twice."""
    return {
        "images": [{"high_idx": 0, "low_idx": i, "image_name": f"{n:09d}.png"} for n, i in enumerate([0, 1, 1, 2])],
        "plan": {
            "high_pddl": [{"discrete_action": {"action": "GotoLocation", "args": ["bowl"]}, "high_idx": 0}],
            "low_actions": [
                {"api_action": {"action": "MoveAhead"}, "discrete_action": {"action": "MoveAhead_25"}, "high_idx": 0},
                {"api_action": {"action": "RotateLeft"}, "discrete_action": {"action": "RotateLeft_90"}, "high_idx": 0},
                {
                    "api_action": {"action": "PickupObject", "objectId": "AlarmClock|+01.20|+00.93|+00.74"},
                    "discrete_action": {"action": "PickupObject", "args": {"bbox": [1, 2, 3, 4]}},
                    "high_idx": 1,
                },
            ],
        },
        "scene": {"floor_plan": "FloorPlan201", "scene_num": 201},
        "task_id": "trial_T20190907_171639_045329",
        "task_type": "pick_and_place_simple",
        "turk_annotations": {
            "anns": [
                {"task_desc": "Take the clock.", "high_descs": ["Walk to the shelf.", "Pick up the clock."]},
                {"task_desc": "Get a clock.", "high_descs": ["Go to it."]},
            ]
        },
        **other,
    }


@pytest.fixture
def alfred(tmp_path: Path) -> Callable[..., AlfredSource]:
    def write(said: Any, frames: int = 4, **settings: Any) -> AlfredSource:
        folder = tmp_path / TRIAL
        (folder / "raw_images").mkdir(parents=True)
        (folder / "traj_data.json").write_text(said if isinstance(said, str) else json.dumps(said))
        for number in range(frames):
            (folder / "raw_images" / f"{number:09d}.jpg").write_bytes(frame(50 * number))
        return AlfredSource(type="alfred", name="alfred", path=str(tmp_path), **settings)

    return write


def test_a_trial_in_the_words_of_its_annotators(alfred: Callable[..., AlfredSource], read_source: Read) -> None:
    (example,), verdicts = read_source(alfred(trial()))
    assert verdicts == {f"{TRIAL}/traj_data.json": "kept"}
    assert [(text.role, text.text, text.image) for text in example.text] == [
        ("instruction", "Take the clock.", None),
        ("instruction", "Get a clock.", None),
        ("subgoal", "Pick up the clock.", None),
        ("step", "forward", 0),
        ("step", "left", 1),
        ("step", "pick up alarm clock", 2),
    ]
    assert [level(image) for image in example.images] == [0, 50, 150]
    assert example.trajectory is not None
    assert (example.trajectory.step_images, example.trajectory.states) == ([0, 1, 2], [])
    assert example.meta.tags == {
        "split": "valid_seen",
        "scene": "FloorPlan201",
        "task_type": "pick_and_place_simple",
    }


def test_runs_take_the_subgoal_of_their_last_step(alfred: Callable[..., AlfredSource], read_source: Read) -> None:
    examples, _ = read_source(alfred(trial(), steps_per_example=2, frames_per_example=1))
    subgoals = [[text.text for text in example.text if text.role == "subgoal"] for example in examples]
    assert subgoals == [["Walk to the shelf.", "Go to it."], ["Pick up the clock."]]
    assert [[level(image) for image in example.images] for example in examples] == [[50], [150]]
    assert [[text.image for text in example.text if text.role == "step"] for example in examples] == [[None, 0], [0]]


def test_trials_may_come_without_frames(alfred: Callable[..., AlfredSource], read_source: Read) -> None:
    source = alfred(trial(), frames=3)
    assert list(read_source(source)[1].values()) == ["frame_missing"]
    (example,), _ = read_source(source.model_copy(update={"require_frames": False}))
    assert [level(image) for image in example.images] == [0, 50]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"scene": {}, "task_id": "x"}, "no_trajectory"),
        ("{", "invalid_json"),
        ([1], "trajectory_malformed"),
        (trial(plan={"low_actions": []}), "trajectory_malformed"),
        (trial(plan={"low_actions": [3]}), "trajectory_malformed"),
        (trial(plan=None), "trajectory_malformed"),
        (trial(turk_annotations={"anns": [{"task_desc": 3}]}), "wrong_type"),
        (trial(images=[{"low_idx": 0, "image_name": None}]), "missing_field"),
    ],
)
def test_trials_that_cannot_be_read(
    said: Any, reason: str, alfred: Callable[..., AlfredSource], read_source: Read
) -> None:
    assert list(read_source(alfred(said))[1].values()) == [reason]


def recorded(root: Path, name: str, filmed: int, **said: Any) -> None:
    folder = root / name
    (folder / "frames").mkdir(parents=True)
    (folder / "episode.json").write_text(json.dumps(said))
    for number in range(filmed):
        (folder / "frames" / f"{number:06d}.jpg").write_bytes(frame(40 * number))


def navigation(path: Path, **settings: Any) -> NavigationSource:
    return NavigationSource(type="navigation", name="habitat", path=str(path), **settings)


def test_recorded_episodes(tmp_path: Path, read_source: Read) -> None:
    recorded(
        tmp_path,
        "train/0017",
        4,
        episode_id=17,
        scene_id="17DRP5sb8fy.glb",
        instruction="Find a chair.",
        goal={"object_category": "chair", "position": [1.0, 0.1, -3.25]},
        actions=["MOVE_FORWARD", "TURN_RIGHT", "STOP"],
        states=[[0, 0, 0], [0.25, 0, 0], [0.25, 0, 0], [9, 9, 9]],
        state_names=["x", "z", "heading"],
    )
    recorded(tmp_path, "train/0018", 1, actions=["MoveAhead", "End"], frames=["frames/000000.png", "frames/000001.png"])
    examples, verdicts = read_source(navigation(tmp_path))
    assert verdicts == {"train/0017/episode.json": "kept", "train/0018/episode.json": "frame_missing"}
    (example,) = examples
    assert [(text.role, text.text, text.image) for text in example.text] == [
        ("instruction", "Find a chair.", None),
        ("label", "chair", None),
        ("step", "forward", 0),
        ("step", "right", 1),
        ("step", "stop", 2),
    ]
    run = example.trajectory
    assert run is not None
    assert (run.states, run.state_names, run.episode) == (
        [[0, 0, 0], [0.25, 0, 0], [0.25, 0, 0]],
        ["x", "z", "heading"],
        "17",
    )
    assert [level(image) for image in example.images] == [0, 40, 80]
    assert example.meta.tags == {"split": "train", "scene": "17DRP5sb8fy.glb", "goal": "1 0.1 -3.25"}


def test_published_datasets(tmp_path: Path, read_source: Read) -> None:
    pose = {"position": [0, 0.1, 2], "rotation": [0, 0, 0, 1]}
    episodes = [
        {"episode_id": "0", "scene_id": "a.glb", "start_position": [0, 0, 0], "goals": [{"position": [1, 2, 3]}]},
        {
            "episode_id": "1",
            "shortest_paths": [[{**pose, "action": 1}, {**pose, "action": 2}, {**pose, "action": None}]],
        },
        {"object_category": "bed", "reference_replay": [{"action": "LOOK_UP", "agent_state": pose}]},
        {"shortest_paths": [[{**pose, "action": 77}]]},
        {"shortest_paths": [[{"position": [10**400, 0, 0], "rotation": [0], "action": 1}]]},
    ]
    folder = tmp_path / "pointnav" / "train" / "content"
    folder.mkdir(parents=True)
    (folder / "a.json.gz").write_bytes(gzip.compress(json.dumps({"episodes": episodes}).encode()))
    (tmp_path / "val.jsonl.gz").write_bytes(gzip.compress(b'{"rooms": []}\n{\n'))
    examples, verdicts = read_source(navigation(tmp_path))
    name = "pointnav/train/content/a.json.gz"
    assert verdicts == {
        f"{name}#0": "no_trajectory",
        f"{name}#1": "kept",
        f"{name}#2": "kept",
        f"{name}#3": "trajectory_malformed",
        f"{name}#4": "trajectory_not_finite",
        "val.jsonl.gz#0": "no_trajectory",
        "val.jsonl.gz#14": "invalid_json",
    }
    assert [[text.text for text in example.text] for example in examples] == [
        ["forward", "left", "stop"],
        ["bed", "look up"],
    ]
    assert examples[0].trajectory is not None
    assert examples[0].trajectory.states[0] == [0, 0.1, 2, 0, 0, 0, 1]
    assert examples[0].meta.tags == {"split": "train"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MOVE_FORWARD", "forward"),
        ("RotateRight_90", "right"),
        ("LookDown_15", "look down"),
        ("END", "stop"),
        ("ToggleObjectOn", "toggle on"),
        ("OpenObject", "open"),
        ("slide_left", "slide left"),
    ],
)
def test_actions_in_words(name: str, words: str) -> None:
    assert action_words(name) == words


def test_actions_name_what_they_are_done_to() -> None:
    assert action_words("PutObject", "ButterKnife|1|2", "CounterTop|3") == "put butter knife in counter top"
