"""HiFi-GAN's generator: log-mel spectrograms to waveforms (Kong, Kim and Bae 2020, arXiv 2010.05646).

The defaults are the network that Unified-IO 2's demo uses (``demo/hifigan/checkpoints/config.json`` of its repository):
version 3 of the paper, with 128 mel bands.
"""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from omnimill.config import Config
from omnimill.tokenizers.audio import FLOOR, FloatArray, hop_samples
from omnimill.tokens import AudioLayout

_SLOPE = 0.1


class VocoderConfig(Config):
    """Shape of the generator.

    rates: by which every stage multiplies the length; together they are the samples of a spectrogram frame.
    kernels: of those stages. channels: before the first stage, half as many after each.
    block_kernels: of the residual blocks, all of which follow every stage and are averaged ("type 2": a convolution and
        a skip for each dilation). dilations: of each kernel's block.
    """

    rates: tuple[int, ...] = (8, 8, 4)
    kernels: tuple[int, ...] = (16, 16, 8)
    channels: int = Field(default=256, ge=1)
    block_kernels: tuple[int, ...] = (3, 5, 7)
    dilations: tuple[tuple[int, ...], ...] = ((1, 2), (2, 6), (3, 12))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.rates) != len(self.kernels) or len(self.block_kernels) != len(self.dilations):
            raise ValueError("there must be a kernel for every rate, and dilations for every block kernel")
        if any(kernel < rate or (kernel - rate) % 2 for rate, kernel in zip(self.rates, self.kernels, strict=True)):
            raise ValueError(f"every kernel must be its rate plus an even number, found {self.kernels}, {self.rates}")
        if any(kernel % 2 == 0 for kernel in self.block_kernels):
            raise ValueError(f"block_kernels must be odd, found {self.block_kernels}")
        if self.channels % 2 ** len(self.rates):
            raise ValueError(f"channels must halve {len(self.rates)} times, found {self.channels}")
        return self

    @property
    def hop(self) -> int:
        """Samples per spectrogram frame."""
        return math.prod(self.rates)


class HifiGan(nn.Module):
    """The generator, its weight normalisation multiplied out. Modules are named as in the published checkpoints."""

    def __init__(self, config: VocoderConfig, mels: int) -> None:
        super().__init__()
        width = config.channels
        self.conv_pre = nn.Conv1d(mels, width, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for rate, kernel in zip(config.rates, config.kernels, strict=True):
            self.ups.append(nn.ConvTranspose1d(width, width // 2, kernel, rate, padding=(kernel - rate) // 2))
            width //= 2
            for size, dilations in zip(config.block_kernels, config.dilations, strict=True):
                self.resblocks.append(_Block(width, size, dilations))
        self.conv_post = nn.Conv1d(width, 1, 7, padding=3)

    def forward(self, mels: Tensor) -> Tensor:
        """Log-mel [B, mels, frames] to waveforms [B, frames * hop] within -1..1."""
        hidden: Tensor = self.conv_pre(mels)
        each = len(self.resblocks) // len(self.ups)
        for stage, up in enumerate(self.ups):
            hidden = up(F.leaky_relu(hidden, _SLOPE))
            blocks = self.resblocks[stage * each : (stage + 1) * each]
            hidden = torch.stack([block(hidden) for block in blocks]).mean(0)
        # The published network leaves the slope before its last convolution at PyTorch's default, 0.01.
        return torch.tanh(self.conv_post(F.leaky_relu(hidden)))[:, 0]


class _Block(nn.Module):
    def __init__(self, width: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, kernel, dilation=dilation, padding=(kernel - 1) // 2 * dilation)
            for dilation in dilations
        )

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        for conv in self.convs:
            hidden = hidden + conv(F.leaky_relu(hidden, _SLOPE))
        return hidden


class Vocoder:
    """Spectrograms of a layout as waveforms.

    Args:
        network: a trained generator.
        layout: sizes.
        device: that it runs on.
    """

    def __init__(self, network: HifiGan, layout: AudioLayout, device: torch.device | str = "cpu") -> None:
        self.network = network.to(device).eval()
        self.layout = layout
        self._device = device

    @torch.inference_mode()
    def __call__(self, mel: FloatArray) -> FloatArray:
        """Log-mel float32 [frames, mels] to float32 [segment_samples] within -1..1.

        Exact zeros count as silence, as :func:`omnimill.tokenizers.audio.log_mel` writes them.
        """
        heard = np.where(mel == 0, np.float32(np.log(FLOOR)), mel).astype(np.float32, copy=False)
        sound = self.network(torch.from_numpy(heard.T.copy())[None].to(self._device))[0].cpu().numpy()
        # It learned frame i from around i * hop + hop / 2, a segment's frame i lies around i * hop.
        sound = sound[hop_samples(self.layout) // 2 :][: self.layout.segment_samples]
        result: FloatArray = np.pad(sound, (0, self.layout.segment_samples - len(sound)))
        return result
