"""``omnimill merge``: checkpoints become the starting point of another run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from omnimill.errors import ConfigError
from omnimill.infra import lineage
from omnimill.infra.lineage import CommandRun
from omnimill.infra.logged_models import LoggedModels
from omnimill.infra.tracking import Reference
from omnimill.tokenizers.store import SET
from omnimill.training.backbone.build import build, with_weights
from omnimill.training.checkpoints import checkpoint
from omnimill.training.checkpoints.checkpoint import CheckpointRecord, MergedParent, MergeOrigin
from omnimill.training.checkpoints.settings import CheckpointSettings
from omnimill.training.checkpoints.writer import CheckpointWriter
from omnimill.training.merging import means, towers, width  # noqa: F401 - they register themselves
from omnimill.training.merging.data import joined_mixture, joined_versions
from omnimill.training.merging.plan import MERGES, MergePlan, Mismatch, Parent, letters
from omnimill.training.merging.report import Perplexities, StepZero
from omnimill.training.merging.settings import MergeConfig
from omnimill.training.planning.lengths import Budgets
from omnimill.training.runs.config import BackboneSettings


@dataclass(frozen=True)
class Opened:
    """A checkpoint to be merged. name: in lineage, ``<run>/<step>``."""

    parent: Parent
    folder: Path
    record: CheckpointRecord

    @property
    def name(self) -> str:
        return f"{self.folder.parent.parent.name}/{self.folder.name}"


@dataclass(frozen=True)
class MergeResult:
    """parameters: of the merged model. report: perplexities by model: ``A``, ``B``, …, ``merged``; empty where nothing
    was measured."""

    checkpoint: str
    digest: str
    parameters: int
    report: dict[str, Perplexities]
    mlflow_run: str
    seconds: float


def open_parents(config: MergeConfig, root: str) -> list[Opened]:
    """The checkpoints that the configuration names.

    Args:
        root: whose runs may be named.

    Raises:
        OmnimillError: there is no such checkpoint.
        Mismatch: they have different tokenizers, whose ids mean different things.
    """
    folders = [checkpoint.find_named(root, named) for named in config.parents]
    found = []
    for letter, folder in zip(letters(), folders, strict=False):
        record = checkpoint.read_record(folder)
        found.append(Opened(Parent(letter, record.backbone), folder, record))
    lines = []
    first = found[0]
    for other in found[1:]:
        if other.record.layout != first.record.layout:
            ours, theirs = (
                f"{one.parent.letter} {one.record.layout.tokenizers!r} "
                f"({one.record.layout.digests.get(SET, 'no digest')[:12]})"
                for one in (first, other)
            )
            lines.append(f"tokenizers: {ours}, {theirs}")
    if lines:
        raise Mismatch(lines)
    return found


def plan_merge(config: MergeConfig, opened: Sequence[Opened]) -> MergePlan:
    """What the merged model is made of; no weights are read.

    Raises:
        Mismatch: the parents do not fit together; names every reason.
    """
    plan = MERGES[config.method.name]([one.parent for one in opened], config.method)
    plan.check()
    return plan


def merge(
    config: MergeConfig, root: str, planned: Callable[[MergePlan, Sequence[Opened]], None] = lambda *_: None
) -> MergeResult:
    """Merge checkpoints into one, of step 0, that a run can start from (`init_from`).

    Args:
        root: where the merged model is kept, under ``runs``, and the tracking store is.
        planned: is told what will be done before anything is.

    Raises:
        ConfigError: the parents do not fit together (`Mismatch`), there is a run of that name, or there is nothing to
            measure on.
        OmnimillError: there is no such checkpoint.
    """
    began = time.monotonic()
    opened = open_parents(config, root)
    plan = plan_merge(config, opened)
    planned(plan, opened)
    run = checkpoint.run_folder(root, config.name)
    if checkpoint.newest(run) is not None:
        raise ConfigError(f"name: there is a run {config.name!r} under {run.parent} already; choose another name")
    inputs = _record(config, plan, opened)
    step_zero = StepZero(inputs, root, config.report) if config.report.examples else None
    with lineage.command_run(root, "merge", config.model_dump(mode="json"), config.name) as told:
        for one in opened:
            told.input(one.name, one.record.digest, str(one.folder))
        weights = [checkpoint.load_weights(one.folder) for one in opened]
        merged = combine(plan, weights, config.seed)
        folder = _write(run, root, inputs.model_copy(update={"mlflow_run": told.id}), merged)
        record = checkpoint.read_record(folder)
        report: dict[str, Perplexities] = {}
        if step_zero is not None:
            for one, own in zip(opened, weights, strict=True):
                report[one.parent.letter] = step_zero.measure(with_weights(one.record.backbone, own))
            report["merged"] = step_zero.measure(with_weights(record.backbone, merged))
        _tell(told, plan, opened, folder, record, report)
    return MergeResult(
        checkpoint=str(folder),
        digest=record.digest,
        parameters=sum(tensor.numel() for tensor in merged.values()),
        report=report,
        mlflow_run=told.id,
        seconds=time.monotonic() - began,
    )


def combine(plan: MergePlan, weights: Sequence[dict[str, Tensor]], seed: int) -> dict[str, Tensor]:
    """The merged model's weights.

    Args:
        weights: of the parents, by name.
        seed: of what no parent has.
    """
    fresh = build(plan.backbone, seed).state_dict() if any(one.make is None for one in plan.made) else {}
    found = {}
    for one in plan.made:
        made = fresh[one.name] if one.make is None else one.make([weights[i][name] for i, name in one.sources])
        assert tuple(made.shape) == one.shape, (one.name, made.shape, one.shape)
        # Of its own: no two tensors of a file may share memory.
        found[one.name] = made.clone().contiguous()
    return found


def _record(config: MergeConfig, plan: MergePlan, opened: Sequence[Opened]) -> CheckpointRecord:
    """The merged checkpoint's, but for its files and its MLflow run."""
    records = [one.record for one in opened]
    first = records[0]
    rooms = [record.config.packing.budgets for record in records]
    budgets = Budgets(**{name: max(getattr(room, name) for room in rooms) for name in Budgets.model_fields})
    settings = first.config.model_copy(
        update={
            "name": config.name,
            "backbone": BackboneSettings(kind="inherited"),
            "init_from": None,
            "init_optimizer": False,
            "packing": first.config.packing.model_copy(update={"budgets": budgets}),
        }
    )
    return CheckpointRecord(
        config=settings,
        mixture=joined_mixture(records, [one.parent.letter for one in opened]),
        versions=joined_versions(records),
        layout=first.layout,
        backbone=plan.backbone,
        run=config.name,
        step=0,
        plan={},
        ledger="",
        examples={},
        merged=MergeOrigin(
            method=config.method.model_dump(mode="json"),
            seed=config.seed,
            parents=tuple(
                MergedParent(url=str(one.folder), run=one.record.run, step=one.record.step, digest=one.record.digest)
                for one in opened
            ),
        ),
    )


def _write(run: Path, root: str, record: CheckpointRecord, weights: dict[str, Tensor]) -> Path:
    checkpoint.keep_root(run, root)
    with CheckpointWriter(run, CheckpointSettings()) as writer:
        writer.save(record, {"model": weights, "optimizer": {"state": {}, "param_groups": []}})
    return checkpoint.checkpoints_folder(run) / checkpoint.folder_name(record.step)


def _tell(
    told: CommandRun,
    plan: MergePlan,
    opened: Sequence[Opened],
    folder: Path,
    record: CheckpointRecord,
    report: dict[str, Perplexities],
) -> None:
    """Lineage: what was made of what, and how good it is."""
    name = f"{folder.parent.parent.name}/{folder.name}"
    weights = Reference(name, record.digest, str(folder))
    told.output(weights.name, weights.digest, weights.url)
    told.json(map_as_json(plan, opened), "name_map.json")
    measured = {
        f"perplexity/{model}/{modality}": value
        for model, found in report.items()
        for modality, value in found.modalities.items()
    }
    told.metrics(measured)
    assert record.merged is not None
    params = {
        "run": record.run,
        "backbone": f"merged: {record.merged.method['name']}",
        "mixture": record.mixture.content_digest(),
        "tokenizers": record.layout.tokenizers,
        **{f"parent_{one.parent.letter}": one.name for one in opened},
    }
    data = [Reference(one.name, one.manifest, "") for one in record.versions.datasets]
    LoggedModels(told).log(weights, record.step, params, data, measured)


def map_as_json(plan: MergePlan, opened: Sequence[Opened]) -> list[dict[str, Any]]:
    """Every tensor of the merged model and what it is made of."""
    return [
        {
            "name": one.name,
            "shape": list(one.shape),
            "sources": [{"parent": opened[i].name, "name": name} for i, name in one.sources],
            "rule": one.rule,
        }
        for one in plan.made
    ]
