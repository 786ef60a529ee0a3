"""Held-out cases: which rows, what is asked and what is right; what a model's answers are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omnimill.errors import ConfigError, OmnimillError
from omnimill.mixtures.config import Mixture, Task
from omnimill.tokenizers.store import Tokenizers
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.model import Backbone
from omnimill.training.evaluation.held_out import open_held_out
from omnimill.training.evaluation.scoring import Answer, case_losses, generate_and_score, grouped_numbers, score_answers
from omnimill.training.generation.generate import Generator
from omnimill.training.metrics.evaluate import Case
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.pairs import Renderer
from omnimill.training.rendering.prompt import Asked
from omnimill.training.runs.inputs import TrainInputs

CAPTION = Task(
    name="held-caption",
    rate=0,
    family="image-captioning",
    sources=("photos",),
    inputs=("image",),
    target="text:caption",
    prompts=("what is this?",),
)
PAINT = Task(name="held-paint", rate=0, sources=("photos",), target="image", prompts=("paint {caption} .",))
FILMS = Task(name="film", rate=1, sources=("films",), inputs=("image",), target="text:transcript")


@pytest.fixture(scope="module")
def tokenizers(layout: TokenLayout, text: TextTokenizer) -> Tokenizers:
    return Tokenizers(layout, text, {})


@pytest.fixture(scope="module")
def held(inputs: TrainInputs) -> TrainInputs:
    """The training's inputs, without films, and with tasks held out."""
    drawn = tuple(task for task in inputs.mixture.tasks if "films" not in task.sources)
    mixture = inputs.mixture.model_copy(update={"tasks": drawn, "held_out": (CAPTION, PAINT)})
    return inputs.model_copy(update={"mixture": mixture})


def test_cases_are_the_first_rows_of_one_order(held: TrainInputs, train_root: Path, tokenizers: Tokenizers) -> None:
    """More cases are those that there were and others; every row comes once."""
    held_out = open_held_out(str(train_root), held, tokenizers)
    few, all_of_them = held_out.places(5), held_out.places(1000)
    for number in range(2):
        rows = [place.row for place in all_of_them if place.task == number]
        assert sorted(rows) == list(range(40))
        assert [place.row for place in few if place.task == number] == rows[:5]


def test_a_case_is_a_whole_example_with_what_is_right(
    held: TrainInputs, train_root: Path, tokenizers: Tokenizers, text: TextTokenizer
) -> None:
    captions = open_held_out(str(train_root), held, tokenizers, names=["held-caption"]).cases(8)
    for case in captions:
        example = case.example
        assert text.decode(list(case.wanted)) in case.texts
        assert (case.shown.height, case.shown.width) != (1, 1)
        assert len(example.target.targets) == min(len(case.wanted) + 1, held.render.max_target_text)
        assert isinstance(case.asked, Asked) and case.asked.negative is None
    assert max(len(case.texts) for case in captions) > 1

    # The negative prompt is what training puts in place of others; training halves the patches, these are whole.
    paint = open_held_out(str(train_root), held, tokenizers, names=["held-paint"])
    (case,) = paint.cases(1)
    (place,) = paint.places(1)
    dropping = held.render.model_copy(update={"prompt_drop": 1.0})
    mixture = Mixture(datasets=("tokens",), seed=held.mixture.seed, tasks=(PAINT.model_copy(update={"rate": 1}),))
    renderer = Renderer(mixture, held.layout, text, dropping, Budgets())
    dropped = renderer.render(0, paint.content(place), epoch=0)
    assert isinstance(case.asked, Asked) and case.asked.negative is not None
    assert case.asked.negative.text.tolist() == dropped.text.tolist() != case.example.text.tolist()
    np.testing.assert_array_equal(case.asked.negative.target.targets, case.example.target.targets)
    assert case.wanted == tuple((case.example.target.targets - 2).tolist())


def test_tasks_that_are_not_generated_have_a_loss_alone(
    held: TrainInputs, train_root: Path, tokenizers: Tokenizers
) -> None:
    """Also where several modalities are asked for at once."""
    sown = Task(name="sown", rate=1, sources=("films",), inputs=("image",), target="audio", objective="token_budgets")
    read = Task(name="said", rate=1, sources=("films",), target="text:transcript", objective="text_denoising")
    mixture = Mixture(datasets=("tokens",), seed=1, tasks=(sown, read))
    cases = open_held_out(str(train_root), held, tokenizers, mixture).cases(3)
    assert all(case.wanted == () and case.texts == () and case.asked is None for case in cases)
    generator = Generator(Backbone(held.backbone, seed=1), held, tokenizers)
    for scores in generate_and_score(generator, cases).values():
        assert (scores.count, scores.scores) == (3, ())
        assert 1 < (scores.loss or 0) < 9


def test_rows_that_the_training_draws(held: TrainInputs, train_root: Path, tokenizers: Tokenizers) -> None:
    """Held-out tasks use all rows and say which are drawn for others; other tasks use the rest alone."""
    root = str(train_root)
    assert all(case.seen for case in open_held_out(root, held, tokenizers).cases(3))
    other = Mixture(datasets=("tokens",), seed=1, tasks=(FILMS, CAPTION.model_copy(update={"rate": 1})))
    films = open_held_out(root, held, tokenizers, other, ["film"])
    assert not any(case.seen for case in films.cases(100))
    both = open_held_out(root, held, tokenizers, other)
    with pytest.raises(ConfigError, match="'held-caption': the training draws all of its 40 rows"):
        both.places(3)
    assert len(open_held_out(root, held, tokenizers, other, seen_too=True).places(3)) == 6


def test_what_cannot_be_evaluated(
    inputs: TrainInputs, held: TrainInputs, train_root: Path, tokenizers: Tokenizers
) -> None:
    root = str(train_root)
    with pytest.raises(ConfigError, match="holds no task out"):
        open_held_out(root, inputs, tokenizers)
    with pytest.raises(ConfigError, match="no such task; found 'capton'"):
        open_held_out(root, held, tokenizers, names=["capton"])
    with pytest.raises(ConfigError, match="no eligible row"):
        none = FILMS.model_copy(update={"sources": ("pages",)})
        open_held_out(root, held, tokenizers, Mixture(datasets=("tokens",), tasks=(none,)))
    elsewhere = held.model_copy(update={"layout": held.layout.model_copy(update={"tokenizers": "others"})})
    with pytest.raises(ConfigError, match="tokenized in another way"):
        open_held_out(root, elsewhere, tokenizers)


def test_a_model_is_asked_and_judged(held: TrainInputs, train_root: Path, tokenizers: Tokenizers) -> None:
    """Losses and counts of a model that has learnt nothing; it stays in the mode that it was in."""
    cases = open_held_out(str(train_root), held, tokenizers, names=["held-caption"]).cases(5)
    generator = Generator(Backbone(held.backbone, seed=1), held, tokenizers)
    scores = generate_and_score(generator, cases, batch=2)["held-caption"]
    assert (scores.count, scores.seen, scores.family) == (5, 5, "image-captioning")
    assert [(score.name, score.count) for score in scores.scores] == [("cider_d", 5), ("bleu_4", 5)]
    assert generator.model.training
    sums = [case_losses(generator.model, [case])[0] for case in cases]
    nll, weight = np.sum(sums, axis=0)
    assert scores.loss == pytest.approx(nll / weight, rel=1e-5)
    # As many classes as the table has rows, all about as likely.
    assert scores.loss == pytest.approx(np.log(held.backbone.text_rows), abs=0.7)


def test_right_answers_get_full_marks(text: TextTokenizer, tokenizers: Tokenizers) -> None:
    """By the family where it is known, by the target alone otherwise; denoising has a loss alone."""
    words = tuple(text.encode("the red bird sings near the house"))
    right = Answer("t", "image-captioning", "text:caption", "t/1", False, Case(words, words, loss=(3.0, 6.0)))
    answers = [replace(right, key=f"t/{number}", seen=number > 2) for number in range(4)]
    answers.append(
        replace(right, task="u", family="of my own", target="text:hm", case=replace(right.case, output=words[:3]))
    )
    answers.append(replace(right, task="v", family=None, generated=False, case=replace(right.case, output=())))
    scores = score_answers(answers, tokenizers)
    assert list(scores) == ["t", "u", "v"]
    assert {one.name: one.value for one in scores["t"].scores}["bleu_4"] == pytest.approx(1.0)
    assert (scores["t"].count, scores["t"].seen, scores["t"].loss) == (4, 1, 0.5)
    assert [(one.name, one.value) for one in scores["u"].scores] == [("exact_match", 0.0)]
    # Words are no action: a task that says it is one cannot be judged, one that only looks like it is a text.
    told = replace(right, task="w", target="text:action")
    with pytest.raises(OmnimillError, match="'w' is judged by its family, 'action-prediction'"):
        score_answers([replace(told, family="action-prediction")], tokenizers)
    assert score_answers([replace(told, family=None)], tokenizers)["w"].family == "image-tagging"
    assert (scores["v"].scores, scores["v"].loss) == ((), 0.5)


def test_which_answers_are_of_grouped_numbers() -> None:
    families = ("object-detection", "referring-expression", "keypoint-detection", "vqa", None, "of my own")
    assert [grouped_numbers(family, "text:answer") for family in families] == [4, 4, 2, 0, 0, 0]
    assert grouped_numbers(None, "text:boxes") == 4
