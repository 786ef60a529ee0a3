"""Decoding many answers at once: batches, guidance, beams and forced numbers do what their definitions say."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vocabulary import TextVocabulary
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.model import Backbone
from omnimill.training.backbone.stepwise import StepwiseDecoder
from omnimill.training.generation.beams import beam_search, length_penalty
from omnimill.training.generation.decoding import Sampling, decode
from omnimill.training.generation.guidance import GuidedDecoder
from omnimill.training.generation.location_rule import LocationRule
from omnimill.training.loading.batch import DecoderModality
from omnimill.training.loading.collate import collate
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.prompt import Asked, Request, render_request
from omnimill.training.rendering.settings import RenderSettings

SETTINGS = RenderSettings(max_text=32, max_target_text=12, history_frames=2, image_latents=8, audio_latents=4)
EOS = TextVocabulary.EOS
LINE = torch.stack([torch.arange(12.0), torch.zeros(12)], 1)


@pytest.fixture(scope="module")
def model(layout: TokenLayout) -> Backbone:
    return Backbone(BackboneConfig.of("tiny", layout), seed=4).eval().requires_grad_(False)


class Chain:
    """A decoder whose next token depends on the token before it alone: log-probabilities by (before, next)."""

    modality = DecoderModality.TEXT

    def __init__(self, table: Tensor, rows: int) -> None:
        self.table, self.rows = table, rows

    def step(self, ids: Tensor, position: Tensor) -> Tensor:
        return self.table[ids]

    def keep(self, rows: Tensor) -> None:
        self.rows = len(rows)


def asked(layout: TokenLayout, text: TextTokenizer, *requests: Request) -> list[Asked]:
    return [render_request(request, layout, text, SETTINGS)[0] for request in requests]


def decoder(model: Backbone, examples: list[Asked], negative: bool = False) -> StepwiseDecoder:
    rendered = [one.example for one in examples]
    if negative:
        rendered += [one.negative for one in examples if one.negative is not None]
    batch = collate([[one] for one in rendered], Budgets(encoder=160, decoder=80))
    with torch.inference_mode():
        return StepwiseDecoder(model, model.encode(batch), rendered[0].target.modality)


# --- batches ---


def test_answers_do_not_depend_on_their_company(layout: TokenLayout, text: TextTokenizer, model: Backbone) -> None:
    """Texts end at different steps, and inputs have different lengths."""
    all_asked = asked(
        layout, text, *(Request("text", prompt, key=prompt) for prompt in ("red", "the bird sings near", "a", "cat"))
    )
    # So few ids that some texts end soon.
    few, sampling = range(EOS, EOS + 8), Sampling(top_p=1.0)
    together = decode(decoder(model, all_asked), LINE, few, sampling, [one.key for one in all_asked])
    alone = [decode(decoder(model, [one]), LINE, few, sampling, [one.key])[0] for one in all_asked]
    assert together == alone
    assert len({len(ids) for ids in together}) > 1
    assert EOS not in {token for ids in together for token in ids}


# --- guidance ---


@pytest.mark.parametrize("target", ["image", "audio"])
def test_guidance_moves_away_from_the_negative_prompt(
    layout: TokenLayout, text: TextTokenizer, model: Backbone, target: str
) -> None:
    examples = asked(
        layout, text, Request(target, "a red tree"), Request(target, "the small blue house", negative="cat")
    )  # type: ignore[arg-type]
    modality = DecoderModality[target.upper()]
    apart = [
        decoder(model, [Asked("", example)])
        for example in (*(one.example for one in examples), *(one.negative for one in examples if one.negative))
    ]
    guided = GuidedDecoder(decoder(model, examples, negative=True), 3.0)
    previous = torch.zeros(2, dtype=torch.int64)
    for number in range(3):
        place = torch.tensor([[0.0, float(number)]] * 2)
        both = [one.step(previous[i % 2 : i % 2 + 1], place[:1]) for i, one in enumerate(apart)]
        wanted = torch.cat([both[2] + 3 * (both[0] - both[2]), both[3] + 3 * (both[1] - both[3])])
        found = guided.step(previous, place)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
        previous = found.argmax(-1)
    assert not torch.allclose(both[0], both[2], atol=1e-3)
    assert guided.modality == modality


def test_the_negative_prompt_is_what_training_puts_in_place_of_prompts(
    layout: TokenLayout, text: TextTokenizer
) -> None:
    vocabulary = text.vocabulary
    for target, words in (("image", SETTINGS.uninformative_prompt), ("audio", "")):
        (one,) = asked(layout, text, Request(target, "a red {tree}"))  # type: ignore[arg-type]
        assert one.negative is not None
        assert one.negative.text.tolist() == [vocabulary.prefix(target, "S"), *text.encode(words), vocabulary.EOS]  # type: ignore[arg-type]
    assert asked(layout, text, Request("text", "hm"))[0].negative is None


# --- beams ---


@given(seed=st.integers(0, 10_000), penalty=st.sampled_from([-0.5, 0.0, 0.6, 1.5]))
@settings(max_examples=25)
def test_wide_beams_find_the_best_text(seed: int, penalty: float) -> None:
    """With a beam for every text, the search finds the text of the best penalised log-probability of all."""
    ids, most = 4, 4
    table = torch.randn(ids, ids, generator=torch.Generator().manual_seed(seed)).mul(2).double().log_softmax(-1)
    table[:, 0] = -torch.inf
    table = table.log_softmax(-1)
    allowed = range(EOS, ids)

    def score(text: tuple[int, ...]) -> float:
        path = (0, *text)
        total = sum(float(table[a, b]) for a, b in pairwise(path))
        return total / length_penalty(len(text), penalty)

    words = range(EOS + 1, ids)
    ended = [(*text, EOS) for length in range(most) for text in product(words, repeat=length)]
    cut = list(product(words, repeat=most))
    best = max([*ended, *cut], key=score)
    (found,) = beam_search(Chain(table, 1), LINE[:most], allowed, beams=40, penalty=penalty)
    whole = (*found, EOS) if len(found) < most else tuple(found)
    assert score(whole) == pytest.approx(score(best), abs=1e-9)


def test_beams_of_a_model(layout: TokenLayout, text: TextTokenizer, model: Backbone) -> None:
    """A beam of one is the greedy text; a wider one finds likelier texts, in company as alone."""
    examples = asked(layout, text, Request("text", "red"), Request("text", "the bird sings near the house"))
    few = range(EOS, EOS + 12)
    greedy = decode(decoder(model, examples), LINE, few, Sampling(temperature=0.0), ["", ""])
    assert beam_search(decoder(model, examples), LINE, few, beams=1, penalty=0.0) == greedy
    wide = beam_search(decoder(model, examples), LINE, few, beams=4, penalty=0.0)
    assert wide == [beam_search(decoder(model, [one]), LINE, few, beams=4, penalty=0.0)[0] for one in examples]
    for one, likely, plain in zip(examples, wide, greedy, strict=True):
        assert log_probability(model, one, likely, few) >= log_probability(model, one, plain, few) - 1e-4


def log_probability(model: Backbone, one: Asked, ids: list[int], allowed: range) -> float:
    steps, total, previous = decoder(model, [one]), 0.0, 0
    for token, place in zip([*ids, EOS][: len(LINE)], LINE, strict=False):
        logits = steps.step(torch.tensor([previous]), place[None])[0, allowed.start : allowed.stop]
        total += float(logits.log_softmax(-1)[token - allowed.start])
        previous = token
    return total


# --- forced numbers ---


def test_numbers_come_in_whole_groups(text: TextTokenizer) -> None:
    vocabulary = text.vocabulary
    rule = LocationRule(vocabulary, 4)
    box = [vocabulary.location(number) for number in (10, 20, 500, 999)]
    (word,) = text.encode("cat")[:1]
    size = vocabulary.size

    def allowed(so_far: list[int], location: float, end: float) -> set[str]:
        """What may come where all locations, the end, and one word have these probabilities."""
        logits = torch.full((1, size), -30.0)
        logits[0, box[0]], logits[0, EOS] = np.log(location), np.log(end)
        logits[0, word] = np.log(1 - location - end)
        free = rule(logits, [so_far])[0].isfinite()
        names = {"location": box[1], "end": EOS, "word": word}
        return {name for name, token in names.items() if free[token]}

    assert allowed([], 0.4, 0.5) == {"location"}
    assert allowed([], 0.2, 0.6) == {"location", "end", "word"}
    assert allowed([], 0.2, 0.4) == {"location", "word"}
    for count in (1, 2, 3):
        assert allowed(box[:count], 0.01, 0.9) == {"location"}
    assert allowed(box, 0.1, 0.8) == {"location", "end", "word"}
    assert allowed([*box, word, box[0]], 0.01, 0.9) == {"location"}
