"""What turns examples into rows and shows them, for the tests of task families. Nothing is trained: a code of a picture
is the mean colour of its patch, one of a spectrogram its mean level, so what codes stand for can be recognised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from html.parser import HTMLParser
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from omnimill.locations import Range
from omnimill.mixtures import eligibility
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.row_columns import ARRAY_COLUMNS, RowContent
from omnimill.mixtures.task_families import families
from omnimill.schema import Example
from omnimill.tokenizers.encode import prepare
from omnimill.tokenizers.store import Tokenizers, VectorRanges
from omnimill.tokenizers.text import BpeConfig, TextTokenizer, train_bpe
from omnimill.tokens import LENGTH_COLUMNS, TOKEN_SCHEMA, AudioLayout, ImageLayout, TokenLayout
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.pairs import Renderer
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.showing.example import ShownExample
from omnimill.training.showing.show import Viewer

IMAGE = ImageLayout(input_size=192, history_size=96, target_size=96, patch=16, code_stride=4, codes=1 << 14)
AUDIO = AudioLayout(segment_seconds=1.0, frames=64, mels=32, patch=8, code_patch=(4, 4), codes=256)
SETTINGS = RenderSettings(image_keep=0.6, history_keep=0.6, audio_keep=0.6)
_LOW, _HIGH = -12.0, 6.0

Array = npt.NDArray[Any]


class MeanColours:
    """Five bits of red and green, four of blue."""

    def encode(self, canvases: Sequence[Array]) -> Array:
        grid, stride = IMAGE.target_grid, IMAGE.code_stride
        means = np.stack(canvases).reshape(-1, grid, stride, grid, stride, 3).mean(axis=(2, 4)).astype(np.uint16)
        codes = (means[..., 0] >> 3 << 9) | (means[..., 1] >> 3 << 4) | means[..., 2] >> 4
        return codes.reshape(len(canvases), -1)

    def decode(self, codes: Sequence[Sequence[int]]) -> Array:
        grid = np.asarray(codes, np.int64).reshape(-1, IMAGE.target_grid, IMAGE.target_grid)
        colours = np.stack([(grid >> 9) * 8 + 4, (grid >> 4 & 31) * 8 + 4, (grid & 15) * 16 + 8], axis=-1) / 255
        return colours.repeat(IMAGE.code_stride, axis=1).repeat(IMAGE.code_stride, axis=2).astype(np.float32)


class MeanLevels:
    """Mean levels of log-mel spectrograms."""

    def encode(self, mels: Sequence[Array]) -> Array:
        (rows, columns), (time, pitch) = AUDIO.target_grid, AUDIO.code_patch
        means = np.stack(mels).reshape(-1, rows, time, columns, pitch).mean(axis=(2, 4))
        levels = (means.reshape(len(mels), -1) - _LOW) / (_HIGH - _LOW) * (AUDIO.codes - 1)
        return np.clip(levels, 0, AUDIO.codes - 1).astype(np.uint16)

    def decode(self, codes: Sequence[Sequence[int]]) -> Array:
        levels = (
            np.asarray(codes, np.float32).reshape(-1, *AUDIO.target_grid) / (AUDIO.codes - 1) * (_HIGH - _LOW) + _LOW
        )
        return levels.repeat(AUDIO.code_patch[0], axis=1).repeat(AUDIO.code_patch[1], axis=2)


@cache
def text() -> TextTokenizer:
    """Knows the words of the prompts."""
    prompts = [prompt for family in families().values() for prompt in family.prompts]
    return TextTokenizer.of(train_bpe([*prompts, *map(str, range(1000))], BpeConfig(pieces=1200)), "text")


def layout() -> TokenLayout:
    return TokenLayout(text_pieces=text().vocabulary.pieces, image=IMAGE, audio=AUDIO, tokenizers="sheet", digests={})


def tokenizers(examples: Iterable[Example]) -> Tokenizers:
    """The set; states and actions of the examples lie within -1 and 1."""
    ranges = {}
    for example in examples:
        if example.trajectory is not None:
            within = [
                (Range(low=-1.0, high=1.0),) * len(rows[0] if rows else ())
                for rows in (example.trajectory.states, example.trajectory.actions)
            ]
            ranges[example.source] = VectorRanges(state=within[0], action=within[1])
    return Tokenizers(layout(), text(), ranges, MeanColours(), MeanLevels())  # type: ignore[arg-type]


def token_row(example: Example, made: Tokenizers) -> dict[str, Any]:
    """The columns of the example's token row."""
    prepared = prepare(example, made)
    networks = {"image_codes": made.image, "target_codes": made.image, "audio_codes": made.audio}
    codes = {part: list(networks[part].encode(one)) if one else [] for part, one in prepared.inputs.items()}
    return prepared.row(codes)


def content(row: Mapping[str, Any]) -> RowContent:
    arrays = {name: [np.asarray(one) for one in row[name]] for name in ARRAY_COLUMNS}
    return RowContent(**{**row, **arrays})


def task_of(name: str, source: str) -> Task:
    family = families()[name]
    return Task.model_validate(
        {**family.defaults(), "name": name, "group": family.group, "rate": 1, "sources": [source]}
    )


@dataclass(frozen=True)
class Sheet:
    """An example of each family that has one."""

    examples: Mapping[str, Example]

    @classmethod
    def serving(cls, name: str, examples: Sequence[Example]) -> Example:
        """The first of some examples that a family can use."""
        task, made = task_of(name, "any"), tokenizers(examples)
        for example in examples:
            rows = pa.Table.from_pylist([token_row(example, made)], TOKEN_SCHEMA)
            lengths = pl.DataFrame(rows.select(LENGTH_COLUMNS))
            if eligibility.reasons(lengths, task)[0] is None:
                return example
        raise AssertionError(f"none of {len(examples)} examples has what {name} needs")

    @cached_property
    def tokenizers(self) -> Tokenizers:
        return tokenizers(self.examples.values())

    @cached_property
    def shown(self) -> dict[str, ShownExample]:
        tasks = [task_of(name, example.source) for name, example in self.examples.items()]
        mixture = Mixture(datasets=("sheet-tokens",), seed=3, tasks=tuple(tasks))
        renderer = Renderer(mixture, self.tokenizers.layout, self.tokenizers.text, SETTINGS, Budgets())
        viewer = Viewer(renderer, self.tokenizers)
        return {
            name: viewer.show(number, content(token_row(example, self.tokenizers)), 0)
            for number, (name, example) in enumerate(self.examples.items())
        }


class Page(HTMLParser):
    """A page's ids, addresses outside of the file, and pictures and sounds without words for them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.outside: list[str] = []
        self.unnamed: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        address = given.get("src") or given.get("href") or ""
        if address and not address.startswith(("data:", "#")):
            self.outside.append(address)
        if tag in ("img", "audio", "svg") and not (given.get("alt") or given.get("aria-label")):
            self.unnamed.append(tag)
