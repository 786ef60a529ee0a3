"""Learning is real: a small mixed set is learnt by heart, from raw files to pictures and tones that are recognised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omnimill.config import load_config
from omnimill.infra.dataset import Dataset
from omnimill.learn import scenes, tones
from omnimill.learn.check import TaskResult, check
from omnimill.learn.inputs import HELD_OUT, TRAIN, write_pictures, write_tunes
from omnimill.learn.prepare import DAG, INPUT_VARIABLE, TOKENIZERS
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.process import process_unit
from omnimill.tokenizers import store
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.shards import ShardJob, ShardTokenizer, units_of
from omnimill.tokenizers.train import make_set
from omnimill.training.checkpoints.checkpoint import run_folder
from omnimill.training.engine.schedules import Cosine
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.history import read_history
from omnimill.training.runs.inputs import resolve
from omnimill.training.runs.loop import Worker, train_worker

PROJECT = Path(__file__).parents[2]
PICTURES, TUNES = 4, 2


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What ``omnimill learn prepare`` makes, of few pictures and tunes and in this process alone; "held out" are the
    ones that are trained on."""
    monkeypatch.chdir(PROJECT)
    monkeypatch.setenv(INPUT_VARIABLE, str(tmp_path / "input"))
    for part in (TRAIN, HELD_OUT):
        write_pictures(tmp_path / "input/shapes", part, scenes.scenes(PICTURES, held_out=False))
        write_tunes(tmp_path / "input/tones" / part, tones.tunes(TUNES, held_out=False))
    root = str(tmp_path)
    dag, config = load_config(DAG, Dag), load_config(TOKENIZERS, TokenizerConfig)
    examples = Dataset(root, dag.dataset)
    units = [(pipeline, unit) for pipeline in dag.sources for unit in pipeline.source.units()]
    commits = [process_unit(one.source, one.operators, unit, examples, threads=1) for one, unit in units]
    examples.publish_manifest("examples", commits)
    corpus = Corpus(root, dag.dataset)
    stored, files = make_set(config, corpus)
    store.publish(root, config.name, stored, files)
    job = ShardJob.of(root, config.tokens, config.name, stored)
    tokenizer = ShardTokenizer(job)
    done = list(tokenizer(units_of(corpus)))
    tokenizer.close()
    commits = [one.commit for one in done if one.commit is not None]
    attributes = {"layout": job.layout.model_dump(mode="json")}
    Dataset(root, config.tokens).publish_manifest("tokens", commits, attributes=attributes)
    return root


def test_a_small_mixed_set_is_learnt_by_heart(prepared: str) -> None:
    shipped = load_config("configs/learn.yaml", TrainConfig)
    schedule = Cosine(name="cosine", until=100, end=0.05)
    optimizer = shipped.optimizer.model_copy(
        update={"peak_learning_rate": 0.003, "warmup_steps": 20, "schedule": schedule}
    )
    changes = {"steps": 100, "streams": 4, "workers": 1, "optimizer": optimizer}
    config = shipped.model_copy(update=changes)
    train_worker(resolve(config, prepared), prepared, Worker())
    losses = [line["loss_by_modality"] for line in read_history(run_folder(prepared, config.name))[-10:]]
    assert {name for line in losses for name in line} == {"text", "image", "audio"}
    assert max(loss for line in losses for loss in line.values()) < 0.1
    for result in check(prepared, run_folder(prepared, config.name), count=PICTURES):
        if result.task == "listen-unseen":  # to tell tunes apart takes hundreds of updates
            continue
        assert result.right >= 0.9 * result.count, result


def test_results_pass_by_their_share() -> None:
    facts: dict[str, Any] = {"task": "t", "modality": "text", "count": 100, "exact": 0, "seen": 0, "loss": 0.0}
    assert TaskResult(**facts, right=95, needed=0.95).passed
    assert not TaskResult(**facts, right=94, needed=0.95).passed


@pytest.mark.proof
@pytest.mark.timeout(4000)
def test_what_was_never_shown_is_told_drawn_found_and_played(tmp_path: Path) -> None:
    """The whole proof by its commands: tens of minutes."""
    omnimill = [sys.executable, "-c", "from omnimill.cli.main import entry; entry()"]
    for command in (["learn", "prepare"], ["train", "configs/learn.yaml"]):
        subprocess.run([*omnimill, *command, "--root", str(tmp_path)], cwd=PROJECT, check=True)
    checked = [*omnimill, "learn", "check", "--root", str(tmp_path), "--json"]
    found = subprocess.run(checked, cwd=PROJECT, check=True, capture_output=True, text=True)
    results = json.loads(found.stdout)
    assert len(results) == 6
    assert all(result["passed"] and result["seen"] == 0 for result in results)
    history = read_history(run_folder(str(tmp_path), "learn"))
    assert max(history[-1]["loss_by_modality"].values()) < 0.05
