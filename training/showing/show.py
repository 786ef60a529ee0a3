"""What the model would read and write for an example, in a form that people can look at.

The example is rendered as training renders it (`omnimill.training.rendering.pairs`); here its streams become text with
visible special tokens, pictures with the dropped patches dimmed, sound, and what the target's codes stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from omnimill.mixtures.row_columns import RowContent
from omnimill.tokenizers import audio, image
from omnimill.tokenizers.image import BoolArray
from omnimill.tokenizers.store import Tokenizers
from omnimill.training.loading.batch import DecoderModality, EncoderModality
from omnimill.training.objectives.spans import Ids
from omnimill.training.rendering.pairs import Patches, Rendered, Renderer, Target
from omnimill.training.rendering.recipe import Recipe
from omnimill.training.showing.example import ShownClip, ShownExample, ShownPicture, described
from omnimill.training.showing.marks import Mark, Side, segment_marks
from omnimill.training.showing.runs import text_runs

# What is left of the brightness of patches that the encoder does not get.
_DIMMED = 0.25


class Viewer:
    """Makes examples of a mixture visible.

    Args:
        renderer: of the mixture.
        tokenizers: those of the token dataset; targets are decoded with their networks, as far as they have any.
    """

    def __init__(self, renderer: Renderer, tokenizers: Tokenizers) -> None:
        self.renderer = renderer
        self.tokenizers = tokenizers
        self.layout = renderer.layout

    def show(self, task_index: int, content: RowContent, epoch: int) -> ShownExample:
        """One example.

        Raises:
            BadRecord, IntegrityError: as of :meth:`Renderer.render`.
        """
        recipes = self.renderer.recipes
        recipe = recipes.make(task_index, content, content.id, epoch)
        rendered = self.renderer.render(task_index, content, epoch)
        marks = tuple(self._marks(recipe, content))
        written = [one.targets for one in rendered.targets if one.modality == DecoderModality.TEXT]
        pictures, clips = self._target_media(recipe, rendered, content)
        text = self.tokenizers.text
        return ShownExample(
            **described(recipes, task_index, recipe, content, epoch),
            reads=tuple(text_runs(rendered.text.tolist(), text)),
            pictures=tuple(self._pictures(recipe, rendered, content, marks)),
            clips=tuple(self._clips(recipe, rendered, content)),
            writes=tuple(run for ids in written for run in text_runs(ids.tolist(), text)),
            target_pictures=tuple(pictures),
            target_clips=tuple(clips),
        )

    def _marks(self, recipe: Recipe, content: RowContent) -> Iterator[Mark]:
        read = [piece for piece in recipe.head if isinstance(piece, int)]
        sides: list[tuple[Side, Sequence[int]]] = [("read", read), ("written", recipe.target_segments)]
        for side, segments in sides:
            for segment in segments:
                yield from segment_marks(content, segment, side, self.tokenizers.numbers, self.renderer.vocabulary)

    def _pictures(
        self, recipe: Recipe, rendered: Rendered, content: RowContent, marks: Sequence[Mark]
    ) -> Iterator[ShownPicture]:
        layout = self.layout.image
        for stream, size in (
            (EncoderModality.IMAGE_HISTORY, layout.history_size),
            (EncoderModality.IMAGE, layout.input_size),
        ):
            frames = zip(recipe.frames.get(stream, ()), rendered.frames.get(stream, ()), strict=True)
            for place, (frame, patches) in enumerate(frames, 1):
                canvas = image.to_bytes(image.to_canvas(image.decode_rgb(content.image_data[frame.number]), size)[0])
                visible = _cells(patches, (size // layout.patch,) * 2, layout.patch)
                yield ShownPicture(
                    title=f"earlier picture {place}" if stream == EncoderModality.IMAGE_HISTORY else "current picture",
                    pixels=np.where(visible[..., None], canvas, (canvas * _DIMMED).astype(np.uint8)),
                    patches=(len(patches.index), frame.valid),
                    marks=tuple(mark for mark in marks if mark.picture == frame.number),
                )

    def _clips(self, recipe: Recipe, rendered: Rendered, content: RowContent) -> Iterator[ShownClip]:
        layout = self.layout.audio
        for stream in (EncoderModality.AUDIO_HISTORY, EncoderModality.AUDIO):
            frames = zip(recipe.frames.get(stream, ()), rendered.frames.get(stream, ()), strict=True)
            for place, (frame, patches) in enumerate(frames, 1):
                data = content.audio_data[frame.number]
                yield ShownClip(
                    title=f"earlier clip {place}" if stream == EncoderModality.AUDIO_HISTORY else "current clip",
                    data=data,
                    media_type="audio/flac",
                    mel=audio.log_mel(audio.decode_flac(data), layout)[0],
                    visible=_cells(patches, layout.input_grid, layout.patch),
                    patches=(len(patches.index), frame.valid),
                )

    def _target_media(
        self, recipe: Recipe, rendered: Rendered, content: RowContent
    ) -> tuple[list[ShownPicture], list[ShownClip]]:
        """What targets of codes stand for and, where the row has it, before it what they were made from."""
        pictures: list[ShownPicture] = []
        clips: list[ShownClip] = []
        for target in rendered.targets:
            if target.modality == DecoderModality.IMAGE:
                pictures += self._target_pictures(recipe, target, content)
            elif target.modality == DecoderModality.AUDIO:
                clips += self._target_clips(target, content)
        return pictures, clips

    def _target_pictures(self, recipe: Recipe, target: Target, content: RowContent) -> list[ShownPicture]:
        layout, found = self.layout.image, []
        codes = (
            content.image_codes[-1] if recipe.target_picture is None else content.target_codes[recipe.target_picture]
        )
        if recipe.target_picture is None:
            canvas, _ = image.to_canvas(image.decode_rgb(content.image_data[-1]), layout.target_size)
            found.append(ShownPicture("the picture itself", image.to_bytes(canvas)))
        if self.tokenizers.image_codes is not None:
            (decoded,) = self.tokenizers.image_codes.decode([codes.tolist()])
            asked = _asked(target, (layout.target_grid,) * 2, (layout.code_stride,) * 2)
            pixels = np.where(
                asked[..., None], image.to_bytes(decoded), (image.to_bytes(decoded) * _DIMMED).astype(np.uint8)
            )
            found.append(ShownPicture(_title(target, len(codes)), pixels))
        return found

    def _target_clips(self, target: Target, content: RowContent) -> list[ShownClip]:
        layout, data, codes = self.layout.audio, content.audio_data[-1], content.audio_codes[-1]
        mel, _ = audio.log_mel(audio.decode_flac(data), layout)
        found = [ShownClip("the clip itself", data, "audio/flac", mel, np.ones(mel.shape, np.bool_))]
        if self.tokenizers.audio_codes is not None:
            (decoded,) = self.tokenizers.audio_codes.decode([codes.tolist()])
            sound = audio.encode_waveform(self.tokenizers.waveform(decoded), layout.sample_rate, "WAV")
            visible = _asked(target, layout.target_grid, layout.code_patch)
            found.append(ShownClip(_title(target, len(codes)), sound, "audio/wav", decoded, visible))
        return found


def _cells(patches: Patches, grid: tuple[int, int], patch: int) -> BoolArray:
    """Pixels of the patches that are kept: bool [rows * patch, columns * patch]."""
    return _pixels(patches.index, grid, (patch, patch))


def _asked(target: Target, grid: tuple[int, int], cell: tuple[int, int]) -> BoolArray:
    """Pixels (or bins) of the codes that are asked for."""
    places = target.positions[:, 0] * grid[1] + target.positions[:, 1]
    return _pixels(places.astype(np.int64), grid, cell)


def _pixels(places: Ids, grid: tuple[int, int], cell: tuple[int, int]) -> BoolArray:
    chosen = np.zeros(grid[0] * grid[1], np.bool_)
    chosen[places] = True
    return np.asarray(chosen.reshape(grid).repeat(cell[0], axis=0).repeat(cell[1], axis=1))


def _title(target: Target, codes: int) -> str:
    return "as its codes decode" + ("" if len(target.ids) == codes else f", {len(target.ids)} of {codes} asked for")
