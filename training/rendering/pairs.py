"""Rendering: a row of a token dataset and a task become encoder input and decoder target.

Two halves that always agree: `Renderer.plan` makes an example's recipe (see `omnimill.training.rendering.recipe`) and
says how long every stream will be, nothing opened; `Renderer.render` makes the same recipe and fills it in.

Positions (paper, section 3.2): text counts from 0 in the first coordinate; patches of pictures and clips have their
place on the grid, both times (image target grid / image input grid), as the released code has it; earlier frames have
(frame, latent); codes have their place on the target grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omnimill.errors import IntegrityError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.row_columns import RowContent, RowLengths
from omnimill.rng import generator, subkey
from omnimill.tokenizers.dense import unpack_known
from omnimill.tokenizers.image import covered_patches
from omnimill.tokenizers.sampling import shuffled_patches
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vocabulary import CODE_OFFSET, CODE_START
from omnimill.tokens import TokenLayout
from omnimill.training.loading.batch import DecoderModality, EncoderModality
from omnimill.training.loading.media import Clip, Grid, Picture, project
from omnimill.training.objectives.spans import Ids, Mask
from omnimill.training.planning.draws import Purpose
from omnimill.training.planning.lengths import Budgets, Lengths
from omnimill.training.rendering.frames import Frame
from omnimill.training.rendering.recipe import Recipe, Recipes
from omnimill.training.rendering.settings import RenderSettings

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Patches:
    """One frame's kept patches: values float32 [n, C], normalised; index int64 [n], ascending, place on the grid."""

    values: Floats
    index: Ids


@dataclass(frozen=True)
class Target:
    """Decoder side of an example: ids (shifted right), targets int64 [d]; loss float32 [d]; hidden bool [d];
    positions float32 [d, 2]; meanings as in `omnimill.training.loading.batch.PackedBatch`."""

    modality: DecoderModality
    ids: Ids
    targets: Ids
    loss: Floats
    hidden: Mask
    positions: Floats


@dataclass(frozen=True)
class Rendered:
    """One example ready to be packed.

    task: index of the mixture's tasks. text: int64 [t] ids.
    frames: by stream, oldest first; a stream that the example does not have is missing or empty.
    modality: int64 [e] of `EncoderModality` and positions: float32 [e, 2], of every encoder slot, in the order text,
    patches of the current picture, latents of the earlier ones frame by frame, the same for sound.
    more_targets: those of other modalities, which token budgets ask for besides, each predicted apart; or, of a
    sequence for a decoder-only backbone, its further runs of one modality, in order.
    """

    task: int
    text: Ids
    frames: Mapping[EncoderModality, tuple[Patches, ...]]
    modality: Ids
    positions: Floats
    target: Target
    more_targets: tuple[Target, ...] = ()

    @property
    def targets(self) -> tuple[Target, ...]:
        """Everything that is asked for."""
        return self.target, *self.more_targets

    @property
    def lengths(self) -> Lengths:
        """What the arrays hold; `cut` is not known here and 0."""
        slots = {stream.name.lower(): int((self.modality == stream).sum()) for stream in EncoderModality}
        frames = {name: len(self.frames.get(stream, ())) for stream, name in _FRAME_COUNTS.items()}
        target = {
            f"target_{kind.name.lower()}": sum(len(one.ids) for one in self.targets if one.modality == kind)
            for kind in DecoderModality
        }
        return Lengths(**slots, **frames, **target)


_FRAME_COUNTS = {
    EncoderModality.IMAGE: "images",
    EncoderModality.IMAGE_HISTORY: "earlier_images",
    EncoderModality.AUDIO: "clips",
    EncoderModality.AUDIO_HISTORY: "earlier_clips",
}


class Renderer:
    """Plans and renders the examples of a mixture; arguments and errors as for
    `omnimill.training.rendering.recipe.Recipes`.
    """

    def __init__(
        self, mixture: Mixture, layout: TokenLayout, text: TextTokenizer, settings: RenderSettings, budgets: Budgets
    ) -> None:
        self.recipes = Recipes(mixture, layout, text, settings, budgets)
        self.settings = settings
        self.layout = layout
        self.vocabulary = text.vocabulary

    def plan(self, task_index: int, lengths: RowLengths, example_id: str, epoch: int) -> Lengths:
        """Exact length of every stream of an example, from the row's lengths alone."""
        return self.recipes.make(task_index, lengths, example_id, epoch).lengths

    def render(self, task_index: int, content: RowContent, epoch: int) -> Rendered:
        """The example itself; its lengths are what :meth:`plan` says.

        Raises:
            IntegrityError: the row's content is not what its length columns say.
            BadRecord: a medium cannot be decoded.
        """
        recipe = self.recipes.make(task_index, content, content.id, epoch)
        filling = _Filling(self, recipe, content)
        rendered = filling.rendered(task_index)
        check_lengths(rendered, recipe.lengths, content.id)
        return rendered


class _Filling:
    """One recipe being filled in; every medium is decoded at most once."""

    def __init__(self, renderer: Renderer, recipe: Recipe, content: RowContent) -> None:
        self.image = renderer.layout.image
        self.audio = renderer.layout.audio
        self.settings = renderer.settings
        self.vocabulary = renderer.vocabulary
        self.recipe = recipe
        self.content = content
        self._pictures: dict[int, Picture] = {}
        self._clips: dict[int, Clip] = {}

    def rendered(self, task_index: int) -> Rendered:
        """The finished example."""
        shown, targets = self._targets()
        text = self._text(shown)
        modality, positions = [np.zeros(len(text), np.int64)], [line_positions(len(text))]
        frames = {}
        for stream, chosen in self.recipe.frames.items():
            frames[stream] = tuple(self._patches(stream, frame) for frame in chosen)
            placed = self._positions(stream, frames[stream])
            modality.append(np.full(len(placed), stream, np.int64))
            positions.append(placed)
        return Rendered(task_index, text, frames, np.concatenate(modality), np.concatenate(positions), *targets)

    def _text(self, shown: Ids) -> Ids:
        pieces = [
            self.content.text_ids[piece] if isinstance(piece, int) else np.array(piece) for piece in self.recipe.head
        ]
        head = np.concatenate(pieces)[: self.recipe.head_tokens]
        return np.concatenate([head, shown, [self.vocabulary.EOS]]).astype(np.int64)

    def _targets(self) -> tuple[Ids, tuple[Target, tuple[Target, ...]]]:
        """What the encoder sees of a text target, and the decoder's side: its first target and any others."""
        targets = [self._codes(modality, count) for modality, count in self.recipe.codes.items()]
        split, shown = self.recipe.split, np.empty(0, np.int64)
        if split is not None:
            whole = np.concatenate([self.content.text_ids[i] for i in self.recipe.target_segments]).astype(np.int64)
            shown, wanted = split.apply(whole, self.vocabulary)
            if split.targets:
                targets.insert(0, self._words(wanted))
        return shown, (targets[0], tuple(targets[1:]))

    def _words(self, wanted: Ids) -> Target:
        targets = np.append(wanted, self.vocabulary.EOS)
        # Nothing but EOS teaches nothing but silence; the reference gives it no weight either.
        loss = np.full(len(targets), float(len(wanted) > 0), np.float32)
        hidden = np.zeros(len(targets), np.bool_)
        ids = shift_right(targets, self.vocabulary.PAD)
        return Target(DecoderModality.TEXT, ids, targets, loss, hidden, line_positions(len(targets)))

    def _codes(self, modality: DecoderModality, count: int) -> Target:
        number = self.recipe.target_picture
        if modality == DecoderModality.IMAGE:
            stream, grid = EncoderModality.IMAGE, (self.image.target_grid, self.image.target_grid)
        else:
            stream, grid = EncoderModality.AUDIO, self.audio.target_grid
        if number is not None:
            codes = self.content.target_codes[number]
            size = self.content.target_heights[number], self.content.target_widths[number]
            valid = covered_patches(*size, self.image.target_size, self.image.code_stride)
            valid &= unpack_known(self.content.target_known[number], len(valid))
        elif modality == DecoderModality.IMAGE:
            codes = self.content.image_codes[-1]
            valid = self._picture(len(self.content.image_data) - 1).target_valid()
        else:
            codes = self.content.audio_codes[-1]
            valid = self._clip(len(self.content.audio_data) - 1).target_valid()
        if len(codes) != grid[0] * grid[1]:
            raise IntegrityError(
                f"example {self.content.id}: {len(codes)} {modality.name.lower()} codes, the layout says {grid}"
            )
        hidden = self._hidden(stream, grid)
        places = self._places(stream, valid, hidden, count)
        targets = codes.astype(np.int64)[places] + CODE_OFFSET
        return Target(
            modality=modality,
            ids=shift_right(targets, CODE_START),
            targets=targets,
            loss=valid[places].astype(np.float32),
            hidden=hidden[places],
            positions=_grid_positions(places, grid, 1.0),
        )

    def _places(self, stream: EncoderModality, valid: Mask, hidden: Mask, count: int) -> Ids:
        """Which `count` codes are asked for, ascending; as far as possible those that the encoder does not see."""
        if count == len(valid):
            return np.arange(count)
        seen = ~hidden & bool(self.recipe.frames.get(stream))
        order = generator(subkey(self.recipe.key, Purpose.CODES, stream)).permutation(len(valid))
        # Stable: what is padding of the canvas comes last, what is seen before it.
        first = order[np.lexsort((seen[order], ~valid[order]))]
        return np.sort(first[:count])

    def _hidden(self, stream: EncoderModality, onto: Grid) -> Mask:
        """Codes whose patch the objective hides from the encoder: bool [codes]."""
        grid = self._grid(stream)
        mask = np.zeros(grid[0] * grid[1], np.bool_)
        for frame in self.recipe.frames.get(stream, ()):
            mask[self._shuffled(stream, frame)[: frame.hidden]] = True
        return project(mask, grid, onto)

    def _patches(self, stream: EncoderModality, frame: Frame) -> Patches:
        index = np.sort(self._shuffled(stream, frame)[frame.hidden : frame.hidden + frame.kept])
        if stream in (EncoderModality.AUDIO, EncoderModality.AUDIO_HISTORY):
            values = self._clip(frame.number).patches()
        else:
            values = self._picture(frame.number).patches(self._canvas(stream))
        return Patches(values[index], index)

    def _shuffled(self, stream: EncoderModality, frame: Frame) -> Ids:
        """A frame's valid patches in random order: first the hidden ones, then those that are kept."""
        if stream in (EncoderModality.AUDIO, EncoderModality.AUDIO_HISTORY):
            valid = self._clip(frame.number).valid()
        else:
            valid = self._picture(frame.number).valid(self._canvas(stream))
        if valid.sum() != frame.valid:
            raise IntegrityError(
                f"example {self.content.id}: {stream.name.lower()} {frame.number} has {valid.sum()} valid patches, "
                f"its length column says {frame.valid}"
            )
        order = shuffled_patches(valid, subkey(self.recipe.key, Purpose.PATCHES, stream, frame.number))
        return order[: frame.valid]

    def _positions(self, stream: EncoderModality, frames: tuple[Patches, ...]) -> Floats:
        if stream in (EncoderModality.IMAGE, EncoderModality.AUDIO):
            scale = self.image.target_grid / self.image.input_grid
            index = np.concatenate([frame.index for frame in frames]) if frames else np.empty(0, np.int64)
            return _grid_positions(index, self._grid(stream), scale)
        latents = (
            self.settings.image_latents if stream == EncoderModality.IMAGE_HISTORY else self.settings.audio_latents
        )
        return _grid_positions(np.arange(len(frames) * latents), (len(frames), latents), 1.0)

    def _grid(self, stream: EncoderModality) -> Grid:
        if stream == EncoderModality.AUDIO:
            return self.audio.input_grid
        return self.image.input_grid, self.image.input_grid

    def _canvas(self, stream: EncoderModality) -> int:
        return self.image.input_size if stream == EncoderModality.IMAGE else self.image.history_size

    def _picture(self, number: int) -> Picture:
        if number not in self._pictures:
            self._pictures[number] = Picture(self.content.image_data[number], self.image)
        return self._pictures[number]

    def _clip(self, number: int) -> Clip:
        if number not in self._clips:
            self._clips[number] = Clip(self.content.audio_data[number], self.audio)
        return self._clips[number]


def check_lengths(rendered: Rendered, planned: Lengths, example_id: str) -> None:
    """An example has to have the lengths that it was planned with.

    Raises:
        IntegrityError: it has not.
    """
    if (rendered.lengths.costs, rendered.lengths.text) != (planned.costs, planned.text):
        raise IntegrityError(
            f"example {example_id}: its streams come out as {rendered.lengths}, planned from its length columns as "
            f"{planned}: the token shard contradicts itself"
        )


def shift_right(targets: Ids, start: int) -> Ids:
    """What a decoder is fed: the start, then every target but the last."""
    return np.concatenate([[start], targets[:-1]])


def line_positions(count: int) -> Floats:
    """Positions of a one-dimensional stream: float32 [count, 2]."""
    return np.stack([np.arange(count), np.zeros(count)], axis=1).astype(np.float32)


def _grid_positions(index: Ids, grid: Grid, scale: float) -> Floats:
    """Scaled (row, column) of places on a grid: float32 [n, 2]."""
    return (np.stack(np.divmod(index, grid[1]), axis=1) * scale).astype(np.float32)
