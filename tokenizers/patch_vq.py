"""A quick code network for small data: linear maps of patches, with a small network beside them.

Trains in seconds on a CPU, because it starts where plain vector quantisation of patches ends.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from omnimill.config import Config
from omnimill.tokenizers.code_network import CodeNetwork
from omnimill.tokenizers.convolutions import Double, conv, norm
from omnimill.tokenizers.quantiser import Quantiser
from omnimill.tokens import AudioLayout, ImageLayout

_GROUPS = 32


class ImagePatchesConfig(Config):
    """Shape of the quick picture network.

    stem: side of the pixel blocks that become channels before the first convolution (1: plain convolutions only).
    channels: of the first level; multipliers: of every level, the resolution halves between levels. Together
        ``stem * 2 ** (levels - 1)`` is the layout's code_stride.
    blocks: residual blocks per level. code_width: length of a code. normalised: codes of unit length.
    """

    type: Literal["patches"] = "patches"
    stem: int = 4
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    code_width: int = 16
    normalised: bool = False

    @property
    def stride(self) -> int:
        """Pixels per code and side."""
        return int(self.stem * 2 ** (len(self.multipliers) - 1))


class AudioPatchesConfig(Config):
    """Shape of the quick spectrogram network: `layers` of attention in the encoder, and as many in the decoder."""

    type: Literal["patches"] = "patches"
    width: int = 64
    layers: int = 2
    heads: int = 4
    code_width: int = 16
    normalised: bool = False

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class PatchNetwork(CodeNetwork):
    """Encoder, codebook, decoder. Inputs are [B, channels, height, width], codes int64 [B, rows, columns].

    A linear map of each patch runs beside the encoder, and one beside the decoder. They start at the principal
    components of the training data (:meth:`start`) and the networks at zero, so training begins where plain vector
    quantisation of patches ends.

    Args:
        patch: height and width of the inputs behind one code.
        channels: of the inputs.
        encoder: [B, channels, height, width] to [B, code width, rows, columns].
        quantiser: the codebook.
        decoder: the way back.
    """

    def __init__(
        self, patch: tuple[int, int], channels: int, encoder: nn.Module, quantiser: Quantiser, decoder: nn.Module
    ) -> None:
        super().__init__(quantiser)
        width = quantiser.codebook.shape[1]
        self.analysis = nn.Conv2d(channels, width, patch, stride=patch, bias=False)
        self.synthesis = nn.ConvTranspose2d(width, channels, patch, stride=patch, bias=False)
        self.encoder = encoder
        self.decoder = decoder

    @property
    def last_layer(self) -> Tensor:
        return self.synthesis.weight

    def latent(self, inputs: Tensor) -> Tensor:
        return torch.add(self.analysis(inputs), self.encoder(inputs)).permute(0, 2, 3, 1)

    def output(self, vectors: Tensor) -> Tensor:
        grid = vectors.permute(0, 3, 1, 2)
        return torch.add(self.synthesis(grid), self.decoder(grid))

    @torch.no_grad()
    def start(self, inputs: Tensor) -> None:
        """Start from data: linear maps at the principal components (not centred) of patches, codes by k-means."""
        patch = self.analysis.kernel_size
        patches = F.unfold(inputs, patch, stride=patch).transpose(1, 2).flatten(0, 1).double()
        moments, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        width = min(len(moments), self.analysis.out_channels)
        components = vectors[:, -width:].T.reshape(width, *self.analysis.weight.shape[1:])
        scale = moments[-width:].mean().sqrt() + 1e-6
        self.analysis.weight[:width] = components / scale
        self.synthesis.weight[:width] = components * scale
        super().start(inputs)


def image_patch_network(config: ImagePatchesConfig, layout: ImageLayout) -> PatchNetwork:
    """Network for pictures [B, 3, size, size] in -1..1; what runs beside the linear maps is convolutions."""
    widths = [config.channels * multiplier for multiplier in config.multipliers]
    pixel_channels = 3 * config.stem**2
    down: list[nn.Module] = [nn.PixelUnshuffle(config.stem), conv(pixel_channels, widths[0])]
    up: list[nn.Module] = [conv(config.code_width, widths[-1]), _Residual(widths[-1], widths[-1])]
    for level, width in enumerate(widths):
        before = widths[max(level - 1, 0)]
        down += [conv(before, before, stride=2)] if level else []
        down += [_Residual(before if i == 0 else width, width) for i in range(config.blocks)]
    for level, width in reversed(list(enumerate(widths))):
        after = widths[min(level + 1, len(widths) - 1)]
        up += [_Residual(after if i == 0 else width, width) for i in range(config.blocks)]
        up += [Double(width)] if level else []
    down += [_Residual(widths[-1], widths[-1]), *_end(widths[-1], config.code_width)]
    up += [*_end(widths[0], pixel_channels), nn.PixelShuffle(config.stem)]
    quantiser = Quantiser(layout.codes, config.code_width, config.normalised)
    patch = (layout.code_stride, layout.code_stride)
    return PatchNetwork(patch, 3, nn.Sequential(*down), quantiser, nn.Sequential(*up))


def audio_patch_network(config: AudioPatchesConfig, layout: AudioLayout) -> PatchNetwork:
    """Network for log-mel [B, 1, frames, mels]; what runs beside the linear maps is a small transformer."""
    grid, patch = layout.target_grid, layout.code_patch
    values = patch[0] * patch[1]
    encoder = nn.Sequential(_Patches(patch), _Transformer(values, config.code_width, config, grid), _ToGrid(grid))
    decoder = nn.Sequential(
        _FromGrid(), _Transformer(config.code_width, values, config, grid), _FromPatches(patch, grid)
    )
    return PatchNetwork(patch, 1, encoder, Quantiser(layout.codes, config.code_width, config.normalised), decoder)


def _end(width: int, after: int) -> list[nn.Module]:
    """Norm, activation and a convolution that starts at zero."""
    return [norm(width, _GROUPS), nn.SiLU(), _zeroed(conv(width, after))]


def _zeroed(module: nn.Conv2d | nn.Linear) -> nn.Module:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class _Residual(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            norm(before, _GROUPS), nn.SiLU(), conv(before, after), norm(after, _GROUPS), nn.SiLU(), conv(after, after)
        )
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.add(self.skip(inputs), self.body(inputs))


class _Transformer(nn.Module):
    """Pre-norm attention layers over the cells of a grid, with learned row and column positions: [B, cells, values]."""

    def __init__(self, before: int, after: int, config: AudioPatchesConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.enter = nn.Linear(before, config.width)
        self.rows = nn.Parameter(torch.randn(grid[0], 1, config.width) * 0.02)
        self.columns = nn.Parameter(torch.randn(1, grid[1], config.width) * 0.02)
        self.layers = nn.ModuleList(_Layer(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.leave = _zeroed(nn.Linear(config.width, after))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.enter(inputs) + (self.rows + self.columns).flatten(0, 1)
        for layer in self.layers:
            hidden = layer(hidden)
        result: Tensor = self.leave(self.norm(hidden))
        return result


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        batch, cells, width = inputs.shape
        qkv = self.qkv(self.first(inputs)).view(batch, cells, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, cells, width)
        hidden: Tensor = inputs + self.out(mixed)
        return torch.add(hidden, self.mlp(hidden))


class _Patches(nn.Module):
    """[B, 1, T, M] to [B, cells, values of a patch]."""

    def __init__(self, patch: tuple[int, int]) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, inputs: Tensor) -> Tensor:
        return F.unfold(inputs, self.patch, stride=self.patch).transpose(1, 2)


class _FromPatches(nn.Module):
    """Inverse of :class:`_Patches`."""

    def __init__(self, patch: tuple[int, int], grid: tuple[int, int]) -> None:
        super().__init__()
        self.patch = patch
        self.size = (grid[0] * patch[0], grid[1] * patch[1])

    def forward(self, inputs: Tensor) -> Tensor:
        return F.fold(inputs.transpose(1, 2), self.size, self.patch, stride=self.patch)


class _ToGrid(nn.Module):
    """[B, cells, C] to [B, C, rows, columns]."""

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, inputs: Tensor) -> Tensor:
        batch, _, width = inputs.shape
        return inputs.transpose(1, 2).reshape(batch, width, *self.grid)


class _FromGrid(nn.Module):
    """[B, C, rows, columns] to [B, cells, C]."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(2).transpose(1, 2)
