"""The parts of a tokenizer set, each learnt from a corpus and measured on what was held out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from omnimill.tokenizers import store
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.corpus import Corpus
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
    settings = config.image.training
    split = corpus.split("images", settings.held_out, config.seed)
    if split is not None:
        network = fit(fit_task(config, "image", corpus, split, published), tell)
    elif _imported(config.image.weights, settings.steps):
        network = initial_network(config.image, config.layout.image)
    else:
        return None
    samples = held_out(corpus, "images", settings, config.seed)
    return _part(network, measure_pictures(ImageTokenizer(network, config.layout.image), samples))


def audio_part(
    config: TokenizerConfig, corpus: Corpus, published: Mapping[str, str], tell: Tell | None = None
) -> Part | None:
    """The spectrogram network; None when the corpus has no sound and no weights are given; see :func:`image_part`."""
    settings = config.audio.training
    split = corpus.split("audio", settings.held_out, config.seed)
    if split is not None:
        network = fit(fit_task(config, "audio", corpus, split, published), tell)
    elif _imported(config.audio.weights, settings.steps):
        network = initial_network(config.audio, config.layout.audio)
    else:
        return None
    samples = held_out(corpus, "audio", settings, config.seed)
    return _part(network, measure_clips(AudioTokenizer(network, config.layout.audio), samples))


def _imported(weights: str | None, steps: int) -> bool:
    return weights is not None and steps == 0


def _part(network: CodeNetwork, measured: Measured | None) -> Part:
    return Part(store.weights(network), {} if measured is None else measured.quality)
