"""ViT-VQGAN: the transformer code network for sound (Yu et al. 2022, arXiv 2110.04627).

The defaults are the network of Unified-IO 2 (arXiv 2312.17172): 8 x 8 patches of a log-mel spectrogram, 8,192 codes of
32 numbers and unit length. Inside, as in the reference, a spectrogram is a picture with the mel bands as rows and time
as columns; what goes in and comes out is time-major.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from omnimill.config import Config
from omnimill.tokenizers.code_network import CodeNetwork
from omnimill.tokenizers.quantiser import Quantiser
from omnimill.tokens import AudioLayout

# Of every normalisation (Flax' default, which the reference was trained with).
_EPSILON = 1e-6
_BASE = 10000.0


class VitVqganConfig(Config):
    """Shape of the network; the defaults are the reference's, 50.8 million parameters.

    width: of the transformers; layers: of the encoder, and as many of the decoder. heads, head_width: of attention.
    hidden: width inside the layers' perceptrons. code_width: length of a code.
    """

    type: Literal["vit_vqgan"] = "vit_vqgan"
    width: int = Field(default=512, ge=4)
    layers: int = Field(default=8, ge=1)
    heads: int = Field(default=8, ge=1)
    head_width: int = Field(default=64, ge=1)
    hidden: int = Field(default=2048, ge=1)
    code_width: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4 (sine and cosine of two coordinates), found {self.width}")
        return self


class VitVqgan(CodeNetwork):
    """The spectrogram network: [B, 1, frames, mels], normalised log-mel."""

    def __init__(self, config: VitVqganConfig, layout: AudioLayout) -> None:
        super().__init__(Quantiser(layout.codes, config.code_width, normalised=True))
        times, mels = layout.target_grid
        time_side, mel_side = layout.code_patch
        self.grid = (mels, times)
        self.patch = (mel_side, time_side)
        self.encoder = _Encoder(config, self.grid, mel_side * time_side)
        self.decoder = _Decoder(config, self.grid, self.patch)

    @property
    def last_layer(self) -> Tensor:
        return self.decoder.conv_transpose.weight

    def latent(self, inputs: Tensor) -> Tensor:
        (rows, columns), (height, width) = self.grid, self.patch
        batch = len(inputs)
        cut = inputs[:, 0].transpose(1, 2).reshape(batch, rows, height, columns, width).transpose(2, 3)
        vectors: Tensor = self.encoder(cut.reshape(batch, rows * columns, height * width))
        return vectors.view(batch, rows, columns, -1).transpose(1, 2)

    def output(self, vectors: Tensor) -> Tensor:
        result: Tensor = self.decoder(vectors.transpose(1, 2).flatten(1, 2))
        return result.transpose(2, 3)


def sincos_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Position vectors of a grid's cells in raster order: float32 [rows * columns, width].

    The first half of a vector is of the column, the second of the row; each half holds the sines, then the cosines, of
    the coordinate times ``10000 ** (-i / (width / 4))``.
    """
    rates = _BASE ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = (torch.outer(torch.arange(side, dtype=torch.float64), rates) for side in grid)
    row, column = (torch.cat([angles.sin(), angles.cos()], 1) for angles in (rows, columns))
    both = [column[None].expand(grid[0], -1, -1), row[:, None].expand(-1, grid[1], -1)]
    return torch.cat(both, 2).flatten(0, 1).float()


class _Encoder(nn.Module):
    """Patches [B, cells, values] to vectors [B, cells, code width]."""

    positions: Tensor

    def __init__(self, config: VitVqganConfig, grid: tuple[int, int], values: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(values, config.width)
        self.register_buffer("positions", sincos_positions(grid, config.width), persistent=False)
        self.transformer = _Transformer(config)
        self.encoder_proj = nn.Linear(config.width, config.code_width, bias=False)
        self.encoder_norm = _Shifted(config.code_width)

    def forward(self, patches: Tensor) -> Tensor:
        hidden = self.transformer(self.embedding(patches) + self.positions)
        result: Tensor = self.encoder_norm(self.encoder_proj(F.relu(hidden)))
        return result


class _Decoder(nn.Module):
    """Vectors [B, cells, code width] to [B, 1, height, width]."""

    positions: Tensor

    def __init__(self, config: VitVqganConfig, grid: tuple[int, int], patch: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.decoder_proj = nn.Linear(config.code_width, config.width, bias=False)
        self.register_buffer("positions", sincos_positions(grid, config.width), persistent=False)
        self.transformer = _Transformer(config)
        self.conv_transpose = nn.ConvTranspose2d(config.width, 1, patch, stride=patch, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        hidden = self.transformer(self.decoder_proj(vectors) + self.positions)
        result: Tensor = self.conv_transpose(hidden.transpose(1, 2).unflatten(2, self.grid))
        return result


class _Transformer(nn.Module):
    def __init__(self, config: VitVqganConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.encoder_norm = nn.LayerNorm(config.width, eps=_EPSILON)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        for layer in self.layers:
            hidden = layer(hidden)
        result: Tensor = self.encoder_norm(hidden)
        return result


class _Layer(nn.Module):
    def __init__(self, config: VitVqganConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=_EPSILON)
        self.attn = _Attention(config)
        self.ln_2 = nn.LayerNorm(config.width, eps=_EPSILON)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(config.width, config.hidden), "fc2": nn.Linear(config.hidden, config.width)}
        )

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = inputs + self.attn(self.ln_1(inputs))
        return torch.add(hidden, self.mlp["fc2"](F.relu(self.mlp["fc1"](self.ln_2(hidden)))))


class _Attention(nn.Module):
    def __init__(self, config: VitVqganConfig) -> None:
        super().__init__()
        self.heads = config.heads
        inner = config.heads * config.head_width
        self.query, self.key, self.value = (nn.Linear(config.width, inner, bias=False) for _ in range(3))
        self.out = nn.Linear(inner, config.width, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        query, key, value = (
            module(inputs).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for module in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        result: Tensor = self.out(mixed)
        return result


class _Shifted(nn.Module):
    """Layer normalisation with a bias and no scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, inputs: Tensor) -> Tensor:
        return F.layer_norm(inputs, self.bias.shape, eps=_EPSILON) + self.bias
