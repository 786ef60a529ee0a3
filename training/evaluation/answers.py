"""What a model in training answers to held-out cases, and what its answers are worth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch
import torch.distributed as dist

from omnimill.tokenizers.store import SET, load_tokenizers
from omnimill.training.backbone.build import AnyBackbone
from omnimill.training.engine.learner import Learner
from omnimill.training.evaluation.held_out import Place, open_held_out
from omnimill.training.evaluation.scoring import BATCH, Answer, answer_cases, score_answers
from omnimill.training.generation.decoding import Decoding
from omnimill.training.generation.generators import make_generator
from omnimill.training.metrics.score import Score
from omnimill.training.runs.inputs import TrainInputs


class AnswerEvaluator:
    """Has a model answer the first cases of every held-out task.

    Cases are answered in batches that depend on their number alone; batch i is worker i mod `world`'s, so that the
    answers are the same with any number of workers. Worker 0 judges them.

    Args:
        inputs: of the run.
        root: where token datasets and tokenizers lie.
        device: that the model computes on.
        rank, world: this worker, and how many there are.

    Raises:
        OmnimillError: a task asks for codes that the tokenizers have no network for.
    """

    def __init__(self, inputs: TrainInputs, root: str, device: torch.device, *, rank: int = 0, world: int = 1) -> None:
        layout = inputs.layout
        self._inputs, self._rank, self._world = inputs, rank, world
        self._tokenizers = load_tokenizers(root, layout.tokenizers, layout.digests.get(SET), str(device), batch=1)
        for task in inputs.mixture.held_out:
            if task.target_modality != "text":
                getattr(self._tokenizers, task.target_modality)
        self._held_out = open_held_out(root, inputs, self._tokenizers, versions=inputs.versions)
        self._batches = list(_batches(self._held_out.places(inputs.config.evaluation.generate)))

    def scores(self, learner: Learner) -> dict[str, dict[str, dict[str, Any]]]:
        """By task and metric: value (None: there is none), count and unread. Every worker has to call this together,
        and gets the same.
        """
        mine = range(self._rank, len(self._batches), self._world)
        with learner.whole() as model:
            own = {number: self._answers(model, self._batches[number]) for number in mine}
        answers = _gathered(own, self._world)
        found = [self._judged(answers) if self._rank == 0 else {}]
        if dist.is_initialized():
            dist.broadcast_object_list(found)
        return found[0]

    def _answers(self, model: AnyBackbone, places: list[Place]) -> list[Answer]:
        generator = make_generator(model, self._inputs, self._tokenizers)
        cases = [self._held_out.case(place) for place in places]
        return list(answer_cases(generator, cases, Decoding(), batch=BATCH))

    def _judged(self, answers: dict[int, list[Answer]]) -> dict[str, dict[str, dict[str, Any]]]:
        in_order = [answer for number in sorted(answers) for answer in answers[number]]
        judged = score_answers(in_order, self._tokenizers)
        return {task: {score.name: _plain(score) for score in of.scores} for task, of in judged.items()}


def _batches(places: list[Place]) -> Iterator[list[Place]]:
    """As many of one task as are answered at once."""
    for _, group in groupby(places, lambda place: place.task):
        own = list(group)
        for first in range(0, len(own), BATCH):
            yield own[first : first + BATCH]


def _gathered(own: dict[int, list[Answer]], world: int) -> dict[int, list[Answer]]:
    """What all workers have."""
    if world == 1:
        return own
    parts: list[Any] = [None] * world
    dist.all_gather_object(parts, own)
    return {number: answers for part in parts for number, answers in part.items()}


def _plain(score: Score) -> dict[str, Any]:
    value = score.value if score.value is not None and math.isfinite(score.value) else None
    return {"value": value, "count": score.count, "unread": score.unread}
