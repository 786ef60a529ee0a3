"""The parts of a tokenizer set, each trained on a sample of a corpus and measured on what it did not learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from omnimill.config import Config
from omnimill.errors import BadRecord
from omnimill.progress import console
from omnimill.tokenizers import audio, media, store
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.corpus import Corpus, Sample
from omnimill.tokenizers.fit import codebook_use, fit
from omnimill.tokenizers.networks import audio_network, image_network
from omnimill.tokenizers.text import TextTokenizer, sample_texts, train_bpe
from omnimill.tokenizers.vq import AudioTokenizer, ImageTokenizer, picture_input, sound_input

# One in so many sampled texts measures the text model.
_TEXT_HELD_OUT = 20

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """file: what is stored. quality: what was measured. network: shape of the network; None for text."""

    file: bytes
    quality: dict[str, float]
    network: Config | None = None


def text_part(config: TokenizerConfig, corpus: Corpus) -> Part:
    """The text model: trained, or the existing one that the configuration names.

    Raises:
        OmnimillError: the corpus has no text.
    """
    sample = sample_texts(corpus.texts(), config.text.characters, config.seed)
    held = len(sample) // _TEXT_HELD_OUT
    if config.text.model is not None:
        tokenizer = TextTokenizer(config.text.model)
    else:
        tokenizer = TextTokenizer.of(train_bpe(sample[held:], config.text), "the text model just trained")
    quality = {"text_pieces": float(tokenizer.vocabulary.pieces)}
    measured = sample[:held] or sample
    tokens = sum(len(tokenizer.encode(text)) for text in measured)
    if tokens:
        quality["text_characters_per_token"] = round(sum(map(len, measured)) / tokens, 3)
    return Part(tokenizer.model, quality)


def image_part(config: TokenizerConfig, corpus: Corpus) -> Part | None:
    """The picture network; None when the corpus has no readable pictures.

    Measured: mean PSNR in dB over the pixels of each held-out picture (not its padding), and use of the codebook.
    """
    layout, settings = config.layout.image, config.image.training
    samples = corpus.media("images", settings.samples, config.seed)
    read = _readable(samples, lambda data: media.picture(data, layout), "pictures")
    if not read:
        return None
    learned, measured = _split(read, settings.held_out)
    network = fit(
        lambda: image_network(config.image.network, layout),
        torch.from_numpy(np.stack([picture.canvas for picture in learned])),
        picture_input,
        settings,
        config.seed,
        "image",
    )
    tokenizer = ImageTokenizer(network, layout)
    originals = np.stack([picture.canvas for picture in measured]).astype(np.float32) / 255.0
    codes = tokenizer.encode(originals)
    errors = np.square(tokenizer.decode(codes) - originals)
    ratios = [_psnr(error[picture.mask].mean()) for error, picture in zip(errors, measured, strict=True)]
    quality = {"image_psnr_db": round(float(np.mean(ratios)), 3)}
    quality |= codebook_use("image", codes, layout.codes)
    return Part(store.weights(network), quality, config.image.network)


def audio_part(config: TokenizerConfig, corpus: Corpus) -> Part | None:
    """The spectrogram network; None when the corpus has no readable sound.

    Measured: mean absolute error of held-out log-mel values (natural logarithm), and use of the codebook.
    """
    layout, settings = config.layout.audio, config.audio.training
    samples = corpus.media("audio", settings.samples, config.seed)
    read = _readable(samples, lambda data: media.clip(data, layout).mel, "clips")
    if not read:
        return None
    learned, measured = _split(read, settings.held_out)
    network = fit(
        lambda: audio_network(config.audio.network, layout),
        torch.from_numpy(audio.normalise_target(np.stack(learned))),
        sound_input,
        settings,
        config.seed,
        "audio",
    )
    tokenizer = AudioTokenizer(network, layout)
    originals = np.stack(measured)
    codes = tokenizer.encode(originals)
    error = np.abs(tokenizer.decode(codes) - originals).mean()
    quality = {"audio_mel_error": round(float(error), 4)} | codebook_use("audio", codes, layout.codes)
    return Part(store.weights(network), quality, config.audio.network)


def _psnr(error: float) -> float:
    return -10.0 * math.log10(max(float(error), 1e-12))


def _readable(samples: Sequence[Sample], read: Callable[[bytes], T], what: str) -> list[tuple[str, T]]:
    """(example id, what was read) of the samples that can be read; tokenization quarantines the others."""
    found = []
    for sample in samples:
        try:
            found.append((sample.example, read(sample.data)))
        except BadRecord as bad:
            console.print(f"not learned from: example {sample.example}: {bad.reason}: {bad.message}")
    if len(found) < len(samples):
        console.print(f"{len(samples) - len(found)} of {len(samples)} sampled {what} cannot be read")
    return found


def _split(items: Sequence[tuple[str, T]], share: float) -> tuple[list[T], list[T]]:
    """Items to learn from and items to measure with, those of one example on one side; the same when there is but one.

    Items come in the order of their keyed hash, so the first examples are a random choice.
    """
    examples = list(dict.fromkeys(example for example, _ in items))
    held = set(examples[: max(1, round(len(examples) * share))])
    learned = [item for example, item in items if example not in held]
    measured = [item for example, item in items if example in held]
    return learned or measured, measured
