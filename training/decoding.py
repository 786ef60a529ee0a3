"""Choosing tokens one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from omnimill.config import Config
from omnimill.rng import Key, uniform
from omnimill.tokenizers.vocabulary import TextVocabulary
from omnimill.training.backbone.stepwise import StepwiseDecoder
from omnimill.training.batch import DecoderModality


class Sampling(Config):
    """How the next token is chosen; every draw is a function of the seed and the token's place alone.

    temperature: divides the logits; 0 takes the most likely token. top_p: the draw is among the most likely tokens
    whose probabilities just reach this sum (nucleus sampling, arXiv 1904.09751); 0.95 is what Unified-IO 2 uses for
    pictures and sound (arXiv 2312.17172, section 5).
    """

    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    seed: int = 0


def decode(decoder: StepwiseDecoder, places: Tensor, allowed: range, sampling: Sampling) -> Iterator[int]:
    """Tokens one after the other, as many as there are places, fewer when text ends.

    Args:
        places: float32 [n, 2], position of every token.
        allowed: ids that may come out.
    """
    previous = torch.zeros(1, dtype=torch.int64)
    for number, place in enumerate(places):
        logits = decoder.step(previous, place[None])[0, allowed.start : allowed.stop]
        token = choose(logits.numpy(), sampling, decoder.modality.name, number) + allowed.start
        if decoder.modality == DecoderModality.TEXT and token == TextVocabulary.EOS:
            return
        yield token
        previous = torch.tensor([token])


def choose(logits: npt.NDArray[np.float32], sampling: Sampling, *keys: Key) -> int:
    """Index of the chosen logit; among equal ones the first goes first."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / sampling.temperature
    weight = np.exp(scaled - scaled.max())
    order = np.argsort(-weight, kind="stable")
    reached = np.cumsum(weight[order] / weight.sum())
    nucleus = int(np.searchsorted(reached, sampling.top_p)) + 1
    point = uniform("generate", sampling.seed, *keys) * reached[:nucleus][-1]
    return int(order[min(np.searchsorted(reached, point, side="right"), len(order) - 1)])
