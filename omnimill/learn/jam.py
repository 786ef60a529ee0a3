"""The toy replication of JAM: parents on disjoint data, three merges, the same training on, tuning, and who checks it.

Everything is done by the commands that a user has; a second run goes on where the first one stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnimill.cli.steps import Step, need_project_files, run_step
from omnimill.infra.dataset import Dataset
from omnimill.infra.ray_session import ray_session
from omnimill.learn.jam_inputs import Scale, asked_scenes, make_jam_inputs, prompt, restore_environment, set_environment
from omnimill.learn.recognise import scene_of
from omnimill.progress import console, progress
from omnimill.tokenizers.image import decode_rgb
from omnimill.training.backbone.build import with_weights
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.sizes import token_work
from omnimill.training.checkpoints import checkpoint
from omnimill.training.checkpoints.checkpoint import CheckpointRecord, load_weights, read_record
from omnimill.training.merging.report import Perplexities, StepZero
from omnimill.training.merging.settings import ReportSettings

DAG, TOKENIZERS, CONFIGS = "pipelines/dags/jam.yaml", "tokenizers/configs/jam.yaml", "training/configs/jam"
MERGES = ("uniform", "width", "cross")
PARENTS, SCRATCH, TUNED, ALONE = ("jam-writer", "jam-painter"), "jam-scratch", "jam-tuned", "jam-tuned-alone"
_ANSWERS = "jam-answers"
# Share of the answers that have to be text, the picture that was asked for, text.
NEEDED = 0.8


@dataclass(frozen=True)
class Measured:
    """A checkpoint of the replication. cost: of its training, without that of its parents, in products with weights a
    token, times updates. perplexities: by held-out task."""

    model: str
    step: int
    cost: float
    perplexities: dict[str, float]


@dataclass(frozen=True)
class Asked:
    """Answers to prompts for scenes. ordered: text, a picture, text; right: and the picture is the scene."""

    count: int
    ordered: int
    right: int

    @property
    def passed(self) -> bool:
        return self.right >= NEEDED * self.count


@dataclass(frozen=True)
class Replication:
    """All results. seconds: of every command. scratch: for every merge the from-scratch model of equal cost."""

    models: list[Measured]
    scratch: dict[str, Measured]
    asked: Asked
    seconds: dict[str, float]


def replicate(root: str, scale: Scale, margin: float | None = None) -> Replication:
    """Do all of it.

    Args:
        root: holds everything.
        margin: of the forgetting gate; the configuration's when None.

    Raises:
        OmnimillError: the current directory is not the project's, or a command failed.
    """
    need_project_files(DAG, TOKENIZERS)
    root = str(Path(root).absolute())
    folder = Path(root) / "jam-input"
    made = make_jam_inputs(folder, scale)
    console.print(f"input: {folder}" + ("" if made else ", made before"))
    before = set_environment(root, scale, **({} if margin is None else {"OMNIMILL_JAM_MARGIN": str(margin)}))
    try:
        # Ray's own chatter about its helper processes would bury the steps; errors come back as exceptions.
        with ray_session(log_to_driver=False):
            steps = list(_steps(root, scale))
        return _result(root, scale, steps)
    finally:
        restore_environment(before)


def _steps(root: str, scale: Scale) -> list[Step]:
    done = [
        run_step("ingest", DAG, root=root),
        run_step("tokenizer", "train", TOKENIZERS, root=root),
        run_step("tokenize", TOKENIZERS, root=root),
        *(run_step("train", f"{CONFIGS}/{name}.yaml", root=root) for name in ("writer", "painter")),
    ]
    for merge in MERGES:
        if checkpoint.newest(checkpoint.run_folder(root, f"jam-{merge}-merged")) is None:
            done.append(run_step("merge", f"{CONFIGS}/merge-{merge}.yaml", root=root))
        done.append(run_step("train", f"{CONFIGS}/{merge}.yaml", root=root))
    each = _cost(_record(root, PARENTS[0])) / scale.parent_steps
    for merge in MERGES:
        steps = math.ceil(_cost(_record(root, f"jam-{merge}")) / each)
        more = {"OMNIMILL_JAM_SCRATCH_FOR": merge, "OMNIMILL_JAM_SCRATCH_STEPS": str(steps)}
        before = set_environment(root, scale, **more)
        done.append(run_step("train", f"{CONFIGS}/scratch.yaml", root=root))
        restore_environment(before)
    done += [run_step("train", f"{CONFIGS}/{name}.yaml", root=root) for name in ("tuned", "tuned-alone")]
    requests = Path(root) / "jam-asked.jsonl"
    lines = [
        {"key": f"{number:04d}", "target": "interleaved", "prompt": prompt(scene)}
        for number, scene in enumerate(asked_scenes(scale))
    ]
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = str(Path(root) / "jam.html")
    arguments = ["--requests", str(requests), "--out", str(Path(root) / _ANSWERS), "--page", page]
    run = str(checkpoint.run_folder(root, TUNED))
    done.append(run_step("generate", run, *arguments, "--temperature", "0", root=root))
    return done


def _result(root: str, scale: Scale, steps: Sequence[Step]) -> Replication:
    names = [*PARENTS, *(f"jam-{merge}{end}" for merge in MERGES for end in ("-merged", "")), TUNED, ALONE]
    folders = {name: _folder(root, name) for name in names}
    scratch = {merge: _folder(root, f"{SCRATCH}-{merge}") for merge in MERGES}
    inputs = read_record(folders[PARENTS[0]])
    # Every one of the held-out examples of every task.
    settings = ReportSettings(mixture="mixtures/jam-both.yaml", examples=scale.held_out)
    measure = StepZero(inputs, root, settings)
    found: dict[Path, Perplexities] = {}
    wanted = dict.fromkeys([*folders.values(), *scratch.values()])
    with progress("perplexities", len(wanted), "models") as advance:
        for folder in wanted:
            found[folder] = _perplexities(measure, folder)
            advance(1)

    def measured(name: str, folder: Path) -> Measured:
        record = read_record(folder)
        return Measured(name, record.step, _cost(record), found[folder].tasks)

    return Replication(
        models=[measured(name, folder) for name, folder in folders.items()],
        scratch={merge: measured(f"{SCRATCH}-{merge}", folder) for merge, folder in scratch.items()},
        asked=judge(root, scale),
        seconds={step.command: round(step.seconds, 1) for step in steps},
    )


def _perplexities(measure: StepZero, folder: Path) -> Perplexities:
    return measure.measure(with_weights(read_record(folder).backbone, load_weights(folder)))


def judge(root: str, scale: Scale) -> Asked:
    """Tell right answers from wrong ones, by fixed rules alone."""
    dataset = Dataset(root, _ANSWERS)
    _, manifest = dataset.manifest()
    rows = {
        row["key"]: row["pieces"]
        for commit in manifest.commits
        for shard in commit.shards
        for row in dataset.read(shard).select(["key", "pieces"]).to_pylist()
    }
    scenes = asked_scenes(scale)
    ordered = right = 0
    for number, scene in enumerate(scenes):
        pieces = rows[f"{number:04d}"]
        kinds = ["text" if piece["picture"] is None else "picture" for piece in pieces]
        if kinds != ["text", "picture", "text"]:
            continue
        ordered += 1
        right += scene_of(decode_rgb(pieces[1]["picture"])) == scene
    return Asked(len(scenes), ordered, right)


def _folder(root: str, name: str) -> Path:
    return checkpoint.find(checkpoint.run_folder(root, name))


def _record(root: str, name: str) -> CheckpointRecord:
    return read_record(_folder(root, name))


def _cost(record: CheckpointRecord) -> float:
    """Products with weights a token, times updates: all have batches of the same size."""
    assert not isinstance(record.backbone, BackboneConfig)
    return float(token_work(record.backbone).weights) * record.step
