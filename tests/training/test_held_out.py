"""Held-out cases: which rows, what is asked and what is right; scores of a model's answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnimill.mixtures.config import Task
from omnimill.tokenizers.store import Tokenizers
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.model import Backbone
from omnimill.training.generate import Generator
from omnimill.training.held_out import open_held_out
from omnimill.training.inputs import TrainInputs
from omnimill.training.scoring import generate_and_score

CAPTION = Task(
    name="held-caption",
    rate=0,
    family="image-captioning",
    sources=("photos",),
    inputs=("image",),
    target="text:caption",
    prompts=("what is this?",),
)


@pytest.fixture(scope="module")
def tokenizers(layout: TokenLayout, text: TextTokenizer) -> Tokenizers:
    return Tokenizers(layout, text, {})


@pytest.fixture(scope="module")
def held(inputs: TrainInputs) -> TrainInputs:
    """The training's inputs, with a task held out."""
    return inputs.model_copy(update={"mixture": inputs.mixture.model_copy(update={"held_out": (CAPTION,)})})


def test_a_model_is_asked_and_judged(held: TrainInputs, train_root: Path, tokenizers: Tokenizers) -> None:
    cases = open_held_out(str(train_root), held, tokenizers).cases(5)
    assert len(cases) == 5
    assert all(case.seen and case.texts for case in cases)
    generator = Generator(Backbone(held.backbone, seed=1), held, tokenizers)
    scores = generate_and_score(generator, cases, batch=2)["held-caption"]
    assert (scores.count, scores.seen, scores.family) == (5, 5, "image-captioning")
    assert [score.name for score in scores.scores] == ["cider_d", "bleu_4"]
    assert 4 < scores.loss < 9
