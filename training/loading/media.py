"""Encoded pictures and clips of a token shard, decoded once and cut into patches where a stream needs them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from omnimill.tokenizers import audio, image
from omnimill.tokens import AudioLayout, ImageLayout

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Grid = tuple[int, int]


class Picture:
    """A JPEG or PNG. Raises BadRecord when it cannot be decoded."""

    def __init__(self, data: bytes, layout: ImageLayout) -> None:
        self._rgb = image.decode_rgb(data)
        self._layout = layout

    def patches(self, size: int) -> Floats:
        """Patches of a canvas of `size` pixels, normalised for the encoder: float32 [grid * grid, C]."""
        canvas, _ = image.to_canvas(self._rgb, size)
        return image.normalise(image.patchify(canvas, self._layout.patch))

    def valid(self, size: int) -> Mask:
        """Which of these patches show the picture: bool [grid * grid]."""
        return self._valid(size, self._layout.patch)

    def target_valid(self) -> Mask:
        """Which codes of the target canvas stand for the picture and not for padding: bool [codes]."""
        return self._valid(self._layout.target_size, self._layout.code_stride)

    def _valid(self, size: int, patch: int) -> Mask:
        height, width = self._rgb.shape[:2]
        return image.valid_patches(height, width, size, patch)


class Clip:
    """A FLAC clip. Raises BadRecord when it cannot be decoded."""

    def __init__(self, data: bytes, layout: AudioLayout) -> None:
        self._waveform = audio.decode_flac(data)
        self._layout = layout

    def patches(self) -> Floats:
        """Patches of the log-mel spectrogram, normalised for the encoder: float32 [time * mel, C]."""
        mel, _ = audio.log_mel(self._waveform, self._layout)
        return audio.patchify(audio.normalise_input(mel), self._layout.patch)

    def valid(self) -> Mask:
        """Which patches hold sound: bool [time * mel]."""
        return audio.valid_patches(len(self._waveform), self._layout)

    def target_valid(self) -> Mask:
        """Which codes stand for sound and not for padding: bool [codes]."""
        return project(self.valid(), self._layout.input_grid, self._layout.target_grid)


def project(mask: Mask, grid: Grid, onto: Grid) -> Mask:
    """A mask over one grid, sampled at the centres of another grid's cells: bool [onto rows * onto columns]."""
    axes = [
        ((np.arange(cells) + 0.5) * sides / cells).astype(np.int64) for sides, cells in zip(grid, onto, strict=True)
    ]
    return np.asarray(mask.reshape(grid)[np.ix_(*axes)].reshape(-1), np.bool_)
