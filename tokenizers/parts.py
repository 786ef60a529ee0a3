"""The parts of a tokenizer set, each learnt from a corpus and measured on what was held out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from omnimill.tokenizers import store
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.corpus import Column, Corpus, Sample
from omnimill.tokenizers.evaluate import Measured, held_out, measure_clips, measure_pictures
from omnimill.tokenizers.fit import fit_task
from omnimill.tokenizers.launch import Tell, fit
from omnimill.tokenizers.networks import CodeNetwork
from omnimill.tokenizers.text import TextTokenizer, sample_texts, train_bpe
from omnimill.tokenizers.vq import AudioTokenizer, ImageTokenizer
from omnimill.tokenizers.weights import initial_network, text_model

# One in so many sampled texts measures the text model.
_TEXT_HELD_OUT = 20


@dataclass(frozen=True)
class Part:
    """file: what is stored. quality: what was measured."""

    file: bytes
    quality: dict[str, float]


def text_part(config: TokenizerConfig, corpus: Corpus) -> Part:
    """The text model: trained, or the existing one that the configuration names.

    Raises:
        OmnimillError: the corpus has no text.
    """
    sample = sample_texts(corpus.texts(), config.text.characters, config.seed)
    held = len(sample) // _TEXT_HELD_OUT
    if config.text.model is not None:
        tokenizer = text_model(config.text.model)
    else:
        tokenizer = TextTokenizer.of(train_bpe(sample[held:], config.text), "the text model just trained")
    quality = {"text_pieces": float(tokenizer.vocabulary.pieces)}
    measured = sample[:held] or sample
    tokens = sum(len(tokenizer.encode(text)) for text in measured)
    if tokens:
        quality["text_characters_per_token"] = round(sum(map(len, measured)) / tokens, 3)
    return Part(tokenizer.model, quality)


def image_part(
    config: TokenizerConfig, corpus: Corpus, published: Mapping[str, str], tell: Tell | None = None
) -> Part | None:
    """The picture network; None when the corpus has no pictures and no weights are given.

    Args:
        config: of the set.
        corpus: to learn from.
        published: see :func:`omnimill.tokenizers.weights.published_digests`.
        tell: told how training goes on.
    """

    def measure(network: CodeNetwork, samples: Sequence[Sample]) -> Measured | None:
        return measure_pictures(ImageTokenizer(network, config.layout.image), samples)

    return _network_part(config, "image", corpus, published, tell, measure)


def audio_part(
    config: TokenizerConfig, corpus: Corpus, published: Mapping[str, str], tell: Tell | None = None
) -> Part | None:
    """The spectrogram network; None when the corpus has no sound and no weights are given; see :func:`image_part`."""

    def measure(network: CodeNetwork, samples: Sequence[Sample]) -> Measured | None:
        return measure_clips(AudioTokenizer(network, config.layout.audio), samples)

    return _network_part(config, "audio", corpus, published, tell, measure)


def _network_part(
    config: TokenizerConfig,
    part: Literal["image", "audio"],
    corpus: Corpus,
    published: Mapping[str, str],
    tell: Tell | None,
    measure: Callable[[CodeNetwork, Sequence[Sample]], Measured | None],
) -> Part | None:
    column: Column = "images" if part == "image" else "audio"
    medium = config.image if part == "image" else config.audio
    settings = medium.training
    split = corpus.split(column, settings.held_out, config.seed)
    if split is not None:
        network = fit(fit_task(config, part, corpus, split, published), tell)
    elif medium.weights is not None and settings.steps == 0:
        network = initial_network(medium, config.layout.image if part == "image" else config.layout.audio)
    else:
        return None
    measured = measure(network, held_out(corpus, column, settings, config.seed))
    return Part(store.weights(network), {} if measured is None else measured.quality)
