"""Going back to an earlier checkpoint, and steps that nothing is learnt from: what an operator does about a spike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from omnimill.cli.main import main
from omnimill.errors import ConfigError
from omnimill.training.checkpoints import checkpoint
from omnimill.training.checkpoints.settings import CheckpointSettings
from omnimill.training.lineage.replay import consumed
from omnimill.training.lineage.sightings import Sightings
from omnimill.training.runs.aside import go_back
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.history import read_history
from omnimill.training.runs.inputs import resolve
from omnimill.training.runs.loop import Worker, train_worker
from omnimill.training.runs.run import train
from omnimill.training.runs.stage_runs import train_stages
from omnimill.training.runs.stages import Stage

STEPS = 6


def learn(config: TrainConfig, root: Path, **changes: Any) -> Path:
    config = config.model_copy(update=changes)
    train_worker(resolve(config, str(root)), str(root), Worker())
    return checkpoint.run_folder(str(root), config.name)


def folder(run: Path, step: int) -> Path:
    return checkpoint.checkpoints_folder(run) / checkpoint.folder_name(step)


@pytest.fixture(scope="module")
def config(train_config: TrainConfig) -> TrainConfig:
    """Six updates, with a checkpoint after each."""
    return train_config.model_copy(update={"steps": STEPS, "checkpoints": CheckpointSettings(every=1, keep=9)})


@pytest.fixture(scope="module")
def runs(config: TrainConfig, train_root: Path) -> tuple[Path, Path]:
    """A run that leaves steps 2 and 3 out, and one that does not."""
    return (
        learn(config, train_root, name="two-left-out", leave_out=((2, 4),)),
        learn(config, train_root, name="nothing-left-out"),
    )


def test_nothing_is_learnt_from_steps_that_are_left_out(runs: tuple[Path, Path]) -> None:
    run, plain = runs
    weights = [checkpoint.load_weights(folder(run, step)) for step in (2, 4, 5)]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert any((weights[1][name] != weights[2][name]).any() for name in weights[1])
    lines, others = read_history(run), read_history(plain)
    # The same examples all the same, whose loss is told.
    assert [line["plan"] for line in lines] == [line["plan"] for line in others]
    assert [line["loss"] for line in lines[:3]] == [line["loss"] for line in others[:3]]
    assert lines[3]["loss"] != others[3]["loss"]
    assert [line.get("left_out", False) for line in lines] == [False, False, True, True, False, False]

    last = checkpoint.read_record(folder(run, STEPS))
    assert {one.step for one in consumed(folder(run, STEPS))} == {0, 1, 4, 5}
    assert sum(last.examples.values()) == len(list(consumed(folder(run, STEPS))))
    assert "leave_out" not in checkpoint.read_record(folder(plain, STEPS)).decisive()["config"]


def test_where_an_example_was_seen_is_told_without_them(runs: tuple[Path, Path], train_root: Path) -> None:
    run, plain = runs
    seen = [one for one in consumed(folder(plain, STEPS)) if one.step in (2, 3)]
    found = []
    for each in (run, plain):
        record = checkpoint.read_record(folder(each, STEPS))
        sightings = Sightings(folder(each, STEPS), record, str(train_root))
        task = next(number for number, rows in enumerate(sightings.streams.rows) if rows.task.name == seen[0].task)
        ((url, _, rows),) = sightings.streams.rows[task].by_shard(np.array([seen[0].row]))
        passes = sightings.passes({url.rpartition("/")[2].removesuffix(".arrow"): rows})
        found.append({one.step for one in sightings.of(passes)})
        assert sightings.times(passes, record)[2] == (each == plain)
    assert found[1] - found[0] == found[1] & {2, 3} != set()


def test_a_run_goes_back_and_leaves_a_spike_out(
    config: TrainConfig, train_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config.model_copy(update={"name": "went-back"})
    run = learn(config, train_root)
    before = read_history(run)
    go_back(run, str(train_root), 2)
    assert [path.name for path in checkpoint.list_checkpoints(run)] == ["step-00000001", "step-00000002"]
    learn(config, train_root, leave_out=((3, 4),))
    straight = learn(config, train_root, name="straight", leave_out=((3, 4),))
    ours, theirs = (checkpoint.read_record(folder(one, STEPS)) for one in (run, straight))
    assert ours.digest == theirs.digest

    # What came after it is not lost, and tells what it saw.
    aside = run.with_name(f"{run.name}.1")
    assert [checkpoint.read_record(one).step for one in checkpoint.list_checkpoints(aside)] == [3, 4, 5, 6]
    assert read_history(aside) == before
    assert {one.step for one in consumed(folder(aside, STEPS))} == set(range(STEPS))

    # Of steps that were done nothing can be left out any more, of later ones it can.
    with pytest.raises(
        ConfigError, match=r"cannot go on from its checkpoint at step 6[\s\S]*config.leave_out.*was 4, is 5"
    ):
        train(config.model_copy(update={"leave_out": ((3, 5),), "steps": 9}), str(train_root))
    longer = learn(config, train_root, leave_out=((3, 4), (7, 8)), steps=8)
    assert [line.get("left_out", False) for line in read_history(longer)] == [False] * 3 + [True] + [False] * 3 + [True]

    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump(resolve(config, str(train_root)).config.model_dump(mode="json")))
    command = ["train", str(file), "--root", str(train_root)]
    assert main([*command, "--back-to", "20"]) == 2
    assert "--back-to: found 20" in capsys.readouterr().err
    assert main([*command, "--back-to", "2", "--restart"]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_a_step_that_there_is_not_sets_nothing_aside(
    runs: tuple[Path, Path], config: TrainConfig, train_root: Path
) -> None:
    """Neither of the stage itself nor of those that come after it."""
    one, two = (config.model_copy(update={"name": run.name}) for run in runs)
    with pytest.raises(ConfigError, match="--back-to: found 20"):
        train_stages([Stage("one", one), Stage("two", two, after=one)], str(train_root), only="one", back_to=20)
    assert all(len(checkpoint.list_checkpoints(run)) == STEPS for run in runs)


def test_a_range_without_a_step_is_an_error(train_config: TrainConfig) -> None:
    with pytest.raises(ValueError, match=r"leave_out: found \[5, 5\], which holds no step"):
        TrainConfig.model_validate({**train_config.model_dump(), "leave_out": [[5, 5]]})
