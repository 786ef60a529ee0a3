"""The toy replication of JAM: its data, its configurations, and all of it in small by its command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from omnimill.config import load_config
from omnimill.infra.dataset import Dataset
from omnimill.learn.jam import CONFIGS, DAG, MERGES, TOKENIZERS
from omnimill.learn.jam_inputs import FULL, SMALL, Scale, asked_scenes, make_jam_inputs, prompt
from omnimill.learn.recognise import scene_of
from omnimill.learn.stories import stories
from omnimill.mixtures.loading import load_mixture
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.process import process_unit
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.image import decode_rgb
from omnimill.training.merging.settings import MergeConfig
from omnimill.training.runs.stages import load_stage

PROJECT = Path(__file__).parents[2]


def test_stories_are_different_and_the_held_out_ones_new() -> None:
    trained, unseen = stories(300), stories(50, skip=300)
    assert len({*trained, *unseen}) == 350
    assert stories(300) == trained


def test_what_is_asked_for_is_in_nothing_that_is_trained_on(tmp_path: Path) -> None:
    assert make_jam_inputs(tmp_path / "input", SMALL)
    assert not make_jam_inputs(tmp_path / "input", SMALL)
    asked = {prompt(scene) for scene in asked_scenes(SMALL)}
    told = json.loads((tmp_path / "input/shapes/annotations/captions_train.json").read_text())
    shown = {one["caption"] for one in told["annotations"]}
    answers = pq.read_table(tmp_path / "input/answers/answers.parquet").to_pylist()
    given = {json.loads(row["metadata"])[1]["alt_text"] for row in answers}
    assert (len(asked), len(shown), len(given)) == (SMALL.asked, SMALL.pictures, SMALL.answers)
    assert not asked & shown and not asked & given and not given & shown


@pytest.mark.parametrize("scale", [FULL, SMALL], ids=["full", "small"])
def test_configurations_say_what_they_should(scale: Scale, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    for name, value in scale.settings().items():
        monkeypatch.setenv(name, value)
    load_config(DAG, Dag)
    load_config(TOKENIZERS, TokenizerConfig)
    parents = [load_stage(f"{CONFIGS}/{name}.yaml") for name in ("writer", "painter")]
    assert {one.steps for one in parents} == {scale.parent_steps}
    first = parents[0].model_dump(exclude={"name", "mixture"})
    assert parents[1].model_dump(exclude={"name", "mixture"}) == first
    continued = [load_stage(f"{CONFIGS}/{name}.yaml") for name in MERGES]
    same = {"name", "init_from"}
    assert all(one.model_dump(exclude=same) == continued[0].model_dump(exclude=same) for one in continued)
    for name, config in zip(MERGES, continued, strict=True):
        merged = load_config(f"{CONFIGS}/merge-{name}.yaml", MergeConfig)
        assert config.init_from is not None and config.init_from.endswith(f"/{merged.name}")
        assert merged.method.name == name and merged.parents == tuple(one.name for one in parents)
    tuned, alone = (load_stage(f"{CONFIGS}/{name}.yaml") for name in ("tuned", "tuned-alone"))
    same = {"name", "mixture", "forgetting"}
    assert tuned.model_dump(exclude=same) == alone.model_dump(exclude=same)
    assert tuned.forgetting is not None and alone.forgetting is None
    for config in (*parents, *continued, tuned, alone):
        held_out = {task.name for task in load_mixture(config.mixture).held_out}
        assert held_out == {"stories-unseen", "pairs-unseen", "drawn-unseen", "told-unseen"}
    # Parents learn from disjoint data, and what is held out is trained on by nobody.
    read = [{source for task in load_mixture(one.mixture).tasks for source in task.sources} for one in parents]
    assert read == [{"stories"}, {"shapes"}]


def test_answers_are_read_as_they_were_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    make_jam_inputs(tmp_path / "input", SMALL)
    monkeypatch.setenv("OMNIMILL_JAM_INPUT", str(tmp_path / "input"))
    (pipeline,) = (one for one in load_config(DAG, Dag).sources if one.source.name == "answers")
    dataset = Dataset(str(tmp_path), "jam")
    commits = [process_unit(pipeline.source, pipeline.operators, unit, dataset) for unit in pipeline.source.units()]
    rows = [row for commit in commits for shard in commit.shards for row in dataset.read(shard).to_pylist()]
    assert len(rows) == SMALL.answers
    for row in rows:
        assert [(text["role"], text["image"]) for text in row["text"]] == [("body", None), ("alt_text", 0), ("body", 0)]
        scene = scene_of(decode_rgb(row["images"][0]["data"]))
        assert scene is not None and row["text"][1]["text"] == prompt(scene)


@pytest.mark.fault
@pytest.mark.timeout(900)
def test_all_of_it_in_small(tmp_path: Path) -> None:
    """By its command, twice: the second one redoes nothing."""
    omnimill = [sys.executable, "-c", "from omnimill.cli.main import entry; entry()"]
    command = [*omnimill, "learn", "jam", "--scale", "small", "--root", str(tmp_path), "--json"]
    found = [
        json.loads(subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout)
        for _ in range(2)
    ]
    first, second = found
    assert first["models"] == second["models"] and first["asked"] == second["asked"]
    names = {one["model"] for one in first["models"]}
    assert {"jam-writer", "jam-painter", "jam-tuned", "jam-tuned-alone", *(f"jam-{one}" for one in MERGES)} <= names
    costs = {one["model"]: one["cost"] for one in first["models"]}
    for merge in MERGES:
        assert first["scratch"][merge]["cost"] >= costs[f"jam-{merge}"]
    assert first["asked"]["count"] == SMALL.asked
    assert (tmp_path / "jam.html").read_text().count("<article") == SMALL.asked


@pytest.mark.proof
@pytest.mark.timeout(4000)
def test_the_tuned_model_answers_with_text_the_picture_and_text(tmp_path: Path) -> None:
    """The whole replication by its command: half an hour."""
    omnimill = [sys.executable, "-c", "from omnimill.cli.main import entry; entry()"]
    command = [*omnimill, "learn", "jam", "--root", str(tmp_path), "--json"]
    found = json.loads(subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout)
    assert found["asked"]["right"] >= 0.8 * found["asked"]["count"]
    models = {one["model"]: one["perplexities"] for one in found["models"]}
    for merge in MERGES:
        for task in ("stories-unseen", "pairs-unseen"):
            assert models[f"jam-{merge}"][task] < found["scratch"][merge]["perplexities"][task]
    assert models["jam-tuned"]["drawn-unseen"] < models["jam-tuned-alone"]["drawn-unseen"]
