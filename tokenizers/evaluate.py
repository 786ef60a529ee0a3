"""``tokenizer eval``: how well a set's networks reconstruct what they did not learn from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from omnimill.errors import BadRecord, OmnimillError
from omnimill.infra import storage
from omnimill.infra.lineage import command_run
from omnimill.progress import console, progress
from omnimill.tokenizers import media, metrics
from omnimill.tokenizers.audio import FloatArray
from omnimill.tokenizers.config import FitConfig, TokenizerConfig
from omnimill.tokenizers.corpus import Column, Corpus, Sample
from omnimill.tokenizers.image import BoolArray
from omnimill.tokenizers.store import SET, load_tokenizers
from omnimill.tokenizers.vq import BATCH, AudioTokenizer, CodeArray, ImageTokenizer

SHOWN_PICTURES = 24
SHOWN_CLIPS = 6

T = TypeVar("T")


@dataclass(frozen=True)
class PicturePair:
    """A picture and what became of it: float32 [h, w, 3] in 0..1, without the canvas' padding. psnr in dB."""

    example: str
    original: FloatArray
    made: FloatArray
    psnr: float
    ssim: float


@dataclass(frozen=True)
class ClipPair:
    """A clip and what became of it: log-mel float32 [frames, mels]. flac: the original's samples."""

    example: str
    flac: bytes
    original: FloatArray
    made: FloatArray
    error: float
    convergence: float


@dataclass(frozen=True)
class _Found:
    """What was measured on one picture or clip of a source."""

    source: str
    values: tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """quality: by name. count: of pictures or clips. codes: theirs. shown: the first few pairs.

    by_source: count, and means of what is measured on each picture or clip, by source of the examples.
    """

    quality: dict[str, float]
    count: int
    codes: CodeArray
    by_source: dict[str, dict[str, float]]
    shown: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class EvalResult:
    """What ``tokenizer eval`` found.

    held_out: measured with what training left out of its own dataset. page: the HTML file, if one was asked for.
    """

    name: str
    digest: str
    dataset: str
    manifest: str
    held_out: bool
    measured: dict[str, Measured]
    page: Path | None
    seconds: float

    @property
    def quality(self) -> dict[str, float]:
        return {name: value for part in self.measured.values() for name, value in part.quality.items()}

    def as_json(self) -> dict[str, Any]:
        """The shape that ``--json`` prints."""
        return {
            "tokenizers": self.name,
            "digest": self.digest,
            "dataset": self.dataset,
            "manifest": self.manifest,
            "held_out": self.held_out,
            "measured": {name: part.count for name, part in self.measured.items()},
            "quality": self.quality,
            "by_source": {name: part.by_source for name, part in self.measured.items()},
            "page": None if self.page is None else str(self.page),
            "seconds": round(self.seconds, 3),
        }


def evaluate(
    config: TokenizerConfig,
    root: str,
    *,
    page: Path | None = None,
    dataset: str | None = None,
    count: int | None = None,
) -> EvalResult:
    """Measure the current set of a name.

    Args:
        config: of the set; says what was held out of its training.
        root: fsspec URL or path.
        page: HTML file to write, with reconstructions side by side.
        dataset: examples to measure with, all of which count as held out; those that training held out when None.
        count: pictures and clips at most; what the configuration says when None.

    Raises:
        OmnimillError: there is no such set or dataset, or nothing to measure with.
    """
    # It draws the page, and a measurement alone should not wait for the library that draws.
    from omnimill.tokenizers.eval_page import write_page  # noqa: PLC0415

    started = time.monotonic()
    settings = {"config": config.model_dump(mode="json"), "dataset": dataset, "count": count}
    with command_run(root, "tokenizer eval", settings, f"tokenizer eval {config.name}") as run:
        tokenizers = load_tokenizers(root, config.name)
        corpus = Corpus(root, dataset or config.dataset, () if dataset else config.selections)
        corpus.record(run)
        digest = tokenizers.layout.digests[SET]
        run.input(f"tokenizers-{config.name}", digest, storage.join(root, "tokenizers", config.name))
        measured: dict[str, Measured] = {}
        if tokenizers.image_codes is not None:
            samples = held_out(corpus, "images", config.image.training, config.seed, count, everything=bool(dataset))
            measured |= _some("image", measure_pictures(tokenizers.image_codes, samples, SHOWN_PICTURES))
        if tokenizers.audio_codes is not None:
            samples = held_out(corpus, "audio", config.audio.training, config.seed, count, everything=bool(dataset))
            measured |= _some("audio", measure_clips(tokenizers.audio_codes, samples, SHOWN_CLIPS))
        if not measured:
            raise OmnimillError(
                f"nothing to measure set {config.name!r} with: dataset {corpus.dataset.name!r} holds no pictures or "
                "sound that can be read and that the set has a tokenizer for"
            )
        result = EvalResult(
            name=config.name,
            digest=digest,
            dataset=corpus.dataset.name,
            manifest=corpus.digest,
            held_out=dataset is None,
            measured=measured,
            page=page,
            seconds=time.monotonic() - started,
        )
        if page is not None:
            write_page(page, result, tokenizers)
            run.artifact(page)
        run.metrics({**result.quality, "seconds": result.seconds})
    return result


def _some(name: str, measured: Measured | None) -> dict[str, Measured]:
    return {} if measured is None else {name: measured}


def held_out(
    corpus: Corpus, column: Column, settings: FitConfig, seed: int, count: int | None = None, everything: bool = False
) -> list[Sample]:
    """Pictures or clips that training with these settings does not learn from, or simply some of a dataset."""
    split = None if everything else corpus.split(column, settings.held_out, seed)
    if split is None and not everything:
        return []
    return corpus.media(column, count or settings.measured, seed, split)


def measure_pictures(tokenizer: ImageTokenizer, samples: Sequence[Sample], shown: int = 0) -> Measured | None:
    """Encode and decode pictures; None when none can be read.

    Measured on each picture without its padding, then averaged: PSNR in dB and SSIM; and the use of the codebook.
    """
    layout = tokenizer.layout
    account = _Account("image", ("image_psnr_db", "image_ssim"), shown)
    with progress("tokenizer eval image", len(samples), "pictures") as advance:
        for part in _batched(_readable(samples, lambda data: media.picture(data, layout)), BATCH):
            canvases = np.stack([target.canvas for _, target in part]).astype(np.float32) / np.float32(255.0)
            codes = tokenizer.encode(canvases)
            account.codes.append(codes)
            for (sample, target), canvas, made in zip(part, canvases, tokenizer.decode(codes), strict=True):
                rows, columns = _extent(target.mask, axis=1), _extent(target.mask, axis=0)
                pair = (canvas[rows, columns], made[rows, columns])
                values = (metrics.psnr(*pair), metrics.ssim(*pair))
                account.add(sample.source, values, PicturePair(sample.example, *pair, *values))
            advance(len(part))
    return account.measured(layout.codes)


def measure_clips(tokenizer: AudioTokenizer, samples: Sequence[Sample], shown: int = 0) -> Measured | None:
    """Encode and decode clips; None when none can be read.

    Measured on each spectrogram, then averaged: mean absolute error of log-mel values (natural logarithm), and
    spectral convergence; and the use of the codebook.
    """
    layout = tokenizer.layout
    account = _Account("audio", ("audio_mel_error", "audio_spectral_convergence"), shown)
    with progress("tokenizer eval audio", len(samples), "clips") as advance:
        for part in _batched(_readable(samples, lambda data: media.clip(data, layout)), BATCH):
            codes = tokenizer.encode(np.stack([clip.mel for _, clip in part]))
            account.codes.append(codes)
            for (sample, clip), made in zip(part, tokenizer.decode(codes), strict=True):
                pair = (clip.mel, made)
                values = (metrics.mel_error(*pair), metrics.spectral_convergence(*pair))
                account.add(sample.source, values, ClipPair(sample.example, clip.data, *pair, *values))
            advance(len(part))
    return account.measured(layout.codes)


@dataclass
class _Account:
    """What is found while pictures or clips are measured. names: of the values. shown: pairs to keep."""

    medium: str
    names: tuple[str, str]
    shown: int
    codes: list[CodeArray] = field(default_factory=list)
    found: list[_Found] = field(default_factory=list)
    pairs: list[Any] = field(default_factory=list)

    def add(self, source: str, values: tuple[float, float], pair: PicturePair | ClipPair) -> None:
        self.found.append(_Found(source, values))
        if len(self.pairs) < self.shown:
            self.pairs.append(pair)

    def measured(self, codebook: int) -> Measured | None:
        """All of it, with the use of a codebook of so many codes; None when nothing was found."""
        if not self.found:
            return None
        codes = np.concatenate(self.codes)
        quality = _means(self.names, self.found) | metrics.codebook_use(self.medium, codes, codebook)
        return Measured(quality, len(self.found), codes, _by_source(self.names, self.found), self.pairs)


def _means(names: Sequence[str], found: Sequence[_Found]) -> dict[str, float]:
    means = np.mean([one.values for one in found], axis=0)
    return {name: round(float(mean), 4) for name, mean in zip(names, means, strict=True)}


def _by_source(names: Sequence[str], found: Sequence[_Found]) -> dict[str, dict[str, float]]:
    by_source: dict[str, list[_Found]] = {}
    for one in found:
        by_source.setdefault(one.source, []).append(one)
    return {source: {"count": len(some), **_means(names, some)} for source, some in sorted(by_source.items())}


def _readable(samples: Sequence[Sample], read: Callable[[bytes], T]) -> Iterator[tuple[Sample, T]]:
    """The samples that can be read, and what was read; tokenization quarantines the others."""
    for sample in samples:
        try:
            yield sample, read(sample.data)
        except BadRecord as bad:
            console.print(f"not measured with: example {sample.example}: {bad.reason}: {bad.message}")


def _batched(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(items, size)):
        yield batch


def _extent(mask: BoolArray, axis: int) -> slice:
    """Where a mask holds anything, across an axis."""
    places = np.flatnonzero(mask.any(axis=axis))
    return slice(int(places[0]), int(places[-1]) + 1)
