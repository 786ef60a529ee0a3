"""VQGAN: the convolutional code network for pictures (Esser, Rombach and Ommer 2021, arXiv 2012.09841).

The defaults are the network of Unified-IO 2: taming-transformers' for Open Images, 16,384 codes of 4 numbers for
8 x 8 pixels each. Modules are named as in taming-transformers, levels of the decoder in the order in which they run.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from omnimill.config import Config
from omnimill.tokenizers.code_network import CodeNetwork
from omnimill.tokenizers.convolutions import Double, conv, norm
from omnimill.tokenizers.quantiser import Quantiser
from omnimill.tokens import ImageLayout


class VqganConfig(Config):
    """Shape of the network; the defaults are the reference's, 67.7 million parameters.

    channels: of the first level; multipliers: of every level, the resolution halves between levels. So
        ``2 ** (levels - 1)`` is the layout's code_stride.
    blocks: residual blocks per level of the encoder; the decoder has one more.
    attention_sides: levels whose feature maps have one of these sides attend to themselves after every block.
    code_width: length of a code.
    norm_groups: groups of the group norms; as many as divide the channels, when these are fewer. A norm over one
        channel alone forgets brightness and contrast: give networks of less than 128 channels fewer groups.
    """

    type: Literal["vqgan"] = "vqgan"
    channels: int = Field(default=128, ge=1)
    multipliers: tuple[int, ...] = Field(default=(1, 2, 2, 4), min_length=1)
    blocks: int = Field(default=2, ge=1)
    attention_sides: tuple[int, ...] = (32,)
    code_width: int = Field(default=4, ge=1)
    norm_groups: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if min(self.multipliers) < 1:
            raise ValueError(f"multipliers must be 1 or more, found {list(self.multipliers)}")
        return self

    @property
    def stride(self) -> int:
        """Pixels per code and side."""
        return int(2 ** (len(self.multipliers) - 1))


class Vqgan(CodeNetwork):
    """The picture network: [B, 3, size, size] in -1..1.

    It is convolutional, so it takes pictures of other sizes too; which levels attend is settled by the layout's.
    """

    def __init__(self, config: VqganConfig, layout: ImageLayout) -> None:
        super().__init__(Quantiser(layout.codes, config.code_width, normalised=False))
        self.encoder = _Encoder(config, layout.target_size)
        self.quant_conv = nn.Conv2d(config.code_width, config.code_width, 1)
        self.post_quant_conv = nn.Conv2d(config.code_width, config.code_width, 1)
        self.decoder = _Decoder(config, layout.target_size)

    @property
    def last_layer(self) -> Tensor:
        return self.decoder.conv_out.weight

    def latent(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.quant_conv(self.encoder(inputs))
        return result.permute(0, 2, 3, 1)

    def output(self, vectors: Tensor) -> Tensor:
        result: Tensor = self.decoder(self.post_quant_conv(vectors.permute(0, 3, 1, 2)))
        return result


class _Encoder(nn.Module):
    """[B, 3, size, size] to [B, code width, size / stride, size / stride]."""

    def __init__(self, config: VqganConfig, size: int) -> None:
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        self.conv_in = conv(3, config.channels)
        self.down = nn.ModuleList()
        before = config.channels
        for level, width in enumerate(widths):
            attends = size >> level in config.attention_sides
            self.down.append(_Level(before, width, config.blocks, attends, config.norm_groups))
            if level < len(widths) - 1:
                self.down[level].add_module("downsample", _Halve(width))
            before = width
        self.mid = _Middle(before, config.norm_groups)
        self.norm_out = norm(before, config.norm_groups)
        self.conv_out = conv(before, config.code_width)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.conv_in(inputs)
        for level in self.down:
            hidden = level(hidden)
        result: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(hidden))))
        return result


class _Decoder(nn.Module):
    """The way back."""

    def __init__(self, config: VqganConfig, size: int) -> None:
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        before = widths[-1]
        self.conv_in = conv(config.code_width, before)
        self.mid = _Middle(before, config.norm_groups)
        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            attends = size >> level in config.attention_sides
            self.up.append(_Level(before, width, config.blocks + 1, attends, config.norm_groups))
            if level:
                self.up[-1].add_module("upsample", Double(width))
            before = width
        self.norm_out = norm(before, config.norm_groups)
        self.conv_out = conv(before, 3)

    def forward(self, vectors: Tensor) -> Tensor:
        hidden = self.mid(self.conv_in(vectors))
        for level in self.up:
            hidden = level(hidden)
        result: Tensor = self.conv_out(F.silu(self.norm_out(hidden)))
        return result


class _Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention where the level has it, then a change of size."""

    def __init__(self, before: int, width: int, blocks: int, attends: bool, groups: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(_Residual(before if i == 0 else width, width, groups) for i in range(blocks))
        self.attn = nn.ModuleList(_Attention(width, groups) for _ in range(blocks if attends else 0))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        for i, block in enumerate(self.block):
            hidden = block(hidden)
            if len(self.attn):
                hidden = self.attn[i](hidden)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                hidden = getattr(self, name)(hidden)
        return hidden


class _Middle(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.block_1 = _Residual(width, width, groups)
        self.attn_1 = _Attention(width, groups)
        self.block_2 = _Residual(width, width, groups)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.block_2(self.attn_1(self.block_1(inputs)))
        return result


class _Residual(nn.Module):
    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(before, groups), conv(before, after)
        self.norm2, self.conv2 = norm(after, groups), conv(after, after)
        self.nin_shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(inputs)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return torch.add(self.nin_shortcut(inputs), hidden)


class _Attention(nn.Module):
    """Every place of the map attends to every other, with one head as wide as the map has channels."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = norm(width, groups)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(inputs)
        query, key, value = (module(hidden).flatten(2).transpose(1, 2)[:, None] for module in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(query, key, value)[:, 0].transpose(1, 2)
        return torch.add(inputs, self.proj_out(mixed.reshape(inputs.shape)))


class _Halve(nn.Module):
    """Half the resolution; the convolution sees a row and a column of zeros on the right and at the bottom only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.conv(F.pad(inputs, (0, 1, 0, 1)))
        return result
