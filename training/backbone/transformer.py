"""Layers of encoder and decoder (Unified-IO 2, arXiv 2312.17172, section 3.2): pre-norm, residual, no biases."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omnimill.training.backbone.blocks import Attention, Block, GatedMLP, RMSNorm
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.rotary import Rotation

KeyValues = tuple[Tensor, Tensor]


@dataclass
class LayerCache:
    """What a decoder layer keeps between steps of generation: keys and values, each [B, H, T, K].

    past: of the positions decoded so far. memory: of the encoder's output.
    """

    past: KeyValues | None = None
    memory: KeyValues | None = None


class EncoderLayer(Block):
    """Self-attention, then a gated MLP."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.pre_attention_norm = RMSNorm(config.width)
        self.attention = Attention(config.width, config.heads, config.head_width)
        self.pre_mlp_norm = RMSNorm(config.width)
        self.mlp = GatedMLP(config.width, config.mlp)

    def forward(self, x: Tensor, mask: Tensor, rotation: Rotation) -> Tensor:
        """x [B, E, d], mask bool [B, 1, E, E] -> [B, E, d]."""
        h = self.pre_attention_norm(x)
        x = x + self.attention(h, h, mask, rotation, rotation)
        return x + self.mlp(self.pre_mlp_norm(x))


class DecoderLayer(Block):
    """Self-attention, cross-attention, then a gated MLP."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.pre_self_attention_norm = RMSNorm(config.width)
        self.self_attention = Attention(config.width, config.heads, config.head_width)
        self.pre_cross_attention_norm = RMSNorm(config.width)
        self.cross_attention = Attention(config.width, config.heads, config.head_width)
        self.pre_mlp_norm = RMSNorm(config.width)
        self.mlp = GatedMLP(config.width, config.mlp)

    def forward(
        self,
        x: Tensor,
        encoded: Tensor,
        self_mask: Tensor | None,
        cross_mask: Tensor,
        rotation: Rotation,
        encoded_rotation: Rotation,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """One layer over S positions: all of them, or with a cache those that follow the ones it holds.

        Args:
            x: [B, S, d]. encoded: [B, E, d].
            self_mask: bool [B, 1, S, T] over the T cached and new positions; None: all of them may be seen.
            cross_mask: bool, broadcastable to [B, 1, S, E].
            rotation, encoded_rotation: of the S positions, of the E encoder slots.
            cache: extended by the new positions.

        Returns:
            [B, S, d].
        """
        x = x + self._look_back(self.pre_self_attention_norm(x), self_mask, rotation, cache)
        attention = self.cross_attention
        memory = cache.memory if cache is not None else None
        if memory is None:
            memory = attention.keys_values(encoded, encoded_rotation)
        if cache is not None:
            cache.memory = memory
        x = x + attention.combine(attention.queries(self.pre_cross_attention_norm(x), rotation), *memory, cross_mask)
        return x + self.mlp(self.pre_mlp_norm(x))

    def _look_back(self, h: Tensor, mask: Tensor | None, rotation: Rotation, cache: LayerCache | None) -> Tensor:
        attention = self.self_attention
        keys, values = attention.keys_values(h, rotation)
        if cache is not None:
            if cache.past is not None:
                keys, values = torch.cat([cache.past[0], keys], 2), torch.cat([cache.past[1], values], 2)
            cache.past = keys, values
        return attention.combine(attention.queries(h, rotation), keys, values, mask)
