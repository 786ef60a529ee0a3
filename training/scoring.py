"""Asking a model the cases of tasks, and what its answers are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from omnimill.config import Config
from omnimill.mixtures.config import Task
from omnimill.tokenizers.store import Tokenizers
from omnimill.training.backbone.model import Backbone
from omnimill.training.collate import collate
from omnimill.training.decoding import Sampling
from omnimill.training.generate import Generator
from omnimill.training.held_out import HeldOutCase
from omnimill.training.lengths import Budgets
from omnimill.training.metrics.evaluate import Case, evaluate
from omnimill.training.metrics.families import FAMILIES, Network, NetworkName
from omnimill.training.metrics.score import Score

# Cases that are answered at once.
BATCH = 16

# What judges tasks without a family of the registry, by their target.
_PLAIN_FAMILIES = {"text": "image-tagging", "image": "image-editing", "audio": "audio-from-text"}


class Decoding(Config):
    """How answers are decoded, by what is asked for. Of the reference (arXiv 2312.17172, section 5): the most likely
    text, and draws of pictures and sound from a nucleus of 0.95, pictures with a guidance of 10 where the model was
    trained for it.
    """

    text: Sampling = Sampling(temperature=0.0)
    image: Sampling = Sampling()
    audio: Sampling = Sampling()

    def of(self, task: Task) -> Sampling:
        """What holds for a task."""
        found: Sampling = getattr(self, task.target_modality)
        return found


@dataclass(frozen=True)
class Answer:
    """A case and what the model made of it.

    output: text ids without EOS, or codes from 0; None where nothing was to be generated (denoising tasks).
    loss: of the right target, the sum over its tokens in nats, and their number (sums of the tokens' weights).
    """

    case: HeldOutCase
    output: tuple[int, ...] | None
    loss: tuple[float, float]


@dataclass(frozen=True)
class TaskScores:
    """What a model's answers to a task's cases are worth.

    count: of cases; seen: of those that the training draws. loss: mean NLL in nats of a target token.
    scores: of the family's metrics, in the order of the registry; empty where nothing was generated.
    """

    task: str
    family: str | None
    count: int
    seen: int
    loss: float
    scores: tuple[Score, ...]


def generate_and_score(
    generator: Generator,
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
    generator: Generator,
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
            losses = case_losses(model, part)
            task = part[0].task
            outputs: list[tuple[int, ...] | None] = [None] * len(part)
            if task.objective == "generate":
                found = generator.answer([case.asked for case in part], decoding.of(task))
                outputs = [tuple(ids) for ids in found]
            for case, output, loss in zip(part, outputs, losses, strict=True):
                yield Answer(case, output, loss)
            advance(len(part))
    finally:
        model.train(trained)


@torch.inference_mode()
def case_losses(model: Backbone, cases: Sequence[HeldOutCase]) -> list[tuple[float, float]]:
    """Teacher-forced loss of each case: the sum over its target's tokens in nats, and the sum of their weights.

    All cases are in one batch, one to a sequence.
    """
    examples = [case.asked.example for case in cases]
    room = Budgets(
        encoder=max(len(one.modality) for one in examples),
        decoder=max(len(one.target.ids) for one in examples),
    )
    batch = collate([[one] for one in examples], room).to(model.decoder_modality.device)
    weight = batch.decoder_loss.double()
    sums = (weight * model(batch).nll.double()).sum(-1)
    return list(zip(sums.tolist(), weight.sum(-1).tolist(), strict=True))


def score_answers(
    answers: Sequence[Answer], tokenizers: Tokenizers, networks: Mapping[NetworkName, Network] | None = None
) -> dict[str, TaskScores]:
    """What the answers are worth, by the tasks' names, in the order in which tasks come."""
    by_task: dict[str, list[Answer]] = {}
    for answer in answers:
        by_task.setdefault(answer.case.task.name, []).append(answer)
    return {name: _score(own, tokenizers, networks) for name, own in by_task.items()}


def _score(
    answers: Sequence[Answer], tokenizers: Tokenizers, networks: Mapping[NetworkName, Network] | None
) -> TaskScores:
    task = answers[0].case.task
    plain = _PLAIN_FAMILIES[task.target_modality]
    family = task.family if task.family is not None and task.family in FAMILIES else plain
    cases = [
        Case(one.output, one.case.wanted, one.case.shown, one.case.texts, one.loss)
        for one in answers
        if one.output is not None
    ]
    nll, weight = (sum(parts) for parts in zip(*(one.loss for one in answers), strict=True))
    return TaskScores(
        task=task.name,
        family=task.family,
        count=len(answers),
        seen=sum(one.case.seen for one in answers),
        loss=nll / weight if weight else float("nan"),
        scores=tuple(evaluate(family, cases, tokenizers, networks)) if cases else (),
    )


def _batches(cases: Sequence[HeldOutCase], batch: int) -> Iterator[Sequence[HeldOutCase]]:
    """The cases in order, at most `batch` of one task at a time."""
    for _, group in groupby(cases, lambda case: case.task.name):
        own = list(group)
        for start in range(0, len(own), batch):
            yield own[start : start + batch]
