"""The forgetting gate: a run fails whose parents' tasks have become too much worse than the parents do them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from omnimill.config import digest_json
from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra import storage
from omnimill.infra.lineage import CommandRun
from omnimill.progress import progress
from omnimill.training.backbone.build import with_weights
from omnimill.training.checkpoints import checkpoint
from omnimill.training.evaluation.forgetting_settings import ForgettingSettings
from omnimill.training.evaluation.losses import Evaluator
from omnimill.training.merging.report import AloneModel
from omnimill.training.runs.history import read_history
from omnimill.training.runs.inputs import TrainInputs

# In the run's folder: losses of the parents, and what they were measured for.
KEPT = "parents.json"
TAG = "omnimill.forgetting"


@dataclass(frozen=True)
class Remembered:
    """A parent's task: mean NLL in nats of a target token, of the parent and of the run at its end."""

    task: str
    parent: str
    before: float
    now: float

    @property
    def rise(self) -> float:
        return self.now - self.before


def measure_parents(inputs: TrainInputs, root: str, run: Path) -> dict[str, float]:
    """Losses of the parents' tasks as `Evaluator` measures the run's own, on the same examples; on this process's CPU.

    They are kept in the run's folder and measured once.

    Raises:
        ConfigError: a parent has other tokenizers, or reads examples in another form.
        OmnimillError: there is no such parent.
    """
    settings = _settings(inputs)
    folders = {parent: checkpoint.find_named(root, parent) for parent in settings.parents}
    records = {parent: checkpoint.read_record(folder) for parent, folder in folders.items()}
    measured_for = digest_json(
        [
            {parent: [records[parent].digest, tasks] for parent, tasks in settings.parents.items()},
            inputs.config.evaluation.model_dump(mode="json"),
            inputs.versions.model_dump(mode="json"),
            [task.model_dump(mode="json") for task in inputs.mixture.held_out],
        ]
    )
    if (kept := _kept(run)) and kept["measured_for"] == measured_for:
        return dict(kept["losses"])
    losses: dict[str, float] = {}
    with progress(f"parents of {inputs.config.name}", len(folders), "parents") as advance:
        for parent, tasks in settings.parents.items():
            record = records[parent]
            if record.layout != inputs.layout or record.render.form != inputs.render.form:
                raise ConfigError(
                    f"forgetting.parents.{parent}: {folders[parent]} has other tokenizers or another form of examples, "
                    "so that its losses are of other tokens"
                )
            known = [task for task in inputs.mixture.held_out if task.name in tasks]
            mixture = inputs.mixture.model_copy(update={"held_out": tuple(known)})
            plain = inputs.config.evaluation.model_copy(update={"generate": 0})
            config = inputs.config.model_copy(update={"evaluation": plain})
            own = inputs.model_copy(update={"mixture": mixture, "config": config})
            model = with_weights(record.backbone, checkpoint.load_weights(folders[parent]))
            device = torch.device("cpu")
            sums = Evaluator(own, root, device).own_sums(AloneModel(model, device)).sum(0).tolist()
            count = len(known)
            losses |= {
                f"{parent}: {task.name}": sums[number] / sums[count + number] for number, task in enumerate(known)
            }
            advance(1)
    body = {"measured_for": measured_for, "losses": losses}
    storage.publish_bytes(str(run / KEPT), json.dumps(body, indent=2).encode())
    return losses


def remembered(inputs: TrainInputs, run: Path) -> list[Remembered]:
    """How the run's last evaluation compares with its parents.

    Raises:
        OmnimillError: there is none, or the parents were not measured.
    """
    kept = _kept(run)
    last = next((line["evaluation"] for line in reversed(read_history(run)) if "evaluation" in line), None)
    if kept is None or last is None:
        raise OmnimillError(f"run {inputs.config.name}: forgetting cannot be told: {run} lacks an evaluation or {KEPT}")
    found = []
    for parent, tasks in _settings(inputs).parents.items():
        for task in tasks:
            now = last["loss_by_task"][task]
            before = kept["losses"][f"{parent}: {task}"]
            found.append(Remembered(task, parent, before, float("nan") if now is None else now))
    return found


def check_remembered(inputs: TrainInputs, run: Path, told: CommandRun | None = None) -> None:
    """The gate.

    Args:
        told: the run's record in MLflow, which is given the differences as metrics and the outcome as a tag.

    Raises:
        OmnimillError: a task is forgotten; tells all that are.
    """
    settings = _settings(inputs)
    found = remembered(inputs, run)
    forgotten = [one for one in found if not one.rise <= settings.margin]
    if told is not None:
        rises = {f"forgetting/{one.task}": one.rise for one in found if one.rise == one.rise}
        told.metrics(rises, inputs.config.steps)
        told.tags({TAG: "failed" if forgotten else "passed"})
    if forgotten:
        raise OmnimillError(_told(inputs.config.name, settings, forgotten))


def _told(name: str, settings: ForgettingSettings, forgotten: Sequence[Remembered]) -> str:
    listed = "\n".join(
        f"  {one.task}: {one.now:.4f}, {one.rise:+.4f} against {one.before:.4f} of {one.parent}" for one in forgotten
    )
    return (
        f"run {name} has forgotten more than forgetting.margin ({settings.margin}) allows, nats of a target token\n"
        f"{listed}\n"
        "Its checkpoints stay. Mix more of the parents' data in, train more gently, or raise the margin."
    )


def _settings(inputs: TrainInputs) -> ForgettingSettings:
    assert inputs.config.forgetting is not None
    return inputs.config.forgetting


def _kept(run: Path) -> dict[str, Any] | None:
    path = run / KEPT
    return json.loads(path.read_text()) if path.exists() else None
