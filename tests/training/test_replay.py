"""One worker, in this process: a run resumed is the undisturbed run, and a checkpoint tells what it has seen."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnimill.errors import ConfigError, IntegrityError
from omnimill.training.checkpoints import checkpoint
from omnimill.training.checkpoints.settings import CheckpointSettings
from omnimill.training.lineage.replay import combine_digests, consumed, replay, sequence_digest
from omnimill.training.lineage.sightings import Sightings
from omnimill.training.planning import planner
from omnimill.training.planning.planner import PackedSequence
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.history import TIMING, read_history
from omnimill.training.runs.inputs import resolve
from omnimill.training.runs.loop import Worker, train_worker

STEPS = 6


def learn(config: TrainConfig, root: Path, **changes: Any) -> Path:
    config = config.model_copy(update=changes)
    train_worker(resolve(config, str(root)), str(root), Worker())
    return checkpoint.run_folder(str(root), config.name)


def curve(run: Path) -> list[dict[str, Any]]:
    """Everything in a history that must not depend on when and where a step was computed."""
    return [{key: value for key, value in line.items() if key != TIMING} for line in read_history(run)]


@pytest.fixture(scope="module")
def undisturbed(train_config: TrainConfig, train_root: Path) -> Path:
    return learn(train_config, train_root, name="undisturbed", steps=STEPS)


def test_a_run_resumed_is_the_undisturbed_run(undisturbed: Path, train_config: TrainConfig, train_root: Path) -> None:
    for steps in (1, 4, STEPS):
        run = learn(train_config, train_root, name="resumed", steps=steps)
    assert curve(run) == curve(undisturbed)
    ours, theirs = (checkpoint.read_record(checkpoint.newest(folder)) for folder in (run, undisturbed))  # type: ignore[arg-type]
    assert ours.files == theirs.files
    assert ours.digest == theirs.digest
    assert [line["loss"] for line in curve(run)][-1] < curve(run)[0]["loss"]


def test_a_lost_checkpoint_is_made_again(undisturbed: Path, train_config: TrainConfig, train_root: Path) -> None:
    """Steps after the newest checkpoint are in the history already; they are cut off and done again."""
    run = learn(train_config, train_root, name="lost", steps=STEPS, checkpoints=CheckpointSettings(every=2, keep=9))
    for folder in checkpoint.list_checkpoints(run)[1:]:
        shutil.rmtree(folder)
    learn(train_config, train_root, name="lost", steps=STEPS)
    assert curve(run) == curve(undisturbed)


def test_checkpoints_come_as_configured(undisturbed: Path, train_config: TrainConfig) -> None:
    steps = range(train_config.checkpoints.every, STEPS + 1, train_config.checkpoints.every)
    names = [checkpoint.folder_name(step) for step in steps][-train_config.checkpoints.keep :]
    assert [path.name for path in checkpoint.list_checkpoints(undisturbed)] == names


def test_replay_is_what_training_consumed(undisturbed: Path, train_root: Path, tmp_path: Path) -> None:
    folder = checkpoint.newest(undisturbed)
    assert folder is not None
    sequences: dict[int, list[PackedSequence]] = {}
    for sequence in replay(folder):
        sequences.setdefault(sequence.step, []).append(sequence)
    lines = read_history(undisturbed)
    digests = [combine_digests([sequence_digest(one) for one in sequences[line["step"]]]) for line in lines]
    assert digests == [line["plan"] for line in lines]
    assert len(set(digests)) == len(sequences) == STEPS

    # Nothing but checkpoint.json is needed.
    shutil.copy(folder / "checkpoint.json", tmp_path)
    seen = list(consumed(tmp_path / "checkpoint.json", root=str(train_root)))
    counts: dict[str, int] = {}
    for one in seen:
        counts[one.task] = counts.get(one.task, 0) + 1
    assert counts == checkpoint.read_record(folder).examples
    chosen = {seen[0].example_id, seen[-1].example_id}
    hits = list(consumed(folder, chosen))
    assert hits == [one for one in seen if one.example_id in chosen]
    assert list(consumed(folder, {"no such example"})) == []


def test_what_another_packer_put_in_order_is_not_told_wrongly(
    undisturbed: Path, train_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint.newest(undisturbed)
    assert folder is not None
    record = checkpoint.read_record(folder)
    seen = list(consumed(folder))
    known = Sightings(folder, record, str(train_root))
    rows = known.streams.rows[0]
    ((shard, _, at),) = rows.by_shard(np.array([0]))
    monkeypatch.setattr(planner, "VERSION", planner.VERSION - 1)
    with pytest.raises(IntegrityError, match="another version of omnimill"):
        next(replay(folder))
    found = Sightings(folder, record, str(train_root))
    passes = found.passes({Path(shard).stem: at})
    # Steps cannot be told; how often is known all the same.
    with pytest.raises(IntegrityError, match="another version"):
        found.of(passes)
    assert found.times(passes, record)[0] == len(known.of(passes)) == sum(one.example_id == rows.id(0) for one in seen)


def test_a_changed_configuration_does_not_go_on(undisturbed: Path, train_config: TrainConfig, train_root: Path) -> None:
    from omnimill.training.runs.run import train

    changed = train_config.model_copy(update={"name": "undisturbed", "seed": 99, "gradient_clip": 0.25})
    message = r"step 6 under .*\n  config.gradient_clip: was 1.0, is 0.25\n  config.seed: was 0, is 99\n.*--restart"
    with pytest.raises(ConfigError, match=message):
        train(changed, str(train_root))


def test_a_finished_run_has_nothing_to_do(
    undisturbed: Path, train_config: TrainConfig, train_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from omnimill.training.runs.run import train

    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}
    result = train(train_config.model_copy(update={"name": "undisturbed", "steps": STEPS}), str(train_root))
    assert (result.started_at, result.steps) == (STEPS, STEPS)
    assert result.loss == read_history(undisturbed)[-1]["loss"]
    assert "nothing to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")} == before
