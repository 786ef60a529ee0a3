"""A codebook: vectors to the number of their nearest code and back, learned by moving averages."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

# Codes whose moving count of uses falls below this share of an even use are put where data are.
_DEAD_SHARE = 0.03
# Vectors per code that k-means looks at; more do not place it better.
_START_VECTORS = 64
# Scores (vectors x codes) that are in memory at once.
_SCORES = 1 << 24


class Quantiser(nn.Module):
    """Nearest-neighbour codebook with straight-through gradients (van den Oord et al. 2017, arXiv 1711.00937).

    Codes follow an exponential moving average of the vectors they win (appendix A.1 of that paper); codes that hardly
    win any are replaced by vectors of the batch. In a distributed process group every process counts what all of them
    saw. Vectors and codes have unit length when `normalised` (Yu et al. 2022, arXiv 2110.04627, section 3.2).

    It computes in float32 whatever the networks around it use: codes of half precision would flip.

    Args:
        codes: codebook size K.
        width: length C of a code.
        normalised: compare directions, not points.
        decay: of the moving averages.
    """

    codebook: Tensor
    counts: Tensor

    def __init__(self, codes: int, width: int, normalised: bool = True, decay: float = 0.95) -> None:
        super().__init__()
        self.normalised = normalised
        self.decay = decay
        self.register_buffer("codebook", torch.zeros(codes, width))
        # Moving count of the vectors each code won. Only training reads it, so it is no part of what is stored; whoever
        # interrupts training finds it among `named_buffers()`.
        self.register_buffer("counts", torch.ones(codes), persistent=False)

    def codes_of(self, vectors: Tensor) -> Tensor:
        """Vectors [..., C] to codes int64 [...]."""
        with _full_precision(vectors):
            return self._nearest(self._place(vectors.reshape(-1, vectors.shape[-1]))).view(vectors.shape[:-1])

    def vectors_of(self, codes: Tensor) -> Tensor:
        """Codes [...] to vectors float32 [..., C]."""
        return F.embedding(codes, self.codebook)

    @torch.no_grad()
    def start(self, vectors: Tensor, rounds: int = 10) -> None:
        """Place the codes by k-means over vectors [N, C]; needed once before training from nothing."""
        with _full_precision(vectors):
            placed = self._place(vectors)
            most = _START_VECTORS * len(self.codebook)
            if len(placed) > most:
                placed = placed[torch.randperm(len(placed), device=placed.device)[:most]]
            self.codebook.copy_(self._fresh(placed))
            for _ in range(rounds):
                self._settle(*self._won(placed, self._nearest(placed)), self._fresh(placed))

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise vectors [N, C]; in training mode the codebook learns from them.

        Returns:
            Quantised vectors whose gradient passes to `vectors`, codes int64 [N], and the commitment loss (how far
            vectors lie from their codes).
        """
        with _full_precision(vectors):
            placed = self._place(vectors)
            codes = self._nearest(placed)
            quantised = self.vectors_of(codes)
            if self.training:
                self._learn(placed.detach(), codes)
            return placed + (quantised - placed).detach(), codes, F.mse_loss(placed, quantised.detach())

    def _place(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors.float(), dim=-1) if self.normalised else vectors.float()

    def _nearest(self, placed: Tensor) -> Tensor:
        less = -self.codebook.square().sum(1) / 2
        parts = torch.split(placed, max(1, _SCORES // len(self.codebook)))
        return torch.cat([torch.addmm(less, part, self.codebook.T).argmax(1) for part in parts])

    @torch.no_grad()
    def _learn(self, placed: Tensor, codes: Tensor) -> None:
        counts, sums = self._won(placed, codes)
        fresh = self._fresh(placed)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
            torch.distributed.all_reduce(sums)
            torch.distributed.broadcast(fresh, 0)
        kept = self.counts * self.decay
        gain = 1.0 - self.decay
        self._settle(kept + counts * gain, self.codebook * kept[:, None] + sums * gain, fresh)

    def _won(self, placed: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """How many vectors every code won, and their sum."""
        counts = torch.bincount(codes, minlength=len(self.codebook)).to(placed.dtype)
        return counts, torch.zeros_like(self.codebook).index_add_(0, codes, placed)

    def _fresh(self, placed: Tensor) -> Tensor:
        """A vector of the batch for every code, in case it is dead."""
        return placed[torch.randint(len(placed), (len(self.codebook),), device=placed.device)]

    def _settle(self, counts: Tensor, sums: Tensor, fresh: Tensor) -> None:
        """Move codes to the mean of what they won, and dead ones to `fresh` vectors."""
        even = counts.mean()
        dead = counts < _DEAD_SHARE * even
        self.counts.copy_(torch.where(dead, even, counts))
        self.codebook.copy_(torch.where(dead[:, None], fresh, self._place(sums / counts[:, None])))


def _full_precision(vectors: Tensor) -> AbstractContextManager[object]:
    kind = vectors.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)
