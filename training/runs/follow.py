"""Watches a run from the process that started it: progress for people, metrics and checkpoints for MLflow.

Workers only write the run's folder; what is told about it comes from there. So a killed run leaves nothing half told:
when it goes on, what is missing is told then, and nothing twice.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from omnimill.errors import OmnimillError
from omnimill.infra import lineage
from omnimill.infra.lineage import CommandRun, Reference
from omnimill.infra.logged_models import LoggedModels
from omnimill.training.checkpoints.checkpoint import RECORD, CheckpointRecord, list_checkpoints, read_record
from omnimill.training.runs.history import TIMING, HistoryReader

POLL_SECONDS = 0.5
# The metric that every evaluation has: tokens that were asked for.
EVALUATED = "evaluation/targets"


class Follower:
    """Tells MLflow and `shown` about new steps and checkpoints, for the length of a ``with`` block.

    Args:
        run: the run's folder.
        told: the MLflow run.
        every: metrics of every how many steps.
        shown: called with the history's line of every step that is done.
        stage: of the training that the run is; recorded with its checkpoints.
    """

    def __init__(
        self,
        run: Path,
        told: CommandRun,
        every: int,
        shown: Callable[[dict[str, Any]], None],
        stage: str | None = None,
    ) -> None:
        store = told.client
        self._run, self._told, self._every, self._shown = run, told, every, shown
        self._stage = stage
        logged = [] if told.unseen else store.get_metric_history(told.id, "learning_rate")
        self._next = max((metric.step for metric in logged), default=-1) + 1
        known = [] if told.unseen else lineage.references(store.get_run(told.id), "output")
        self._checkpoints = {reference.name for reference in known}
        measured = [] if told.unseen else store.get_metric_history(told.id, EVALUATED)
        self._measured = {metric.step for metric in measured}
        # Evaluations that wait for the checkpoint of their step, which they are metrics of; by updates done.
        self._evaluations: dict[int, dict[str, float]] = {}
        self._models = LoggedModels(told)
        self._examples: Counter[str] = Counter()
        self._history = HistoryReader(run)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._history.close()
        if self._failure is not None and kind is None:
            raise self._failure

    def _follow(self) -> None:
        try:
            while not self._stop.wait(POLL_SECONDS):
                self._tell()
            self._tell()
            for done in sorted(self._evaluations):
                self._told.metrics(self._evaluations[done], done)
        except BaseException as error:  # noqa: BLE001 - raised where the block ends
            self._failure = error

    def _tell(self) -> None:
        # Before the history: a step's line is written before its checkpoint is published.
        folders = list_checkpoints(self._run)
        for line in self._history.read():
            self._examples.update(line["examples"])
            if line["step"] >= self._next and line["step"] % self._every == 0:
                self._told.metrics(step_metrics(line, self._examples), line["step"])
            done = line["step"] + 1
            if "evaluation" in line and done not in self._measured:
                self._evaluations[done] = evaluation_metrics(line["evaluation"])
            self._shown(line)
        for folder in folders:
            name = checkpoint_name(folder)
            if name in self._checkpoints:
                continue
            try:
                record = read_record(folder)
            except OmnimillError:
                if (folder / RECORD).exists():
                    raise
                continue  # an old one that was deleted just now
            self._log(record, Reference(name, record.digest, str(folder)))
            self._told.output(name, record.digest, str(folder))
            self._checkpoints.add(name)
        self._models.present([checkpoint_name(folder) for folder in folders])

    def _log(self, record: CheckpointRecord, weights: Reference) -> None:
        """The checkpoint as a logged model, with its evaluation and its data."""
        params = {
            "run": record.run,
            "backbone": record.config.backbone.described,
            "streams": str(record.config.streams),
            "mixture": record.mixture.content_digest(),
            "tokenizers": record.layout.tokenizers,
        }
        if self._stage is not None:
            params["stage"] = self._stage
        data = [Reference(one.name, one.manifest, "") for one in record.versions.datasets]
        self._models.log(weights, record.step, params, data, self._evaluations.pop(record.step, {}))


def checkpoint_name(folder: Path) -> str:
    """What a checkpoint is called in lineage: ``<run>/step-00000050``."""
    return f"{folder.parent.parent.name}/{folder.name}"


def evaluation_metrics(found: dict[str, Any]) -> dict[str, float]:
    """MLflow metrics of a line's evaluation."""
    values = {
        "evaluation/loss": found["loss"],
        **{f"evaluation/loss/{name}": value for name, value in found["loss_by_modality"].items()},
        **{f"evaluation/loss/task/{name}": value for name, value in found["loss_by_task"].items()},
        **{
            f"evaluation/{task}/{name}": score["value"]
            for task, scores in found["scores"].items()
            for name, score in scores.items()
        },
        EVALUATED: float(sum(found["targets"].values())),
    }
    return {name: value for name, value in values.items() if value is not None}


def step_metrics(line: dict[str, Any], examples: Counter[str]) -> dict[str, float]:
    """MLflow metrics of one line of the history; `examples`: by task, up to and with this step."""
    values = {
        "loss": line["loss"],
        **{f"loss/{name}": value for name, value in line["loss_by_modality"].items()},
        **{f"loss/task/{name}": value for name, value in line["loss_by_task"].items()},
        **{f"padding_share/{name}": value for name, value in line["padding_share"].items()},
        **{f"realised_rate/{name}": count / examples.total() for name, count in examples.items()},
        "grad_norm": line["grad_norm"],
        "learning_rate": line["learning_rate"],
        "skipped": float(line["skipped"]),
        **{f"attention_logit/{name}": value for name, value in line["attention_logit"].items()},
        **{name: value for name, value in line[TIMING].items() if name != "seconds"},
    }
    return {name: value for name, value in values.items() if value is not None}
