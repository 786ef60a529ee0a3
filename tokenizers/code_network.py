"""What every code network does: inputs to the numbers of codes and back, around one codebook."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from omnimill.tokenizers.quantiser import Quantiser

# Inputs that go through a network at once while its codebook is placed.
_START_BATCH = 8


class CodeNetwork(nn.Module, ABC):
    """Encoder, codebook, decoder.

    Pictures are float32 [B, 3, size, size] in -1..1 and their codes in raster order. Spectrograms are
    [B, 1, frames, mels], normalised log-mel, and their codes [B, time, mel].

    Args:
        quantiser: the codebook.
    """

    def __init__(self, quantiser: Quantiser) -> None:
        super().__init__()
        self.quantiser = quantiser

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of the inputs' shape, codes int64 [B, rows, columns], commitment loss (scalar, not weighted)."""
        latent = self.latent(inputs)
        quantised, codes, commitment = self.quantiser(latent.flatten(0, 2))
        return self.output(quantised.view(latent.shape)), codes.view(latent.shape[:3]), commitment

    def encode(self, inputs: Tensor) -> Tensor:
        """Codes int64 [B, rows, columns]."""
        return self.quantiser.codes_of(self.latent(inputs))

    def decode(self, codes: Tensor) -> Tensor:
        """Outputs of the inputs' shape from codes int64 [B, rows, columns]."""
        return self.output(self.quantiser.vectors_of(codes))

    @torch.no_grad()
    def start(self, inputs: Tensor) -> None:
        """Place the codebook where the vectors of some inputs lie; needed once before training from nothing."""
        parts = [self.latent(part).flatten(0, 2) for part in torch.split(inputs, _START_BATCH)]
        self.quantiser.start(torch.cat(parts))

    @property
    @abstractmethod
    def last_layer(self) -> Tensor:
        """Weight of the output layer; an adversarial loss is balanced by the gradients that reach it."""

    @abstractmethod
    def latent(self, inputs: Tensor) -> Tensor:
        """Inputs to vectors [B, rows, columns, C], before they are placed and quantised."""

    @abstractmethod
    def output(self, vectors: Tensor) -> Tensor:
        """Quantised vectors [B, rows, columns, C] to outputs of the inputs' shape."""
