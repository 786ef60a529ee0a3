"""From annotations to what a task makes of them and back.

Files -> examples -> token rows -> a rendered task -> text, places and pictures again. Nothing is trained: text has a
small BPE, a code of a picture is the mean colour of its patch, and one of a spectrogram its mean level. So what comes
back differs by the size of a patch and the step between levels, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from pydantic import TypeAdapter

from omnimill.errors import BadRecord, RecordDropped
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.row_columns import ARRAY_COLUMNS, RowContent
from omnimill.mixtures.task_families import families
from omnimill.pipelines.base import Source
from omnimill.pipelines.dag import AnySource
from omnimill.schema import Example
from omnimill.tokenizers.encode import prepare
from omnimill.tokenizers.image import placement
from omnimill.tokenizers.places import Box, Frame, decode_boxes
from omnimill.tokenizers.store import Tokenizers, VectorRanges
from omnimill.tokenizers.text import BpeConfig, TextTokenizer, train_bpe
from omnimill.tokenizers.vocabulary import CODE_OFFSET
from omnimill.tokens import LENGTH_COLUMNS, TOKEN_SCHEMA, AudioLayout, ImageLayout, TokenLayout
from omnimill.training.loading.batch import DecoderModality
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.pairs import Rendered, Renderer
from omnimill.training.rendering.settings import RenderSettings

IMAGE = ImageLayout(input_size=64, history_size=32, target_size=128, patch=8, code_stride=4, codes=1 << 14)
AUDIO = AudioLayout(segment_seconds=0.5, frames=32, mels=16, patch=8, code_patch=(8, 8), codes=256)
SETTINGS = RenderSettings(image_latents=4, audio_latents=2)
BUDGETS = Budgets(encoder=2048, decoder=2048, images=4, image_history=8, audio=8)
# Levels of log-mel spectrograms that codes spread over.
_LOW, _HIGH = -12.0, 6.0
_LINES = [
    "The quick brown fox jumps over the lazy dog, 12 times.",
    "What is in the picture? Where is it? Describe the region and name the object.",
    "Pack my box with five dozen liquor jugs; 34567890 (A) (B) (C)",
] * 10


@dataclass(frozen=True)
class Shown:
    """A rendered example. prompt: what the encoder reads, added tokens left out. ids: of a text target, without EOS.

    picture: what a picture's target codes stand for, uint8 [128, 128, 3], on its canvas; None for other targets.
    """

    example: Example
    rendered: Rendered
    prompt: str
    ids: list[int]
    picture: npt.NDArray[np.uint8] | None

    @property
    def text(self) -> str:
        """The target as text, added tokens left out."""
        return tokenizers().text.decode(self.ids)

    def boxes(self, image: int = -1) -> list[tuple[Box, str]]:
        """The boxes and labels of a text target, in shares of a picture."""
        return decode_boxes(self.ids, self.frame(image), tokenizers().numbers)

    def error(self, image: int = -1) -> tuple[float, float]:
        """By how much y and x of a place may differ from what was annotated, in shares of a picture."""
        return self.frame(image).error(tokenizers().numbers)

    def frame(self, image: int = -1) -> Frame:
        shown = self.example.images[image]
        return Frame(shown.height, shown.width, IMAGE.input_size)

    def content(self, image: int = -1) -> npt.NDArray[np.uint8]:
        """The part of the target picture that is no padding, when it has the shape of picture `image`."""
        assert self.picture is not None
        shown = self.example.images[image]
        rows, columns = placement(shown.height, shown.width, IMAGE.target_size)
        return self.picture[rows, columns]


def read(config: Mapping[str, Any]) -> tuple[list[Example], dict[str, str]]:
    """All examples of a source, and what became of its records: ``kept`` or the reason why not."""
    source: Source = TypeAdapter(AnySource).validate_python({"name": "made", **config})
    examples: list[Example] = []
    verdicts: dict[str, str] = {}
    for unit in source.units():
        assert {ref.uri for ref in source.inputs(unit)} >= set(unit.files)
        for record in source.read(unit):
            assert record.key not in verdicts
            try:
                examples.extend(record.decode())
                verdicts[record.key] = "kept"
            except (BadRecord, RecordDropped) as verdict:
                verdicts[record.key] = verdict.reason
    return examples, verdicts


def render(
    example: Example, family: str, epoch: int = 0, ranges: Mapping[str, VectorRanges] | None = None, **task: Any
) -> Shown:
    """The example as a task of a family has it in an epoch.

    Args:
        ranges: of states and actions, by source. task: fields of the task that are not the family's.
    """
    made = tokenizers() if ranges is None else Tokenizers(tokenizers().layout, tokenizers().text, ranges)
    settings = {"name": "task", "rate": 1, "sources": [example.source], **families()[family].defaults(), **task}
    mixture = Mixture(datasets=("tokens",), tasks=(Task.model_validate(settings),))
    renderer = Renderer(mixture, made.layout, made.text, SETTINGS, BUDGETS)
    rendered = renderer.render(0, token_row(example, made), epoch)
    text = made.text.decode(rendered.text.tolist())
    if rendered.target.modality == DecoderModality.TEXT:
        return Shown(example, rendered, text, rendered.target.targets.tolist()[:-1], None)
    picture = None
    if rendered.target.modality == DecoderModality.IMAGE:
        picture = picture_of(rendered.target.targets - CODE_OFFSET)
    return Shown(example, rendered, text, [], picture)


def renders(example: Example, family: str, epochs: int = 12, **task: Any) -> Iterator[Shown]:
    """The example in some epochs: in each an item, a prompt and one of several texts are drawn anew."""
    return (render(example, family, epoch, **task) for epoch in range(epochs))


def token_row(example: Example, made: Tokenizers) -> RowContent:
    """The example's token row."""
    row = _row(example, made)
    values = {field.name: row[field.name] for field in fields(RowContent)}
    for name in ARRAY_COLUMNS:
        kind = np.int32 if name == "text_ids" else np.uint16
        values[name] = [np.asarray(one, kind) for one in values[name]]
    return RowContent(**values)


def lengths_of(examples: Sequence[Example]) -> pl.DataFrame:
    """The length columns of the examples' token rows."""
    table = pa.Table.from_pylist([_row(example, tokenizers()) for example in examples], schema=TOKEN_SCHEMA)
    frame = pl.from_arrow(table.select(list(LENGTH_COLUMNS)))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _row(example: Example, made: Tokenizers) -> dict[str, Any]:
    prepared = prepare(example, made)
    encoders = {"image_codes": _picture_codes, "target_codes": _picture_codes, "audio_codes": _sound_codes}
    codes = {part: [encoders[part](one) for one in found] for part, found in prepared.inputs.items()}
    row = prepared.row(codes)
    assert set(row) == set(TOKEN_SCHEMA.names)
    return row


@cache
def tokenizers() -> Tokenizers:
    """A set without networks."""
    text = TextTokenizer.of(train_bpe(_LINES, BpeConfig(pieces=400)), "text")
    layout = TokenLayout(text_pieces=text.vocabulary.pieces, image=IMAGE, audio=AUDIO, tokenizers="made", digests={})
    return Tokenizers(layout, text, {})


def _picture_codes(canvas: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The mean colour of every patch of 4 x 4 pixels: 5 bits of red and green, 4 of blue."""
    grid, stride = IMAGE.target_grid, IMAGE.code_stride
    means = canvas.reshape(grid, stride, grid, stride, 3).mean(axis=(1, 3)).astype(np.uint16)
    return ((means[..., 0] >> 3 << 9) | (means[..., 1] >> 3 << 4) | means[..., 2] >> 4).ravel()


def picture_of(codes: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """What codes of a picture stand for, uint8 [128, 128, 3]; a colour is 8 levels off at most (blue: 16)."""
    grid = np.asarray(codes, np.int64).reshape(IMAGE.target_grid, IMAGE.target_grid)
    colours = np.stack([(grid >> 9) * 8 + 4, (grid >> 4 & 31) * 8 + 4, (grid & 15) * 16 + 8], axis=-1)
    return colours.astype(np.uint8).repeat(IMAGE.code_stride, axis=0).repeat(IMAGE.code_stride, axis=1)


def _sound_codes(mel: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The mean level of every patch of a log-mel spectrogram [frames, mels]."""
    rows, columns = AUDIO.target_grid
    means = mel.reshape(rows, mel.shape[0] // rows, columns, mel.shape[1] // columns).mean(axis=(1, 3))
    levels = (means.ravel() - _LOW) / (_HIGH - _LOW) * (AUDIO.codes - 1)
    return np.clip(levels, 0, AUDIO.codes - 1).astype(np.uint16)


def levels_of(codes: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """What codes of a spectrogram stand for: mean levels [patches in time, patches in mel]."""
    return np.asarray(codes, np.float64).reshape(AUDIO.target_grid) / (AUDIO.codes - 1) * (_HIGH - _LOW) + _LOW
