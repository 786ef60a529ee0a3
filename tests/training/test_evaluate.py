"""``omnimill evaluate``: every family's metrics from a checkpoint; answers are kept and done once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from omnimill.cli.main import main
from omnimill.infra import lineage
from omnimill.infra.dataset import Dataset
from omnimill.infra.logged_models import DIGEST_TAG
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.versions import current_versions
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.model import Backbone
from omnimill.training.checkpoints import checkpoint
from omnimill.training.checkpoints.checkpoint import CheckpointRecord
from omnimill.training.evaluation.evaluate import evaluate
from omnimill.training.generation.answering import Actors
from omnimill.training.runs.inputs import TrainInputs

TASKS = (
    Task(
        name="describe",
        rate=0,
        family="image-captioning",
        sources=("photos",),
        inputs=("image",),
        target="text:caption",
        prompts=("what is this?",),
    ),
    Task(name="draw", rate=0, family="image-from-text", sources=("photos",), target="image", prompts=("{caption}",)),
    Task(name="hear", rate=0, family="audio-from-text", sources=("films",), target="audio", prompts=("{transcript}",)),
    Task(name="mend", rate=0, sources=("photos",), target="text:caption", objective="text_denoising"),
)
# A network of features, as users bring one.
NETWORK = """
import numpy as np

def colours(pictures):
    return np.stack([np.concatenate([one.mean((0, 1)), one.std((0, 1))]) for one in pictures])
"""


@pytest.fixture(scope="module")
def evaluated(
    stored_layout: tuple[Path, TokenLayout],
    token_data: Any,
    inputs: TrainInputs,
    text: TextTokenizer,
    store_tokens: Callable[..., Any],
    store_checkpoint: Callable[..., Path],
) -> tuple[str, Path]:
    """A root and the run in it of a model that has learnt nothing, whose mixture holds `TASKS` out."""
    root, layout = stored_layout
    store_tokens(str(root), {source: token_data.rows[source][:8] for source in ("pages", "photos", "films")}, layout)
    drawn = tuple(task for task in inputs.mixture.tasks if task.name in ("read", "paint"))
    mixture = Mixture(datasets=("tokens",), seed=7, tasks=drawn, held_out=TASKS)
    config = BackboneConfig.of("tiny", layout)
    changed = {"layout": layout, "backbone": config, "mixture": mixture}
    facts = {**dict(inputs), **changed, "versions": current_versions(str(root), mixture)}
    facts |= {"run": "blank", "step": 3, "plan": {}, "ledger": "0", "examples": {}}
    run = checkpoint.run_folder(str(root), "blank")
    store_checkpoint(run, CheckpointRecord(**facts), Backbone(config, seed=5).state_dict())
    return str(root), run


def test_every_kind_of_task(
    evaluated: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Metrics with counts as JSON, as a table and in MLflow; a second time nothing is answered again."""
    root, run = evaluated
    (tmp_path / "mine.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "decoding.yaml").write_text(yaml.safe_dump({"image": {"guidance": 3.0, "top_p": 0.9}}))
    command = ["evaluate", str(run), "--root", root, "-n", "3", "--batch", "2"]
    command += ["--decoding", str(tmp_path / "decoding.yaml"), "--network", "picture_features=mine:colours"]
    assert main([*command, "--json", "--out", str(tmp_path / "scores.json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "scores.json").read_text()) == found
    tasks = found["tasks"]
    assert list(tasks) == ["describe", "draw", "hear", "mend"]
    assert {name: (one["count"], one["seen"]) for name, one in tasks.items()} == {
        "describe": (3, 3),
        "draw": (3, 3),
        "hear": (3, 0),
        "mend": (3, 3),
    }
    assert {name: list(one["metrics"]) for name, one in tasks.items()} == {
        "describe": ["cider_d", "bleu_4"],
        "draw": ["fid", "kid"],
        "hear": ["mel_distance", "spectral_convergence"],
        "mend": [],
    }
    assert tasks["draw"]["metrics"]["fid"]["value"] > 0
    assert tasks["hear"]["metrics"]["mel_distance"] == {
        "value": pytest.approx(tasks["hear"]["metrics"]["mel_distance"]["value"]),
        "count": 3,
        "unread": 0,
    }
    assert all(one["loss"] > 1 for one in tasks.values())

    told = lineage.client(root).get_run(found["mlflow_run"])
    assert told.data.metrics["evaluate/draw/fid"] == tasks["draw"]["metrics"]["fid"]["value"]
    assert told.data.metrics["evaluate/hear/count"] == 3
    assert {one.name for one in lineage.references(told, "input")} == {"blank/step-00000003", "tokens"}

    # A killed evaluation has some of its units: the others are done, and the answers are the same.
    dataset = Dataset(f"{root}/answers", "blank")
    commits = sorted(Path(dataset.url, "commits").glob("*.json"))
    assert len(commits) == 8
    commits[3].unlink()
    times = {path: path.stat().st_mtime_ns for path in commits if path.exists()}
    assert main([*command, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["manifest"], again["tasks"]) == (found["manifest"], tasks)
    assert {path: path.stat().st_mtime_ns for path in times} == times

    assert main([*command, "--tasks", "describe"]) == 0
    shown = capsys.readouterr().out
    assert "bleu_4" in shown
    assert "draw" not in shown


@pytest.mark.ray
def test_actors_answer_the_same_and_the_model_has_the_scores(ray_run: Any, train_root: Path) -> None:
    """Of a run's checkpoint, which the tracking store knows as a logged model."""
    root = str(train_root)
    there = evaluate(root, ray_run.folder, tasks=["tell"], count=4, batch=2, actors=Actors(count=1))
    for path in Path(there.answers, "commits").glob("*.json"):
        path.unlink()
    here = evaluate(root, ray_run.folder, tasks=["tell"], count=4, batch=2)
    assert (there.manifest, there.tasks) == (here.manifest, here.tasks)

    client = lineage.client(root)
    experiment = client.get_run(here.mlflow_run or "").info.experiment_id
    (model,) = client.search_logged_models([experiment], f"tags.`{DIGEST_TAG}` = '{here.digest}'")
    measured = {one.key: one.value for one in model.metrics}
    assert measured["evaluate/tell/loss"] == here.tasks["tell"].loss
    assert measured["evaluate/tell/count"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "draw, drow"], "no such task; found 'drow'"),
        (["--network", "eyes=mine:f"], "found name 'eyes'"),
        (["--network", "picture_features=nowhere:f"], "found 'nowhere:f'"),
    ],
)
def test_bad_use(
    evaluated: tuple[str, Path], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    root, run = evaluated
    assert main(["evaluate", str(run), "--root", root, *arguments]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.fault
def test_a_killed_evaluation_goes_on_to_the_same_answers(
    evaluated: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL after some units, again and again, until all are there."""
    root, run = evaluated
    command = ["evaluate", str(run), "--root", root, "-n", "8", "--batch", "1", "--tasks", "draw,hear"]
    command += ["--json"]
    commits = Path(root, "answers", "blank", "commits")
    assert main(command) == 0
    calm = json.loads(capsys.readouterr().out)
    for path in commits.glob("*.json"):
        path.unlink()
    for present in (2, 7):
        program = "import sys; from omnimill.cli.main import main; main(sys.argv[1:])"
        with subprocess.Popen([sys.executable, "-c", program, *command], stdout=subprocess.DEVNULL) as process:
            while len(list(commits.glob("*.json"))) < present and process.poll() is None:
                time.sleep(0.02)
            process.kill()
        assert process.returncode == -signal.SIGKILL
    assert len(list(commits.glob("*.json"))) < 16
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["manifest"], found["tasks"]) == (calm["manifest"], calm["tasks"])
