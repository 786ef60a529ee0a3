"""The image (ViT) and audio (AST) encoders: a transformer over the patches of one picture or spectrogram.

ViT as in open_clip's ViT-B/16 and AST (arXiv 2104.01778) as Unified-IO 2 uses them (arXiv 2312.17172, section 3.1):
both give the features of their last and of their second layer.

Shape letters: F frames, P patches, w width of the encoder.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnimill.training.backbone.blocks import MLP, Block, Linear, attend, merge_heads, split_heads
from omnimill.training.backbone.config import PatchEncoderConfig

NORM_EPS = {"vit": 1e-5, "ast": 1e-6}
EXTRA_TOKENS = {"vit": 1, "ast": 2}


class PatchLayer(Block):
    """One pre-norm block with biases, as in the published encoders."""

    def __init__(self, config: PatchEncoderConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.ln_1 = nn.LayerNorm(width, eps=NORM_EPS[config.kind])
        self.query = Linear(width, width, bias=True)
        self.key = Linear(width, width, bias=True)
        self.value = Linear(width, width, bias=True)
        self.out = Linear(width, width, bias=True)
        self.ln_2 = nn.LayerNorm(width, eps=NORM_EPS[config.kind])
        self.mlp = MLP(width, config.mlp, bias=True, tanh=config.kind == "ast")

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.ln_1(x)
        q, k, v = (split_heads(part(h), self.heads) for part in (self.query, self.key, self.value))
        x = x + self.out(merge_heads(attend(q, k, v, mask, q.shape[-1] ** -0.5)))
        return x + self.mlp(self.ln_2(x))


class PatchEncoder(nn.Module):
    """Patches with their places on a grid -> features."""

    def __init__(self, config: PatchEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.extra = EXTRA_TOKENS[config.kind]
        rows, columns = config.positions
        self.embedding = Linear(config.patch_values, config.width, bias=config.kind == "ast")
        self.extra_tokens = nn.Parameter(torch.empty(self.extra, config.width))
        self.positions = nn.Parameter(torch.empty(self.extra + rows * columns, config.width))
        self.pre_norm = nn.LayerNorm(config.width, eps=NORM_EPS["vit"]) if config.kind == "vit" else nn.Identity()
        self.layers = nn.ModuleList(PatchLayer(config) for _ in range(config.layers))

    def forward(self, patches: Tensor, index: Tensor, valid: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Features of the last and of the second layer, [F, P, w] each; those of padded patches mean nothing.

        Args:
            patches: [F, P, values]. index: int64 [F, P], row * columns + column on `grid`. valid: bool [F, P].
            grid: (rows, columns) that the index counts on.
        """
        x = self.embedding(patches) + self._positions(index, grid)
        first = (self.extra_tokens + self.positions[: self.extra]).expand(len(x), -1, -1)
        x = self.pre_norm(torch.cat([first.to(x.dtype), x], 1))
        mask = F.pad(valid, (self.extra, 0), value=True)[:, None, None, :]
        second = x
        for number, layer in enumerate(self.layers):
            x = layer(x, mask)
            if number == 1:
                second = x
        return x[:, self.extra :], second[:, self.extra :]

    def _positions(self, index: Tensor, grid: tuple[int, int]) -> Tensor:
        """Rows of the position table for every patch, [F, P, w]."""
        rows, columns = self.config.positions
        table = self.positions[self.extra :]
        if self.config.kind == "ast":
            index = index % grid[1] * grid[0] + index // grid[1]
        elif grid != (rows, columns):
            picture = table.T.reshape(1, -1, rows, columns)
            picture = F.interpolate(picture, grid, mode="bicubic", antialias=True, align_corners=False)
            table = picture.flatten(2)[0].T
        return F.embedding(index, table)
