"""A codebook: vectors to the number of their nearest code and back, learned by moving averages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Codes whose moving count of uses falls below this share of an even use are put where data are.
_DEAD_SHARE = 0.03


class Quantiser(nn.Module):
    """Nearest-neighbour codebook with straight-through gradients (van den Oord et al. 2017, arXiv 1711.00937).

    Codes follow an exponential moving average of the vectors they win (appendix A.1 of that paper); codes that hardly
    win any are replaced by vectors of the batch. Vectors and codes have unit length when `normalised` (Yu et al. 2022,
    arXiv 2110.04627, section 3.2).

    Args:
        codes: codebook size K.
        width: length C of a code.
        normalised: compare directions, not points.
        decay: of the moving averages.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, width: int, normalised: bool = True, decay: float = 0.95) -> None:
        super().__init__()
        self.normalised = normalised
        self.decay = decay
        self.register_buffer("codebook", torch.zeros(codes, width))
        # Moving count and sum of the vectors each code won; only training reads them.
        self.register_buffer("counts", torch.zeros(codes), persistent=False)
        self.register_buffer("sums", torch.zeros(codes, width), persistent=False)

    def codes_of(self, vectors: Tensor) -> Tensor:
        """Vectors [..., C] to codes int64 [...]."""
        return self._nearest(self._place(vectors.reshape(-1, vectors.shape[-1]))).view(vectors.shape[:-1])

    def vectors_of(self, codes: Tensor) -> Tensor:
        """Codes [...] to vectors [..., C]."""
        return F.embedding(codes, self.codebook)

    @torch.no_grad()
    def start(self, vectors: Tensor, rounds: int = 10) -> None:
        """Place the codes by k-means over vectors [N, C]; needed once before training."""
        placed = self._place(vectors)
        self.codebook.copy_(_drawn(placed, len(self.codebook)))
        for _ in range(rounds):
            won = self._won(self._nearest(placed))
            self.counts.copy_(won.sum(0))
            self.sums.copy_(won.T @ placed)
            self._settle(placed)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise vectors [N, C]; in training mode the codebook learns from them.

        Returns:
            Quantised vectors whose gradient passes to `vectors`, codes int64 [N], and the commitment loss (how far
            vectors lie from their codes).
        """
        placed = self._place(vectors)
        codes = self._nearest(placed)
        quantised = self.vectors_of(codes)
        if self.training:
            self._learn(placed.detach(), codes)
        return placed + (quantised - placed).detach(), codes, F.mse_loss(placed, quantised.detach())

    def _place(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.normalised else vectors

    def _nearest(self, placed: Tensor) -> Tensor:
        half_squares = self.codebook.square().sum(1) / 2
        return (placed @ self.codebook.T - half_squares).argmax(1)

    @torch.no_grad()
    def _learn(self, placed: Tensor, codes: Tensor) -> None:
        won = self._won(codes)
        self.counts.lerp_(won.sum(0), 1.0 - self.decay)
        self.sums.lerp_(won.T @ placed, 1.0 - self.decay)
        self._settle(placed)

    def _won(self, codes: Tensor) -> Tensor:
        return F.one_hot(codes, len(self.codebook)).to(self.codebook.dtype)

    def _settle(self, placed: Tensor) -> None:
        """Move codes to the mean of what they won, and dead ones to vectors drawn from `placed`."""
        even = self.counts.mean()
        dead = self.counts < _DEAD_SHARE * even
        fresh = _drawn(placed, int(dead.sum()))
        self.counts[dead] = even
        self.sums[dead] = fresh * even
        self.codebook.copy_(self._place(self.sums / self.counts[:, None]))


def _drawn(vectors: Tensor, count: int) -> Tensor:
    return vectors[torch.randint(len(vectors), (count,), device=vectors.device)]
