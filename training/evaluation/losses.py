"""Losses of a run on tasks that are held out: the same examples every time, whatever the number of workers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from omnimill.errors import ConfigError
from omnimill.mixtures.rows import scan
from omnimill.mixtures.versions import open_versions
from omnimill.tokenizers.store import load_text
from omnimill.training.backbone.model import TokenLosses
from omnimill.training.engine.learner import Learner
from omnimill.training.engine.loss import modality_sums, task_sums
from omnimill.training.engine.step import sum_over_workers
from omnimill.training.evaluation.answers import AnswerEvaluator
from omnimill.training.evaluation.held_out import row_order
from omnimill.training.loading.batch import DecoderModality, PackedBatch
from omnimill.training.loading.collate import collate
from omnimill.training.packing.window import pack_window
from omnimill.training.rendering.forms import make_renderer
from omnimill.training.runs.inputs import TrainInputs

_MODALITIES = [modality.name.lower() for modality in DecoderModality]


class Measured(Protocol):
    """What losses are asked of: a learner, or a model alone. device: that it computes on."""

    @property
    def device(self) -> torch.device: ...

    def losses(self, batch: PackedBatch) -> TokenLosses:
        """Of a batch on `device`, without gradients."""


@dataclass(frozen=True)
class _Item:
    """An example to be evaluated: its task, and the row among those that the task can use."""

    task: int
    row: int


class Evaluator:
    """Measures a learner on some examples of every held-out task.

    The examples are packed once, into batches that depend on nothing but the data and the settings. Batch i is computed
    by worker i mod `world`, and what the batches come to is added up in their order, so that the result has the same
    bits with any number of workers.

    Args:
        inputs: of the run.
        root: where the token datasets lie.
        device: that the model computes on.
        rank, world: this worker, and how many there are.

    Raises:
        ConfigError: a task that is held out has no rows.
    """

    def __init__(self, inputs: TrainInputs, root: str, device: torch.device, *, rank: int = 0, world: int = 1) -> None:
        settings, mixture = inputs.config.evaluation, inputs.mixture
        data = open_versions(root, inputs.versions)
        self._rows = scan(data, mixture.held_out)
        for rows in self._rows:
            if not len(rows):
                raise ConfigError(f"evaluation: {rows.describe_empty()}")
        held_out = mixture.model_copy(update={"tasks": mixture.held_out, "schedule": (), "held_out": ()})
        # Every example has its own prompt: what replaces some of them in training is for guidance.
        render = inputs.render.model_copy(update={"prompt_drop": 0.0})
        self._budgets = inputs.config.packing.budgets
        self._renderer = make_renderer(held_out, inputs.layout, load_text(root, inputs.layout), render, self._budgets)
        sequences = self._sequences(settings.examples)
        self._batches = [
            sequences[first : first + settings.sequences] for first in range(0, len(sequences), settings.sequences)
        ]
        self._tasks = [task.name for task in mixture.held_out]
        answers = AnswerEvaluator(inputs, root, device, rank=rank, world=world) if settings.generate else None
        self._answers = answers
        self._rank, self._world, self._threads = rank, world, inputs.config.threads

    def evaluate(self, learner: Learner) -> dict[str, Any]:
        """What a line of the history says of it; every worker has to call this, and gets the same.

        ``loss_by_task``, ``loss_by_modality``: mean NLL in nats a target token; ``loss``: the mean over the tasks.
        ``targets``: tokens that were asked for, by task. ``scores``: by task and metric, of the answers; see
        `AnswerEvaluator.scores`.
        """
        tasks, modalities = len(self._tasks), len(_MODALITIES)
        total = sum_over_workers(self.own_sums(learner).to(learner.device)).cpu().sum(0)
        nll, weight, modality_nll, modality_weight = torch.split(total, [tasks, tasks, modalities, modalities])
        by_task = {name: _finite(value) for name, value in zip(self._tasks, (nll / weight).tolist(), strict=True)}
        means = [value for value in by_task.values() if value is not None]
        return {
            "loss": sum(means) / len(means) if len(means) == tasks else None,
            "loss_by_task": by_task,
            "loss_by_modality": {
                name: _finite(value / count)
                for name, value, count in zip(_MODALITIES, modality_nll.tolist(), modality_weight.tolist(), strict=True)
                if count
            },
            "scores": self._answers.scores(learner) if self._answers else {},
            "targets": {name: round(count) for name, count in zip(self._tasks, weight.tolist(), strict=True)},
        }

    def own_sums(self, learner: Measured) -> Tensor:
        """float64 [batches, …]: what this worker's batches come to, and 0 for those of the others: sums of NLL and of
        weight by task, then by modality. Only one worker adds to a row, so the sum over all workers is exact.
        """
        sums = torch.zeros(len(self._batches), 2 * (len(self._tasks) + len(_MODALITIES)), dtype=torch.float64)
        with ThreadPoolExecutor(self._threads) as pool:
            for first in range(0, len(self._batches), self._world):
                # Workers without a batch of their own go along: parts of the model may lie with the others.
                number = min(first + self._rank, len(self._batches) - 1)
                found = self._measured(learner, self._batch(number, pool))
                if number == first + self._rank:
                    sums[number] = found.cpu()
        return sums

    def _measured(self, learner: Measured, batch: PackedBatch) -> Tensor:
        """float64: a row of :meth:`own_sums`."""
        batch = batch.to(learner.device)
        losses = learner.losses(batch)
        by_task = task_sums(losses, batch, len(self._tasks))
        by_modality = modality_sums(losses, batch, 0.0)
        return torch.cat([by_task.nll, by_task.weight, by_modality.nll, by_modality.weight]).double()

    def _batch(self, number: int, pool: ThreadPoolExecutor) -> PackedBatch:
        def rendered(item: _Item) -> Any:
            return self._renderer.render(item.task, self._rows[item.task].fetch(item.row), 0)

        return collate([list(pool.map(rendered, items)) for items in self._batches[number]], self._budgets)

    def _sequences(self, count: int) -> list[list[_Item]]:
        """The examples, in as few sequences as can be."""
        items = list(self._items(count))
        costs = np.array([self._costs(item) for item in items]).T
        packed = pack_window(costs, self._budgets)
        return [[items[one] for one in own.tolist()] for own in np.split(packed.order, packed.ends[:-1])]

    def _costs(self, item: _Item) -> tuple[int, ...]:
        rows = self._rows[item.task]
        return self._renderer.plan(item.task, rows.lengths(item.row), rows.id(item.row), 0).costs

    def _items(self, count: int) -> Iterator[_Item]:
        for number, rows in enumerate(self._rows):
            yield from (_Item(number, row) for row in islice(row_order(rows), count))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
