"""Pictures and spectrograms as codes, and back: what tokenization and generation use of a trained network.

Networks run in batches of one fixed shape (the last is filled up with zeros), so that a picture's codes do not depend
on how many others are encoded with it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from omnimill.tokenizers import audio
from omnimill.tokenizers.audio import FloatArray
from omnimill.tokenizers.image import ByteArray
from omnimill.tokenizers.networks import Autoencoder
from omnimill.tokens import AudioLayout, ImageLayout

CodeArray = NDArray[np.uint16]

BATCH = 16


class ImageTokenizer:
    """A trained picture network.

    Args:
        network: see :func:`omnimill.tokenizers.networks.image_network`.
        layout: sizes.
        device: that it runs on.
        batch: pictures at a time.
    """

    def __init__(
        self, network: Autoencoder, layout: ImageLayout, device: torch.device | str = "cpu", batch: int = BATCH
    ) -> None:
        self.network = network.to(device).eval()
        self.layout = layout
        self._run = _Batches(torch.device(device), batch)

    def encode(self, canvases: FloatArray | ByteArray) -> CodeArray:
        """Target canvases [n, size, size, 3] (float32 in 0..1, or bytes) to codes uint16 [n, grid * grid]."""
        return self._run(self._encode, torch.from_numpy(canvases)).numpy().astype(np.uint16)

    def decode(self, codes: ArrayLike) -> FloatArray:
        """Codes [n, grid * grid] to pictures float32 [n, size, size, 3] in 0..1."""
        pictures: FloatArray = self._run(self._decode, _codes(codes)).numpy()
        return pictures

    def _encode(self, canvases: Tensor) -> Tensor:
        return self.network.encode(picture_input(canvases)).flatten(1)

    def _decode(self, codes: Tensor) -> Tensor:
        grid = self.layout.target_grid
        pixels = self.network.decode(codes.view(-1, grid, grid)).permute(0, 2, 3, 1)
        return ((pixels + 1.0) / 2.0).clamp(0.0, 1.0)


class AudioTokenizer:
    """A trained spectrogram network; arguments as for :class:`ImageTokenizer`."""

    def __init__(
        self, network: Autoencoder, layout: AudioLayout, device: torch.device | str = "cpu", batch: int = BATCH
    ) -> None:
        self.network = network.to(device).eval()
        self.layout = layout
        self._run = _Batches(torch.device(device), batch)

    def encode(self, mels: FloatArray) -> CodeArray:
        """Log-mel float32 [n, frames, mels] (not normalised) to codes uint16 [n, time * mel], time first."""
        return self._run(self._encode, torch.from_numpy(audio.normalise_target(mels))).numpy().astype(np.uint16)

    def decode(self, codes: ArrayLike) -> FloatArray:
        """Codes [n, time * mel] to log-mel float32 [n, frames, mels]."""
        return audio.denormalise_target(self._run(self._decode, _codes(codes)).numpy())

    def _encode(self, mels: Tensor) -> Tensor:
        return self.network.encode(sound_input(mels)).flatten(1)

    def _decode(self, codes: Tensor) -> Tensor:
        return self.network.decode(codes.view(-1, *self.layout.target_grid))[:, 0]


def picture_input(canvases: Tensor) -> Tensor:
    """Canvases [n, size, size, 3], in 0..1 or bytes, as the picture network takes them: [n, 3, size, size] in -1..1."""
    values = canvases if canvases.is_floating_point() else canvases.float() / 255.0
    return values.permute(0, 3, 1, 2) * 2.0 - 1.0


def sound_input(mels: Tensor) -> Tensor:
    """Normalised log-mel [n, frames, mels] as the spectrogram network takes it: [n, 1, frames, mels]."""
    return mels[:, None]


def _codes(codes: ArrayLike) -> Tensor:
    return torch.from_numpy(np.asarray(codes).astype(np.int64))


class _Batches:
    def __init__(self, device: torch.device, size: int) -> None:
        self.device = device
        self.size = size

    @torch.inference_mode()
    def __call__(self, function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        padded = -(-max(len(inputs), 1) // self.size) * self.size
        filled = torch.cat([inputs, inputs.new_zeros(padded - len(inputs), *inputs.shape[1:])])
        outputs = [function(part.to(self.device)).cpu() for part in torch.split(filled, self.size)]
        return torch.cat(outputs)[: len(inputs)]
