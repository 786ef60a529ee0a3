"""Pictures and spectrograms as codes, and back: what tokenization and generation use of a trained network.

Networks run in batches of one fixed shape (the last is filled up with zeros), so that a picture's codes do not depend
on how many others are encoded with it. On a GPU the next batch is on its way while one is computed: it is copied from
pinned memory on a stream of its own, and codes are copied back without waiting for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from omnimill.tokenizers import audio
from omnimill.tokenizers.audio import FloatArray
from omnimill.tokenizers.image import ByteArray
from omnimill.tokenizers.networks import CodeNetwork
from omnimill.tokens import AudioLayout, ImageLayout

CodeArray = NDArray[np.uint16]

BATCH = 16

Layout = TypeVar("Layout", ImageLayout, AudioLayout)


class Batches:
    """A function of tensors, run on batches of one fixed size.

    Args:
        function: [size, …] to [size, …], on the device.
        device: that it runs on.
        size: inputs at a time.
        bf16: compute in bfloat16, by autocast.
        compiled: run it through `torch.compile`.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        device: torch.device | str = "cpu",
        size: int = BATCH,
        bf16: bool = False,
        compiled: bool = False,
    ) -> None:
        self._function = torch.compile(function, dynamic=False) if compiled else function
        self._device = torch.device(device)
        self._bf16 = bf16
        self._copies = _stream(self._device)
        self.size = size
        # Batches that may be under way at once: one is computed while the next is copied.
        self.ahead = 2 if self._copies is not None else 1

    def __call__(self, inputs: Tensor) -> Tensor:
        """All of the inputs [n, …]; the result is on the CPU."""
        results: list[Tensor] = []
        running: deque[Callable[[], Tensor]] = deque()
        for part in torch.split(inputs, self.size):
            running.append(self.start(part))
            if len(running) == self.ahead:
                results.append(running.popleft()())
        results.extend(finish() for finish in running)
        return torch.cat(results)

    @torch.inference_mode()
    def start(self, inputs: Tensor) -> Callable[[], Tensor]:
        """Start one batch of at most `size` inputs; what is returned waits for its result [n, …] on the CPU."""
        count = len(inputs)
        filled = torch.zeros((self.size, *inputs.shape[1:]), dtype=inputs.dtype, pin_memory=self._copies is not None)
        filled[:count] = inputs
        half = torch.autocast(self._device.type, torch.bfloat16) if self._bf16 else nullcontext()
        if self._copies is None:
            with half:
                outputs = self._function(filled.to(self._device)).cpu()
            return lambda: outputs[:count]
        with torch.cuda.stream(self._copies):
            moved = filled.to(self._device, non_blocking=True)
        here = torch.cuda.current_stream(self._device)
        here.wait_stream(self._copies)
        moved.record_stream(here)
        with half:
            results = self._function(moved)
        answer = torch.empty(results.shape, dtype=results.dtype, pin_memory=True)
        answer.copy_(results, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(here)

        def finish() -> Tensor:
            done.synchronize()
            return answer[:count]

        return finish


class _CodeTokenizer(ABC, Generic[Layout]):
    """A trained network in use.

    Args:
        network: of `omnimill.tokenizers.networks`.
        layout: sizes.
        device: that it runs on.
        batch: pictures or spectrograms at a time.
        bf16, compiled: of encoding, see :class:`Batches`.
    """

    def __init__(
        self,
        network: CodeNetwork,
        layout: Layout,
        device: torch.device | str = "cpu",
        batch: int = BATCH,
        bf16: bool = False,
        compiled: bool = False,
    ) -> None:
        self.network = network.to(device).eval()
        self.layout: Layout = layout
        self.encoder = Batches(self._encode, device, batch, bf16, compiled)
        self._decoder = Batches(self._decode, device, batch)

    @abstractmethod
    def _encode(self, inputs: Tensor) -> Tensor:
        """Inputs of a batch to codes [n, codes]."""

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor:
        """The way back."""


class ImageTokenizer(_CodeTokenizer[ImageLayout]):
    """A trained picture network."""

    def encode(self, canvases: FloatArray | ByteArray) -> CodeArray:
        """Target canvases [n, size, size, 3] (float32 in 0..1, or bytes) to codes uint16 [n, grid * grid]."""
        return as_codes(self.encoder(torch.from_numpy(canvases)))

    def decode(self, codes: ArrayLike) -> FloatArray:
        """Codes [n, grid * grid] to pictures float32 [n, size, size, 3] in 0..1."""
        pictures: FloatArray = self._decoder(_codes(codes)).numpy()
        return pictures

    def _encode(self, inputs: Tensor) -> Tensor:
        return self.network.encode(picture_input(inputs)).flatten(1)

    def _decode(self, codes: Tensor) -> Tensor:
        grid = self.layout.target_grid
        pixels = self.network.decode(codes.view(-1, grid, grid)).permute(0, 2, 3, 1)
        return ((pixels + 1.0) / 2.0).clamp(0.0, 1.0)


class AudioTokenizer(_CodeTokenizer[AudioLayout]):
    """A trained spectrogram network."""

    def encode(self, mels: FloatArray) -> CodeArray:
        """Log-mel float32 [n, frames, mels] (not normalised) to codes uint16 [n, time * mel], time first."""
        return as_codes(self.encoder(torch.from_numpy(mels)))

    def decode(self, codes: ArrayLike) -> FloatArray:
        """Codes [n, time * mel] to log-mel float32 [n, frames, mels]."""
        return audio.denormalise_target(self._decoder(_codes(codes)).numpy())

    def _encode(self, inputs: Tensor) -> Tensor:
        mean, deviation = audio.TARGET_NORM
        return self.network.encode(sound_input((inputs - mean) / deviation)).flatten(1)

    def _decode(self, codes: Tensor) -> Tensor:
        return self.network.decode(codes.view(-1, *self.layout.target_grid))[:, 0]


def picture_input(canvases: Tensor) -> Tensor:
    """Canvases [n, size, size, 3], in 0..1 or bytes, as the picture network takes them: [n, 3, size, size] in -1..1."""
    values = canvases if canvases.is_floating_point() else canvases.float() / 255.0
    return values.permute(0, 3, 1, 2) * 2.0 - 1.0


def sound_input(mels: Tensor) -> Tensor:
    """Normalised log-mel [n, frames, mels] as the spectrogram network takes it: [n, 1, frames, mels]."""
    return mels[:, None]


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def as_codes(results: Tensor) -> CodeArray:
    """A network's codes as token shards hold them."""
    codes: CodeArray = results.numpy().astype(np.uint16)
    return codes


def _codes(codes: ArrayLike) -> Tensor:
    return torch.from_numpy(np.asarray(codes).astype(np.int64))
