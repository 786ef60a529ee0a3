"""Stages of a training in one file: what each of them is, and what is wrong said at its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnimill.errors import ConfigError
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.stages import load_stage, read_stages

FILE = """\
name: big
mixture: pretrain.yaml
init_from: weights
steps: 100
streams: 8
render: {image_keep: 0.5, history_frames: 2}
optimizer: {name: adafactor, momentum: 0.5}
stages:
  - name: one
  - name: two
    steps: 50
    init_optimizer: true
  - name: three
    mixture: instruct.yaml
    render: {image_keep: 0.875}
    optimizer: {name: adamw}
    init_from: elsewhere
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "big.yaml"
    path.write_text(FILE)
    return path


def test_a_stage_changes_what_it_says_and_starts_from_the_one_before(file: Path) -> None:
    one, two, three = read_stages(file)
    assert [stage.config.name for stage in (one, two, three)] == ["big-one", "big-two", "big-three"]
    assert (one.after, two.after, three.after) == (None, one.config, None)
    assert [stage.config.init_from for stage in (one, two, three)] == ["weights", None, "elsewhere"]
    assert [stage.config.init_optimizer for stage in (one, two, three)] == [False, True, False]
    assert [stage.config.steps for stage in (one, two, three)] == [100, 50, 100]
    assert (three.config.render.image_keep, three.config.render.history_frames) == (0.875, 2)
    # Another optimizer replaces the first one: nothing of its settings is left.
    assert (two.config.optimizer.momentum, three.config.optimizer.name) == (0.5, "adamw")


def test_a_file_without_stages_is_one_run(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: a\nmixture: m.yaml\nsteps: 10\nstreams: 4\n")
    (stage,) = read_stages(path)
    assert (stage.name, stage.after) == (None, None)
    assert load_stage(path) == stage.config == TrainConfig(name="a", mixture="m.yaml", steps=10, streams=4)


def test_a_file_extends_another(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "bigger.yaml"
    path.write_text("extends: big.yaml\nname: bigger\nbackbone: {size: large}\nrender: {history_frames: 3}\n")
    for small, large in zip(read_stages(file), read_stages(path), strict=True):
        assert large.config.backbone.size == "large"
        assert large.config.render == small.config.render.model_copy(update={"history_frames": 3})
        assert large.config.name == small.config.name.replace("big", "bigger")
    path.write_text("extends: bigger.yaml\n")
    with pytest.raises(ConfigError, match=r"a training cannot extend itself: .* -> "):
        read_stages(path)
    path.write_text("extends: big.yaml\nrender: {image_keep: 2}\n")
    with pytest.raises(ConfigError, match=r"bigger.yaml:2: render.image_keep: .*found 2"):
        read_stages(path)


def test_one_stage_is_named_behind_a_colon(file: Path) -> None:
    assert load_stage(f"{file}:two") == read_stages(file)[1].config
    with pytest.raises(ConfigError, match=r"has the stages one, two, three; say which: .*big.yaml:one"):
        load_stage(file)
    with pytest.raises(ConfigError, match=r"no such stage; found 'tow'; allowed: one, two, three; did you mean 'two'"):
        load_stage(f"{file}:tow")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("steps: 50", "steps: 0", r"big.yaml:11: steps: .*greater than 0; found 0"),
        ("name: two", "name: one", r"big.yaml:10: stages.1.name: two stages are called 'one'"),
        ("- name: two\n    steps", "- steps", r"big.yaml:10: stages.1: a stage needs a name"),
        ("streams: 8", "streams: 0", r"big.yaml:5: streams: .*found 0"),
        (
            "image_keep: 0.875",
            "image_kept: 0.875",
            r"big.yaml:15: render.image_kept: unknown key; allowed: .*image_keep",
        ),
        ("streams: 8\n", "", r"streams: required key is missing"),
        (FILE[FILE.index("  - name: one") :], "  one: 1", r"big.yaml:8: stages: a list of stages is expected"),
    ],
)
def test_faults_are_named_at_their_lines(file: Path, before: str, after: str, message: str) -> None:
    assert before in FILE
    file.write_text(FILE.replace(before, after))
    with pytest.raises(ConfigError, match=message):
        read_stages(file)
