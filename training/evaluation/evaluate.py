"""``omnimill evaluate``: what a checkpoint's answers to held-out cases are worth, task by task."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from omnimill.config import digest_json
from omnimill.errors import ConfigError
from omnimill.infra import storage
from omnimill.infra.dataset import Dataset
from omnimill.infra.lineage import CommandRun, Reference, command_run
from omnimill.infra.logged_models import find_model
from omnimill.infra.observing import Observer
from omnimill.mixtures.config import Mixture
from omnimill.tokenizers.store import SET, load_tokenizers
from omnimill.training.checkpoints import checkpoint
from omnimill.training.checkpoints.checkpoint import CheckpointRecord
from omnimill.training.evaluation.held_out import open_held_out
from omnimill.training.evaluation.scoring import BATCH, TaskScores, finite, score_answers
from omnimill.training.generation.answer_rows import from_table
from omnimill.training.generation.answer_units import CaseAnswerer, HeldOutJob, case_units
from omnimill.training.generation.answering import Actors, answer_units
from omnimill.training.generation.decoding import Decoding
from omnimill.training.metrics.families import Network, NetworkName
from omnimill.training.runs.follow import checkpoint_name


@dataclass(frozen=True)
class EvaluateResult:
    """checkpoint: ``<run>/<step's folder>``. digest: its digest. answers: the dataset of answers, and its manifest."""

    checkpoint: str
    digest: str
    answers: str
    manifest: str
    tasks: Mapping[str, TaskScores]
    seconds: float
    mlflow_run: str | None = field(default=None)

    def as_json(self) -> dict[str, Any]:
        """The shape that ``--json`` prints."""
        return {
            "checkpoint": self.checkpoint,
            "digest": self.digest,
            "answers": self.answers,
            "manifest": self.manifest,
            "mlflow_run": self.mlflow_run,
            "seconds": round(self.seconds, 3),
            "tasks": {name: scores.as_json() for name, scores in self.tasks.items()},
        }


def evaluate(
    root: str,
    path: str | Path,
    mixture: Mixture | None = None,
    tasks: Sequence[str] = (),
    count: int = 100,
    decoding: Decoding | None = None,
    *,
    seen_too: bool = False,
    networks: Mapping[NetworkName, Network] | None = None,
    batch: int = BATCH,
    actors: Actors | None = None,
    threads: int = 1,
    cpus: int | None = None,
) -> EvaluateResult:
    """Ask a checkpoint the first `count` cases of some tasks and judge its answers.

    Answers are kept as the dataset ``answers/<run>`` under the root: the same command takes them from there, and goes
    on where it was stopped.

    Args:
        root: holds token datasets, tokenizers and the tracking store.
        path: a checkpoint's folder, or a run's: then its newest checkpoint.
        mixture, tasks, seen_too: see :func:`omnimill.training.evaluation.held_out.open_held_out`.
        networks: for metrics that compare features.
        batch: cases that are answered at once; part of what decides the answers' last bits.
        actors: that answer.
        threads: of PyTorch, per process that answers.
        cpus: cores of a local Ray.

    Raises:
        ConfigError, OmnimillError: see `open_held_out` and `answer_units`.
    """
    began = time.monotonic()
    # Actors work in folders of their own.
    root = storage.filesystem(root)[1] if storage.is_local(root) else root
    folder = checkpoint.find(path)
    record = checkpoint.read_record(folder)
    name = checkpoint_name(folder)
    decoding = decoding or Decoding()
    layout = record.layout
    device = "cuda" if actors and actors.num_gpus and torch.cuda.is_available() else "cpu"
    tokenizers = load_tokenizers(root, layout.tokenizers, layout.digests.get(SET), device)
    held_out = open_held_out(root, record, tokenizers, mixture, tasks, seen_too=seen_too)
    units = case_units(held_out, count, batch)
    config = {
        "checkpoint": name,
        "tasks": [task.name for task in held_out.tasks],
        "count": count,
        "batch": batch,
        "seen_too": seen_too,
        "decoding": decoding.model_dump(mode="json"),
    }
    with command_run(root, "evaluate", config, f"evaluate {name}") as run:
        versions = {one.name: one.manifest for one in held_out.versions.datasets}
        run.input(name, record.digest, str(folder))
        for dataset, version in versions.items():
            run.input(dataset, version, Dataset(root, dataset).url)
        job = HeldOutJob(
            root=root,
            checkpoint=str(folder.absolute()),
            folder=storage.join(root, "answers"),
            name=record.run,
            recipe=_recipe(record, decoding, held_out.versions.content_digest(), held_out.seed),
            decoding=decoding,
            threads=threads,
            mixture=mixture,
            versions=held_out.versions,
            tasks=tuple(task.name for task in held_out.tasks),
            seen_too=seen_too,
        )
        digest, manifest = answer_units(
            f"evaluate {name}",
            units,
            CaseAnswerer,
            job,
            actors or Actors(),
            Observer(run.id, "evaluate"),
            cpus,
            versions,
            {"checkpoint": record.digest},
        )
        answers = Dataset(job.folder, job.name)
        by_unit = {commit.unit: commit for commit in manifest.commits}
        tables = (answers.read(shard) for unit in units for shard in by_unit[unit.id].shards)
        scores = score_answers((one for table in tables for one in from_table(table)), tokenizers, networks)
        result = EvaluateResult(name, record.digest, answers.url, digest, scores, time.monotonic() - began, run.id)
        _record(run, name, record, result)
    return result


def load_network(written: str) -> Network:
    """A network by ``module:function``.

    Raises:
        ConfigError: there is no such module, or nothing to call of that name in it.
    """
    module, _, name = written.partition(":")
    try:
        network = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"network: found {written!r}, allowed: module:function; {error}") from None
    if not callable(network):
        raise ConfigError(f"network: {written!r} cannot be called")
    return network  # type: ignore[no-any-return]


def _recipe(record: CheckpointRecord, decoding: Decoding, versions: str, seed: int) -> str:
    """Digest of what decides the answer to a case besides its task, its row and its batch."""
    return digest_json([record.digest, decoding.model_dump(mode="json"), versions, seed])


def _record(run: CommandRun, name: str, record: CheckpointRecord, result: EvaluateResult) -> None:
    """The scores as metrics of the run and of the logged model of checkpoint `name`, if the tracking store knows it."""
    run.output(f"answers-{record.run}", result.manifest, result.answers)
    run.json(result.as_json(), "scores.json")
    run.metrics(
        metrics(result.tasks),
        record.step,
        model=find_model(run, record.digest, name),
        data=Reference(f"answers-{record.run}", result.manifest, result.answers),
    )


def metrics(tasks: Mapping[str, TaskScores]) -> dict[str, float]:
    """MLflow metrics of scores: ``evaluate/<task>/<metric>``, and ``…/count``, ``…/seen`` and ``…/unread``."""
    found: dict[str, float | None] = {}
    for name, task in tasks.items():
        found |= {f"evaluate/{name}/{key}": value for key, value in (("count", task.count), ("seen", task.seen))}
        found[f"evaluate/{name}/loss"] = task.loss
        found |= {f"evaluate/{name}/{one.name}": one.value for one in task.scores}
        if task.scores:
            found[f"evaluate/{name}/unread"] = max(one.unread for one in task.scores)
    plain = {name: finite(value) for name, value in found.items()}
    return {name: value for name, value in plain.items() if value is not None}
