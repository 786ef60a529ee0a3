"""Sequences of a decoder-only backbone that grow by one id at a time, many of different lengths side by side.

Shape letters: B sequences, T slots so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omnimill.training.backbone.decoder_only import SequenceModel


class GrowingSequences:
    """Keys and values of what was before are kept. A shorter start is filled up in front with slots that nothing sees.

    Args:
        model: on the device that it computes on.
        starts: ids of every sequence, at least one each.

    Attributes:
        logits: float32 [B, rows], of what follows each of them.
    """

    def __init__(self, model: SequenceModel, starts: Sequence[Sequence[int]]) -> None:
        self._model, self._caches = model, model.new_caches()
        device = next(model.parameters()).device
        self._slots = max(map(len, starts))
        ids = torch.zeros(len(starts), self._slots, dtype=torch.int64)
        for row, start in enumerate(starts):
            ids[row, self._slots - len(start) :] = torch.tensor(start)
        # A sequence sees its slots from `_first` up to `_kept`, and those from `_begin` on.
        self._first = torch.tensor([self._slots - len(start) for start in starts], device=device)
        self._begin, self._kept = self._first, 0
        slots = torch.arange(self._slots, device=device)
        own = (slots[None] >= self._begin[:, None])[:, None]
        # A slot that is nobody's sees itself, for a softmax over nothing is no number.
        mask = own & (slots[None, :, None] >= slots) | (slots[:, None] == slots)
        self.logits = self._run(ids.to(device), (slots[None] - self._begin[:, None]).clamp(min=0), mask)
        self._first_logits = self.logits

    def step(self, ids: Tensor) -> Tensor:
        """Logits float32 [B, rows] behind the next id of every sequence, int64 [B]."""
        before: Tensor | int = self._kept - self._first if self._kept else 0
        place = self._slots - self._begin + before
        self._slots += 1
        slots = torch.arange(self._slots, device=ids.device)
        seen = (slots >= self._begin[:, None]) | (slots >= self._first[:, None]) & (slots < self._kept)
        self.logits = self._run(ids[:, None], place[:, None], seen[:, None])
        return self.logits

    def hold_start(self) -> None:
        """From now on every sequence can go back to its start, which is all that it has yet."""
        self._kept = self._slots
        self._begin = torch.full_like(self._begin, self._slots)

    def begin_again(self, rows: Tensor) -> None:
        """Sequences bool [B] go back to the start that is held."""
        self._begin = torch.where(rows, self._slots, self._begin)
        self.logits = torch.where(rows[:, None], self._first_logits, self.logits)

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the sequences, int64 [k]."""
        self._first, self._begin, self.logits = self._first[rows], self._begin[rows], self.logits[rows]
        self._first_logits = self._first_logits[rows]
        for cache in self._caches:
            cache.keep(rows)

    @torch.inference_mode()
    def _run(self, ids: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        """ids, places int64 [B, n], mask bool [B, n, T] -> float32 [B, rows] behind the last ones."""
        position = torch.stack([places.float(), torch.zeros_like(places, dtype=torch.float32)], -1)
        return self._model.logits(self._model.states(ids, position, mask[:, None], self._caches)[:, -1])
