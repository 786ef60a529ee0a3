"""Decoding one position at a time: keys and values of what was decoded before are kept, not computed again."""

from __future__ import annotations

import torch
from torch import Tensor

from omnimill.training.backbone.masks import Pattern, pattern_mask
from omnimill.training.backbone.model import Backbone, Encoded
from omnimill.training.backbone.transformer import LayerCache
from omnimill.training.loading.batch import DecoderModality


class StepwiseDecoder:
    """A growing target of one modality for each of B sequences; gives what :meth:`Backbone.decode` gives at once when
    nothing of the target is hidden in the encoder's input.

    Args:
        model: the backbone.
        encoded: of B sequences with one example each (segment 1, padding 0).
        modality: of the target.
    """

    def __init__(self, model: Backbone, encoded: Encoded, modality: DecoderModality) -> None:
        self.model = model
        self.encoded = encoded
        self.modality = modality
        self._seen = (encoded.segment == 1)[:, None, None, :]
        self._caches = [LayerCache() for _ in model.decoder_layers]
        self._patterns = model.layer_patterns()
        self._decoded = 0

    @property
    def rows(self) -> int:
        """How many sequences there are."""
        return len(self._seen)

    @torch.inference_mode()
    def step(self, ids: Tensor, position: Tensor) -> Tensor:
        """Take the next input of every sequence.

        Args:
            ids: int64 [B], the id before the one that is asked for (0 at first).
            position: float32 [B, 2], of the one that is asked for.

        Returns:
            Logits float32 [B, rows].
        """
        modality = torch.full((len(ids), 1), self.modality, device=ids.device)
        turns = self.model.target_rotation(position[:, None], modality)
        masks = {pattern: self._mask(pattern, ids.device) for pattern in dict.fromkeys(self._patterns)}
        x = self.model.embed_targets(ids[:, None], self.modality)
        for layer, pattern, cache in zip(self.model.decoder_layers, self._patterns, self._caches, strict=True):
            x = layer(x, self.encoded.hidden, masks[pattern], self._seen, turns, self.encoded.rotation, cache)
        self._decoded += 1
        return self.model.logits(self.model.decoder_norm(x)[:, 0], self.modality)

    @torch.inference_mode()
    def keep(self, rows: Tensor, memory: bool = True) -> None:
        """Go on with other sequences: int64 [k], which of the present ones each of them is a copy of.

        Args:
            memory: False where each is a copy of one with the same encoder input.
        """
        if memory:
            self._seen = self._seen[rows]
        for cache in self._caches:
            cache.keep(rows, memory)

    def _mask(self, pattern: Pattern | None, device: torch.device) -> Tensor | None:
        """Which of the positions so far the newest may see: bool [1, 1, 1, T]; None: all of them."""
        if pattern is None:
            return None
        keys = torch.arange(self._decoded + 1, device=device)
        columns = self.model.config.target_columns[self.modality]
        return pattern_mask(pattern, keys[-1:], keys, columns)[None, None, None]
