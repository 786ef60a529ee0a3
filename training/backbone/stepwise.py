"""Decoding one position at a time: keys and values of what was decoded before are kept, not computed again."""

from __future__ import annotations

import torch
from torch import Tensor

from omnimill.training.backbone.model import Backbone, Encoded
from omnimill.training.backbone.rotary import rotation
from omnimill.training.backbone.transformer import LayerCache
from omnimill.training.batch import DecoderModality


class StepwiseDecoder:
    """A growing target of one modality for each of B sequences; gives what :meth:`Backbone.decode` gives at once.

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

    @torch.inference_mode()
    def step(self, ids: Tensor, position: Tensor) -> Tensor:
        """Take the next input of every sequence.

        Args:
            ids: int64 [B], the id before the one that is asked for (0 at first).
            position: float32 [B, 2], of the one that is asked for.

        Returns:
            Logits float32 [B, rows].
        """
        flat = torch.full((len(ids), 1), self.modality == DecoderModality.TEXT, device=ids.device)
        turns = rotation(position[:, None], flat, self.model.config.head_width)
        x = self.model.embed_targets(ids[:, None], self.modality)
        for layer, cache in zip(self.model.decoder_layers, self._caches, strict=True):
            x = layer(x, self.encoded.hidden, None, self._seen, turns, self.encoded.rotation, cache)
        return self.model.logits(self.model.decoder_norm(x)[:, 0], self.modality)
