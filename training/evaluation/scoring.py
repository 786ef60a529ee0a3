"""Asking a model the cases of tasks, and what its answers are worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from omnimill.errors import OmnimillError
from omnimill.tokenizers.store import Tokenizers
from omnimill.training.backbone.build import AnyBackbone
from omnimill.training.evaluation.held_out import HeldOutCase
from omnimill.training.generation.decoding import Decoding
from omnimill.training.generation.generators import AnyGenerator
from omnimill.training.generation.interleaved import SequenceGenerator
from omnimill.training.loading.collate import collate_apart
from omnimill.training.metrics.evaluate import Case, evaluate
from omnimill.training.metrics.families import Network, NetworkName, judging, measures
from omnimill.training.metrics.reading import Reading
from omnimill.training.metrics.score import Score
from omnimill.training.rendering.prompt import Asked, Opening

# Cases that are answered at once.
BATCH = 16

# Numbers that belong together in what is read so: four of a box, these and twelve of a cuboid, two of a point.
_GROUPS: dict[Reading, int] = {"box": 4, "boxes": 4, "cuboids": 16, "keypoints": 2}


@dataclass(frozen=True)
class Answer:
    """What a model made of a case.

    task, family, target: name, family and target (``text:caption``) of its task. key, seen: of the case.
    case: output and what it is judged by; its loss is that of the right target.
    generated: False where nothing was to be generated, see `HeldOutCase`; then the output is empty.
    """

    task: str
    family: str | None
    target: str
    key: str
    seen: bool
    case: Case
    generated: bool = True

    @property
    def loss(self) -> tuple[float, float]:
        """Sum over the right target's tokens in nats, and the sum of their weights."""
        return self.case.loss or (0.0, 0.0)


@dataclass(frozen=True)
class TaskScores:
    """What a model's answers to a task's cases are worth.

    family: whose metrics these are; of a task that is not generated its own. count: of cases; seen: of those that the
    training draws. loss: mean NLL in nats of a target token; None: no token counts.
    scores: of the family's metrics, in the order of the registry; empty where nothing was generated.
    """

    task: str
    family: str | None
    count: int
    seen: int
    loss: float | None
    scores: tuple[Score, ...]

    def as_json(self) -> dict[str, Any]:
        """The shape that ``--json`` prints."""
        metrics = {
            one.name: {"value": finite(one.value), "count": one.count, "unread": one.unread} for one in self.scores
        }
        facts = {"family": self.family, "count": self.count, "seen": self.seen, "loss": finite(self.loss)}
        return {**facts, "metrics": metrics}


def generate_and_score(
    generator: AnyGenerator,
    cases: Sequence[HeldOutCase],
    decoding: Decoding | None = None,
    *,
    networks: Mapping[NetworkName, Network] | None = None,
    batch: int = BATCH,
    advance: Callable[[int], object] = lambda _: None,
) -> dict[str, TaskScores]:
    """Ask a model some cases and judge its answers, task by task, in the order of the cases.

    Equal cases in equal order with an equal batch give equal scores.

    Args:
        generator: of the model, which is left in the mode (training or evaluation) that it was in.
        cases: of one or several tasks, the cases of each task together.
        networks: for metrics that compare features; metrics without theirs are left out.
        batch: cases that are answered at once.
        advance: told how many cases there are more.

    Raises:
        OmnimillError: a picture or sound is to be judged, and the tokenizers have no network for it.
    """
    answers = list(answer_cases(generator, cases, decoding or Decoding(), batch=batch, advance=advance))
    return score_answers(answers, generator.tokenizers, networks)


def answer_cases(
    generator: AnyGenerator,
    cases: Sequence[HeldOutCase],
    decoding: Decoding,
    *,
    batch: int = BATCH,
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[Answer]:
    """The model's answers to the cases, in order; arguments as of :func:`generate_and_score`."""
    model = generator.model
    trained = model.training
    model.eval()
    try:
        for part in _batches(cases, batch):
            task = part[0].task
            generated = part[0].asked is not None
            outputs = _outputs(generator, part, decoding) if generated else [[] for _ in part]
            for case, output, loss in zip(part, outputs, case_losses(model, part), strict=True):
                judged = Case(output, case.wanted, case.shown, case.texts, loss)
                yield Answer(task.name, task.family, task.target, case.key, case.seen, judged, generated)
            advance(len(part))
    finally:
        model.train(trained)


def _outputs(generator: AnyGenerator, cases: Sequence[HeldOutCase], decoding: Decoding) -> list[list[int]]:
    """Answers to cases of one task."""
    asked, task = [case.asked for case in cases], cases[0].task
    if isinstance(generator, SequenceGenerator):
        return generator.answer([one for one in asked if isinstance(one, Opening)], decoding)
    numbers = grouped_numbers(task.family, task.target) if decoding.force_numbers else 0
    return generator.answer(
        [one for one in asked if isinstance(one, Asked)], decoding.of(task.target_modality), numbers
    )


@torch.inference_mode()
def case_losses(model: AnyBackbone, cases: Sequence[HeldOutCase]) -> list[tuple[float, float]]:
    """Teacher-forced loss of each case: the sum over its target's tokens in nats, and the sum of their weights.

    All cases are in one batch, one to a sequence.
    """
    batch = collate_apart([case.example for case in cases]).to(next(model.parameters()).device)
    weight = batch.decoder_loss.double()
    sums = (weight * model(batch).nll.double()).sum(-1)
    return list(zip(sums.tolist(), weight.sum(-1).tolist(), strict=True))


def score_answers(
    answers: Iterable[Answer], tokenizers: Tokenizers, networks: Mapping[NetworkName, Network] | None = None
) -> dict[str, TaskScores]:
    """What the answers are worth, by the tasks' names, in the order in which tasks come."""
    by_task: dict[str, list[Answer]] = {}
    for answer in answers:
        by_task.setdefault(answer.task, []).append(answer)
    return {name: _score(own, tokenizers, networks) for name, own in by_task.items()}


def _score(
    answers: Sequence[Answer], tokenizers: Tokenizers, networks: Mapping[NetworkName, Network] | None
) -> TaskScores:
    task = answers[0].task
    cases = [one.case for one in answers if one.generated]
    family, scores = _judged(answers[0], cases, tokenizers, networks) if cases else (answers[0].family, [])
    nll, weight = (sum(parts) for parts in zip(*(one.loss for one in answers), strict=True))
    return TaskScores(
        task=task,
        family=family,
        count=len(answers),
        seen=sum(one.seen for one in answers),
        loss=nll / weight if weight else None,
        scores=tuple(scores),
    )


def _judged(
    one: Answer, cases: Sequence[Case], tokenizers: Tokenizers, networks: Mapping[NetworkName, Network] | None
) -> tuple[str, list[Score]]:
    """The family that judges a task, and its scores.

    Raises:
        OmnimillError: a target cannot be read as what the task's family says.
    """
    fault = ""
    for family in judging(one.family, one.target):
        try:
            return family, evaluate(family, cases, tokenizers, networks)
        except ValueError as error:
            fault = str(error)
    raise OmnimillError(f"task {one.task!r} is judged by its family, {one.family!r}, but holds {fault}")


def finite(value: float | None) -> float | None:
    """None for what JSON has no number for."""
    return value if value is not None and math.isfinite(value) else None


def grouped_numbers(family: str | None, target: str) -> int:
    """Numbers that belong together in the answers of a task; 0 where they are not read in groups."""
    return _GROUPS.get(measures(judging(family, target)[0])[0].reading, 0)


def _batches(cases: Sequence[HeldOutCase], batch: int) -> Iterator[Sequence[HeldOutCase]]:
    """The cases in order, at most `batch` of one task at a time."""
    for _, group in groupby(cases, lambda case: case.task.name):
        own = list(group)
        for start in range(0, len(own), batch):
            yield own[start : start + batch]
