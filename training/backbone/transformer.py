"""Layers of encoder and decoder (Unified-IO 2, arXiv 2312.17172, section 3.2): pre-norm, residual, no biases."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from omnimill.training.backbone.blocks import Attention, Block, GatedMLP, RMSNorm
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.masks import Mask
from omnimill.training.backbone.rotary import Rotation

KeyValues = tuple[Tensor, Tensor]

# Positions that a cache has room for at first.
_LEAST_ROOM = 64


class LayerCache:
    """What a decoder layer keeps between steps of generation: keys and values, each [B, H, T, K].

    Room for positions doubles when it is used up, so that a step copies what is new alone.

    Attributes:
        memory: of the encoder's output.
    """

    def __init__(self) -> None:
        self.memory: KeyValues | None = None
        self._past: KeyValues | None = None
        self._length = 0

    @property
    def length(self) -> int:
        """Positions that it holds."""
        return self._length

    def extend(self, keys: Tensor, values: Tensor) -> KeyValues:
        """Add the newest positions; keys and values of all positions so far."""
        start, end = self._length, self._length + keys.shape[2]
        if self._past is None or self._past[0].shape[2] < end:
            self._past = self._grown(keys, end), self._grown(values, end, 1)
        for room, new in zip(self._past, (keys, values), strict=True):
            room[:, :, start:end] = new
        self._length = end
        return self._past[0][:, :, :end], self._past[1][:, :, :end]

    def keep(self, rows: Tensor, memory: bool = True) -> None:
        """Go on with other sequences: int64 [k], which of the present ones each of them is a copy of.

        Args:
            memory: False where each is a copy of one with the same encoder input.
        """
        if self._past is not None:
            self._past = self._past[0][rows], self._past[1][rows]
        if memory and self.memory is not None:
            self.memory = self.memory[0][rows], self.memory[1][rows]

    def _grown(self, new: Tensor, end: int, part: Literal[0, 1] = 0) -> Tensor:
        room = new.new_empty(*new.shape[:2], max(2 * end, _LEAST_ROOM), new.shape[3])
        if self._past is not None:
            room[:, :, : self._length] = self._past[part][:, :, : self._length]
        return room


class EncoderLayer(Block):
    """Self-attention, then a gated MLP."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.pre_attention_norm = RMSNorm(config.width)
        self.attention = Attention(config.width, config.heads, config.head_width)
        self.pre_mlp_norm = RMSNorm(config.width)
        self.mlp = GatedMLP(config.width, config.mlp)

    def forward(self, x: Tensor, mask: Mask, rotation: Rotation) -> Tensor:
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
        self_mask: Mask | None,
        cross_mask: Mask,
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

    def _look_back(self, h: Tensor, mask: Mask | None, rotation: Rotation, cache: LayerCache | None) -> Tensor:
        attention = self.self_attention
        keys, values = attention.keys_values(h, rotation)
        if cache is not None:
            keys, values = cache.extend(keys, values)
        return attention.combine(attention.queries(h, rotation), keys, values, mask)
