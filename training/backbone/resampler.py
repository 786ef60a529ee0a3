"""The perceiver resampler: any number of patch features of one history frame -> a fixed number of latents.

Unified-IO 2 (arXiv 2312.17172, sections 3.1 and B.1): learned latents, two layers of cross-attention only, every frame
by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omnimill.training.backbone.blocks import MLP, Attention, Block, Linear, RMSNorm
from omnimill.training.backbone.config import ResamplerConfig

LAYERS = 2


class ResamplerLayer(Block):
    """Latents look at the context, then an MLP; both with pre-norm and residual."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.pre_attention_norm = RMSNorm(config.width)
        self.attention = Attention(config.width, config.heads, config.head_width, config.attention)
        self.pre_mlp_norm = RMSNorm(config.width)
        self.mlp = MLP(config.width, config.mlp)

    def forward(self, latents: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        latents = latents + self.attention(self.pre_attention_norm(latents), context, mask)
        return latents + self.mlp(self.pre_mlp_norm(latents))


class Resampler(Block):
    """Patch features [F, P, features] of F frames -> latents [F, latents, width_out]."""

    def __init__(self, config: ResamplerConfig, features: int, width_out: int) -> None:
        super().__init__()
        self.pre_projection = Linear(features, config.width)
        self.latents = nn.Parameter(torch.empty(config.latents, config.width))
        self.context_norm = RMSNorm(config.width)
        self.layers = nn.ModuleList(ResamplerLayer(config) for _ in range(LAYERS))
        self.norm = RMSNorm(config.width)
        self.post_projection = Linear(config.width, width_out)

    def resample(self, context: Tensor, valid: Tensor) -> Tensor:
        """Projected features [F, P, width], valid bool [F, P] -> normalised latents [F, latents, width]."""
        context = self.context_norm(context)
        latents = self.latents.to(context.dtype).expand(context.shape[0], -1, -1)
        for layer in self.layers:
            latents = layer(latents, context, valid[:, None, None, :])
        return self.norm(latents)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        return self.post_projection(self.resample(self.pre_projection(features), valid))
