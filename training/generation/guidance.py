"""Classifier-free guidance (arXiv 2207.12598): what a prompt adds to a prompt that says nothing, made stronger."""

from __future__ import annotations

import torch
from torch import Tensor

from omnimill.training.backbone.stepwise import StepwiseDecoder


class GuidedDecoder:
    """A decoder of B answers whose logits are negative + scale * (prompt - negative).

    Logits and log-probabilities give the same distribution here: they differ by a constant of each row.

    Args:
        steps: over 2 B sequences: first those with the prompts, then in the same order those with the negative ones.
            Both halves are fed the same tokens.
        scale: 1 gives the prompts' own logits, 0 the negatives'.
    """

    def __init__(self, steps: StepwiseDecoder, scale: float) -> None:
        self.modality = steps.modality
        self._steps = steps
        self._scale = scale

    @property
    def rows(self) -> int:
        """How many answers there are."""
        return self._steps.rows // 2

    def step(self, ids: Tensor, position: Tensor) -> Tensor:
        """Logits float32 [B, rows], from the ids before (int64 [B]) and the positions asked for (float32 [B, 2])."""
        logits = self._steps.step(ids.repeat(2), position.repeat(2, 1))
        prompt, negative = logits.chunk(2)
        return negative + self._scale * (prompt - negative)

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the answers, int64 [k]."""
        self._steps.keep(torch.cat([rows, rows + self.rows]))
