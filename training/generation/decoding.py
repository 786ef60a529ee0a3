"""Choosing tokens one after the other, for many answers at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor

from omnimill.config import Config
from omnimill.rng import Key, uniform
from omnimill.tokenizers.vocabulary import TextVocabulary
from omnimill.training.loading.batch import DecoderModality
from omnimill.vocabulary_layout import Modality


class Sampling(Config):
    """How the next token is chosen; every draw is a function of the seed, the answer's key and the token's place alone.

    temperature: divides the logits; 0 takes the most likely token. top_p: the draw is among the most likely tokens
    whose probabilities just reach this sum (nucleus sampling, arXiv 1904.09751); 0.95 is what Unified-IO 2 uses for
    pictures and sound (arXiv 2312.17172, section 5).
    guidance: scale of classifier-free guidance (arXiv 2207.12598): logits are moved away from those of the negative
    prompt, negative + guidance * (prompt - negative); 1 does without. Of pictures and sound only.
    beams: texts that are followed at once, of which the likeliest is the answer (beam search, without draws); 1 does
    without. length_penalty: of beam search, see `omnimill.training.generation.beams.length_penalty`. Of text only.
    """

    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    seed: int = 0
    guidance: float = Field(default=1.0, ge=0)
    beams: int = Field(default=1, ge=1)
    length_penalty: float = Field(default=0.6, allow_inf_nan=False)


class Decoding(Config):
    """How answers are decoded, by what is asked for. Of the reference (arXiv 2312.17172, section 5): the most likely
    text, and draws of pictures and sound from a nucleus of 0.95, pictures with a guidance of 10 where the model was
    trained for it.

    force_numbers: boxes, cuboids and keypoints come in whole groups of numbers, see
    `omnimill.training.generation.location_rule`; a decoder-only backbone writes them as they come.
    """

    text: Sampling = Sampling(temperature=0.0)
    image: Sampling = Sampling()
    audio: Sampling = Sampling()
    force_numbers: bool = True

    def of(self, target: Modality) -> Sampling:
        """What holds for answers of a modality."""
        found: Sampling = getattr(self, target)
        return found


# Logits of answers (float32 [B, allowed ids]) and the ids of each so far, to logits with -inf where an id may not come.
Rule = Callable[[Tensor, Sequence[Sequence[int]]], Tensor]


class Decoder(Protocol):
    """What tokens are asked of, see `omnimill.training.backbone.stepwise.StepwiseDecoder`."""

    modality: DecoderModality

    @property
    def rows(self) -> int:
        """How many answers there are."""
        ...

    def step(self, ids: Tensor, position: Tensor) -> Tensor:
        """Logits float32 [B, rows], from the ids before (int64 [B]) and the positions asked for (float32 [B, 2])."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the answers, int64 [k]."""
        ...


def decode(
    decoder: Decoder,
    places: Tensor,
    allowed: range,
    sampling: Sampling,
    keys: Sequence[Key],
    rule: Rule | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> list[list[int]]:
    """Tokens of B answers, as many as there are places, fewer where text ends.

    Args:
        places: float32 [n, 2], position of every token.
        allowed: ids that may come out.
        keys: of the B answers' draws.
        rule: what may come next by what came before, see `omnimill.training.generation.location_rule`; None:
            whatever is allowed.
        advance: told how many tokens there are more.
    """
    answers: list[list[int]] = [[] for _ in keys]
    open_answers = list(range(len(keys)))
    previous = torch.zeros(len(keys), dtype=torch.int64, device=places.device)
    for number, place in enumerate(places):
        logits = decoder.step(previous, place.expand(len(previous), 2))[:, allowed.start : allowed.stop]
        if rule is not None:
            logits = rule(logits, [answers[one] for one in open_answers])
        points = [uniform("generate", sampling.seed, keys[one], decoder.modality.name, number) for one in open_answers]
        previous = choose(logits, sampling, torch.tensor(points, dtype=torch.float64)) + allowed.start
        tokens = previous.tolist()
        ended = [decoder.modality == DecoderModality.TEXT and token == TextVocabulary.EOS for token in tokens]
        for one, token, over in zip(open_answers, tokens, ended, strict=True):
            if not over:
                answers[one].append(token)
        advance(len(tokens))
        if any(ended):
            rest = [row for row, over in enumerate(ended) if not over]
            if not rest:
                break
            open_answers = [open_answers[row] for row in rest]
            at = torch.tensor(rest, device=places.device)
            decoder.keep(at)
            previous = previous[at]
    return answers


def choose(logits: Tensor, sampling: Sampling, points: Tensor) -> Tensor:
    """Index of the chosen logit of every row, int64 [B]; among equal ones the first goes first.

    Args:
        logits: float32 [B, n].
        points: float64 [B] in [0, 1), where in the distribution each row's draw lies.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    weight, order = (logits.double() / sampling.temperature).softmax(-1).sort(stable=True, dim=-1, descending=True)
    reached = weight.cumsum(-1)
    last = torch.searchsorted(reached, torch.full_like(reached[:, :1], sampling.top_p)).clamp(max=logits.shape[1] - 1)
    point = points.to(reached.device)[:, None] * reached.gather(-1, last)
    place = torch.searchsorted(reached, point, right=True).minimum(last)
    chosen: Tensor = order.gather(-1, place)[:, 0]
    return chosen
