"""Made token shards of documents, captioned pictures and films, and a training over them.

Contents are noise of the right kinds: JPEG and FLAC that have to be decoded, random ids and codes. Lengths are those of
the reference's pre-training mixture in outline: a third text, two fifths pictures, a quarter film (arXiv 2312.17172,
Table 10).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import yaml

from omnimill import rng
from omnimill.infra.dataset import Commit, Counts, Dataset
from omnimill.mixtures.config import Mixture, Task
from omnimill.schema import example_id
from omnimill.tokenizers import audio, image, store
from omnimill.tokenizers.text import BpeConfig, TextTokenizer, train_bpe
from omnimill.tokens import TOKEN_SCHEMA, AudioLayout, ImageLayout
from omnimill.training.backbone.config import Size
from omnimill.training.engine.settings import ParallelSettings, PrecisionSettings
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.runs.config import BackboneSettings, TrainConfig
from omnimill.training.runs.inputs import TrainInputs, resolve

NAME = "bench"
_SHARD_ROWS = 128
# Tokens of a text of the reference's length; mean and deviation of the logarithm, and the most.
_TEXT = (4.6, 0.9, 512)


@dataclass(frozen=True)
class Scale:
    """How large examples and the model are.

    size: of the backbone; overrides: of its fields. length: of examples and budgets, 1 for the reference's.
    rows: of each source. streams: sequences in a batch. threads: that decode; None: as many as PyTorch's.
    """

    size: Size
    overrides: Mapping[str, Any]
    length: float
    rows: int
    streams: int
    precision: PrecisionSettings
    parallel: ParallelSettings
    threads: int

    @property
    def image(self) -> ImageLayout:
        side = self.length**0.5
        return ImageLayout(
            input_size=round(384 * side / 16) * 16,
            history_size=round(256 * side / 16) * 16,
            target_size=round(256 * side / 8) * 8,
        )

    @property
    def audio(self) -> AudioLayout:
        side = self.length**0.5
        return AudioLayout(segment_seconds=4.08 * side, frames=round(256 * side), mels=round(128 * side))

    @property
    def packing(self) -> PackingSettings:
        reference = Budgets()
        return PackingSettings(
            budgets=reference.model_copy(
                update={
                    "encoder": round(reference.encoder * self.length),
                    "decoder": round(reference.decoder * self.length),
                }
            )
        )

    @property
    def render(self) -> RenderSettings:
        most = round(_TEXT[2] * self.length)
        return RenderSettings(max_text=most, max_target_text=most)


def prepare(root: Path, scale: Scale) -> TrainInputs:
    """Write shards, tokenizers and mixture under `root`, and resolve a training over them."""
    model = train_bpe(["the quick brown fox jumps over the lazy dog " * 20], BpeConfig(pieces=300))
    text = TextTokenizer.of(model, "the benchmark's")
    files = {"text": model}
    stored = store.StoredSet(
        text_pieces=text.vocabulary.pieces, image=scale.image, audio=scale.audio, digests=store.file_digests(files)
    )
    store.publish(str(root), NAME, stored, files)
    dataset = Dataset(str(root), NAME)
    commits = []
    for source, make in _SOURCES.items():
        rows = [make(rng.generator("bench train", source, number), scale, text) for number in range(scale.rows)]
        for number, row in enumerate(rows):
            row |= {"id": example_id(source, str(number), ""), "source": source, "key": str(number)}
        shards = tuple(
            dataset.publish_shard(pa.Table.from_pylist(rows[first : first + _SHARD_ROWS], TOKEN_SCHEMA))
            for first in range(0, len(rows), _SHARD_ROWS)
        )
        counts = Counts(records_in=len(rows), kept=len(rows), examples_written=len(rows))
        commit = Commit(unit=source, source=source, recipe="bench", inputs=(), shards=shards, counts=counts)
        dataset.commit(commit)
        commits.append(commit)
    layout = stored.layout(NAME).model_dump(mode="json")
    dataset.publish_manifest("tokens", commits, attributes={"layout": layout})
    mixture = root / "mixture.yaml"
    mixture.write_text(yaml.safe_dump(_mixture().model_dump(mode="json", exclude_defaults=True)))
    config = TrainConfig(
        name=NAME,
        mixture=str(mixture),
        steps=1_000_000,
        streams=scale.streams,
        threads=scale.threads,
        backbone=BackboneSettings(size=scale.size, overrides=dict(scale.overrides)),
        packing=scale.packing,
        render=scale.render,
        precision=scale.precision,
        parallel=scale.parallel,
        watch_attention=None,
    )
    return resolve(config, str(root))


def _mixture() -> Mixture:
    tasks = (
        Task(name="read", rate=34, sources=("documents",), target="text:body", objective="text_denoising"),
        Task(name="caption", rate=20, sources=("photos",), inputs=("image",), target="text:caption"),
        Task(name="paint", rate=20, sources=("photos",), target="image", prompts=("{caption}",)),
        Task(
            name="watch",
            rate=13,
            sources=("films",),
            inputs=("image", "image_history", "audio"),
            target="text:transcript",
        ),
        Task(
            name="listen",
            rate=13,
            sources=("films",),
            inputs=("image", "image_history"),
            target="audio",
            prompts=("{transcript}",),
        ),
    )
    return Mixture(datasets=(NAME,), seed=1, tasks=tasks)


def _document(draw: np.random.Generator, scale: Scale, text: TextTokenizer) -> dict[str, Any]:
    return _with_text(_empty(), "body", draw, 2 * _length(draw, scale), text)


def _photo(draw: np.random.Generator, scale: Scale, text: TextTokenizer) -> dict[str, Any]:
    row = _empty()
    _add_picture(row, draw, scale.image)
    return _with_text(row, "caption", draw, max(round(draw.integers(8, 40) * scale.length), 2), text, 0)


def _film(draw: np.random.Generator, scale: Scale, text: TextTokenizer) -> dict[str, Any]:
    row = _empty()
    for _ in range(int(draw.integers(2, 5))):
        _add_picture(row, draw, scale.image)
    _add_clip(row, draw, scale.audio)
    return _with_text(row, "transcript", draw, _length(draw, scale), text)


_SOURCES = {"documents": _document, "photos": _photo, "films": _film}


def _empty() -> dict[str, Any]:
    return {name: [] for name in TOKEN_SCHEMA.names}


def _length(draw: np.random.Generator, scale: Scale) -> int:
    mean, deviation, most = _TEXT
    return max(round(min(most, draw.lognormal(mean, deviation)) * scale.length), 2)


def _with_text(
    row: dict[str, Any],
    role: str,
    draw: np.random.Generator,
    count: int,
    text: TextTokenizer,
    picture: int | None = None,
) -> dict[str, Any]:
    ids = draw.integers(3, text.vocabulary.pieces, count).tolist()
    return row | {
        "text_roles": [role],
        "text_images": [picture],
        "text_audio": [None],
        "text_items": [None],
        "text_lengths": [count],
        "text_ids": [ids],
    }


def _add_picture(row: dict[str, Any], draw: np.random.Generator, layout: ImageLayout) -> None:
    width, height = layout.input_size, round(layout.input_size * draw.uniform(0.6, 1.0))
    rough = draw.integers(0, 256, (24, 24, 3), np.uint8)
    data = image.encode_jpeg(np.asarray(cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8))
    row["image_data"].append(data)
    for name, side in (("image_patches", layout.input_size), ("history_patches", layout.history_size)):
        row[name].append(int(image.valid_patches(height, width, side, layout.patch).sum()))
    row["image_codes"].append(draw.integers(0, layout.codes, layout.target_grid**2, np.uint16).tolist())
    row["image_codes_lengths"].append(layout.target_grid**2)


def _add_clip(row: dict[str, Any], draw: np.random.Generator, layout: AudioLayout) -> None:
    waveform = draw.uniform(-0.1, 0.1, layout.segment_samples).astype(np.float32)
    codes = layout.target_grid[0] * layout.target_grid[1]
    row["audio_data"].append(audio.encode_waveform(waveform, layout.sample_rate, "FLAC"))
    row["audio_patches"].append(int(audio.valid_patches(len(waveform), layout).sum()))
    row["audio_codes"].append(draw.integers(0, layout.codes, codes, np.uint16).tolist())
    row["audio_codes_lengths"].append(codes)
