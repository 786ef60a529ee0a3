"""What a code network is shown of a picture or a clip: all of it, or a random part in training.

Reading (decoding, scaling down to what any part of it can need) is apart from taking a part, so that what was read can
be kept. Both are functions of the bytes and keys alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnimill.errors import BadRecord
from omnimill.rng import Key, digest64
from omnimill.tokenizers import audio, augment, image
from omnimill.tokenizers.augment import AugmentConfig
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.corpus import Column
from omnimill.tokenizers.networks import CodeNetwork, audio_network, image_network
from omnimill.tokenizers.vq import picture_input, sound_input
from omnimill.tokens import AudioLayout, ImageLayout

Array = NDArray[Any]


class Views(Protocol):
    """How one modality's items become a network's inputs.

    column: of the examples. channels: of the inputs. build: makes the network, its codebook not yet placed.
    """

    column: Column
    channels: int
    build: Callable[[], CodeNetwork]

    def read(self, data: bytes) -> Array:
        """An item, as it is kept; raises BadRecord when it cannot be decoded."""

    def part(self, read: Array, *keys: Key) -> Array:
        """What the network is shown of it; equal keys give equal parts."""

    def inputs(self, parts: Tensor) -> Tensor:
        """A batch of parts as the network takes them: float32 [n, channels, height, width]."""


class PictureViews:
    """Pictures on the target canvas, or random parts of them on a canvas of `side` pixels.

    Kept are uint8 canvases, or with augmentation the decoded picture, scaled down where no part shows more of it.
    """

    column: Column = "images"
    channels = 3

    def __init__(self, config: TokenizerConfig) -> None:
        layout: ImageLayout = config.layout.image
        self._side = config.image.training.side or layout.target_size
        self._augment: AugmentConfig | None = config.image.training.augment
        self.build = lambda: image_network(config.image.network, layout)

    def read(self, data: bytes) -> Array:
        """uint8 [side, side, 3], or [H, W, 3]."""
        rgb = image.decode_rgb(data)
        if self._augment is None:
            return image.to_bytes(image.to_canvas(rgb, self._side)[0])
        height, width = rgb.shape[:2]
        # No scaled picture's shorter side is longer than this.
        shorter = max(self._side * self._augment.scale_high, self._augment.min_side)
        share = shorter / min(height, width)
        if share >= 1:
            return rgb
        return image.to_bytes(image.resize(rgb, max(round(height * share), 1), max(round(width * share), 1)))

    def part(self, read: Array, *keys: Key) -> Array:
        """uint8 [side, side, 3]."""
        if self._augment is None:
            return read
        height, width = read.shape[:2]
        geometry = augment.draw_geometry(height, width, self._side, *keys, config=self._augment)
        return image.to_bytes(augment.place(read, geometry, augment.draw_kernel(*keys))[0])

    def inputs(self, parts: Tensor) -> Tensor:
        return picture_input(parts)


class SoundViews:
    """The middle segment of clips as log-mel, or a random segment of each.

    Kept are float32 spectrograms [frames, mels], or with random segments the waveform at the layout's rate.
    """

    column: Column = "audio"
    channels = 1

    def __init__(self, config: TokenizerConfig) -> None:
        self._layout: AudioLayout = config.layout.audio
        self._random = config.audio.training.random_segments
        self.build = lambda: audio_network(config.audio.network, config.layout.audio)

    def read(self, data: bytes) -> Array:
        """float32 [frames, mels], or [samples]."""
        waveform, rate = audio.decode_waveform(data)
        if rate != self._layout.sample_rate:
            waveform = np.asarray(soxr.resample(waveform, rate, self._layout.sample_rate), np.float32)
        if not len(waveform):
            raise BadRecord("audio_empty", f"the clip holds no sample at {self._layout.sample_rate} Hz")
        return waveform if self._random else audio.log_mel(waveform, self._layout)[0]

    def part(self, read: Array, *keys: Key) -> Array:
        """Log-mel float32 [frames, mels]."""
        if not self._random:
            return read
        spare = max(len(read) - self._layout.segment_samples, 0)
        start = digest64(*keys, "segment") % (spare + 1)
        return audio.log_mel(read[start : start + self._layout.segment_samples], self._layout)[0]

    def inputs(self, parts: Tensor) -> Tensor:
        mean, deviation = audio.TARGET_NORM
        return sound_input((parts - mean) / deviation)


def views_of(config: TokenizerConfig, part: str) -> Views:
    """The views of a set's part, ``image`` or ``audio``, in training."""
    return PictureViews(config) if part == "image" else SoundViews(config)


def stacked(parts: list[Array]) -> Tensor:
    """Parts of equal shapes as one tensor."""
    return torch.from_numpy(np.stack(parts))
