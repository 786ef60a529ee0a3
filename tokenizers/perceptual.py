"""Distance of pictures by what VGG16 sees in them (LPIPS: Zhang et al. 2018, arXiv 1801.03924). Weights are the user's.

Features are those after the last rectifier of every resolution (relu1_2, relu2_2, relu3_3, relu4_3, relu5_3). At every
place they are scaled to unit length; squared differences are summed over the channels by LPIPS' linear layers, or
averaged where none are given, averaged over the places and added up over the resolutions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnimill.errors import ConfigError, OmnimillError
from omnimill.tokenizers.checkpoints import open_checkpoint

# Numbers of VGG16's convolutions among torchvision's `features`, by resolution (Simonyan and Zisserman 2014, D).
CONVOLUTIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
# Statistics of ImageNet's pixels for values in -1..1 (the released code of LPIPS).
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)

_EXPECTED = (
    "expected are the convolutions of VGG16 under torchvision's names (features.0.weight, features.0.bias, … "
    "features.28.bias, as in vgg16-397923af.pth) and, if LPIPS' linear layers are wanted, all of lin0.model.1.weight "
    "… lin4.model.1.weight (as in LPIPS' vgg.pth); as safetensors, or in PyTorch's format with tensors only"
)


@dataclass(frozen=True)
class VggWeights:
    """convolutions: weight and bias by resolution. heads: weights of the channels [C] by resolution, or none at all."""

    convolutions: tuple[tuple[tuple[Tensor, Tensor], ...], ...]
    heads: tuple[Tensor, ...]


def read_weights(paths: Sequence[str]) -> VggWeights:
    """The tensors of some files.

    Raises:
        ConfigError: a file is missing or unreadable, or they do not hold what is expected; says what that is.
    """
    found: dict[str, Tensor] = {}
    for path in paths:
        found.update(_read(path))
    names = [f"features.{number}.{kind}" for block in CONVOLUTIONS for number in block for kind in ("weight", "bias")]
    missing = [name for name in names if name not in found]
    if missing:
        raise ConfigError(f"perceptual.weights {', '.join(paths)}: no tensor {', '.join(missing)}; {_EXPECTED}")
    heads = [f"lin{i}.model.1.weight" for i in range(len(CONVOLUTIONS))]
    present = [name for name in heads if name in found]
    if present and len(present) < len(heads):
        raise ConfigError(f"perceptual.weights {', '.join(paths)}: of the linear layers only {present}; {_EXPECTED}")
    convolutions = tuple(
        tuple((found[f"features.{n}.weight"].float(), found[f"features.{n}.bias"].float()) for n in block)
        for block in CONVOLUTIONS
    )
    _check(convolutions, [found[name] for name in present], paths)
    return VggWeights(convolutions, tuple(found[name].float().flatten() for name in present))


def weights_digests(paths: Sequence[str]) -> list[str]:
    """Digest of each file's content: what decides the loss, wherever they lie.

    Raises:
        ConfigError: a file is missing or unreadable.
    """
    digests = []
    for path in paths:
        with _explained(), open_checkpoint(path) as checkpoint:
            digests.append(checkpoint.digest(checkpoint.names))
    return digests


def _read(path: str) -> Mapping[str, Tensor]:
    with _explained(), open_checkpoint(path) as checkpoint:
        return checkpoint.read(checkpoint.names)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OmnimillError as error:
        raise ConfigError(f"perceptual.weights: {error}; {_EXPECTED}") from None


def _check(
    convolutions: tuple[tuple[tuple[Tensor, Tensor], ...], ...], heads: Sequence[Tensor], paths: Sequence[str]
) -> None:
    """Each convolution takes what the one before it gives, and each head weighs its resolution's channels."""
    before = 3
    for block, numbers in zip(convolutions, CONVOLUTIONS, strict=True):
        for (weight, bias), number in zip(block, numbers, strict=True):
            if weight.shape != (len(bias), before, 3, 3):
                raise ConfigError(
                    f"perceptual.weights {', '.join(paths)}: features.{number}.weight has the shape "
                    f"{list(weight.shape)} beside {before} channels before it and a bias of {list(bias.shape)}; "
                    f"{_EXPECTED}"
                )
            before = len(bias)
    for i, (block, head) in enumerate(zip(convolutions, heads, strict=False)):
        if head.numel() != len(block[-1][1]):
            raise ConfigError(
                f"perceptual.weights {', '.join(paths)}: lin{i}.model.1.weight has {head.numel()} numbers for "
                f"{len(block[-1][1])} channels; {_EXPECTED}"
            )


class PerceptualLoss(nn.Module):
    """Mean distance of two batches [B, 3, H, W] in -1..1; of one channel (spectrograms) it is shown as grey."""

    def __init__(self, weights: VggWeights) -> None:
        super().__init__()
        self._blocks: list[list[tuple[str, str]]] = []
        for i, block in enumerate(weights.convolutions):
            self._blocks.append([(f"weight_{i}_{j}", f"bias_{i}_{j}") for j in range(len(block))])
            for (weight, bias), names in zip(block, self._blocks[-1], strict=True):
                self.register_buffer(names[0], weight)
                self.register_buffer(names[1], bias)
        for i, block in enumerate(weights.convolutions):
            channels = len(block[-1][1])
            even = torch.full((channels,), 1.0 / channels)
            self.register_buffer(f"head_{i}", weights.heads[i] if weights.heads else even)
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None])

    def forward(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Scalar."""
        first, second = self._features(inputs), self._features(outputs)
        total = inputs.new_zeros(())
        for i, (one, other) in enumerate(zip(first, second, strict=True)):
            squares = (one - other).square() * self.get_buffer(f"head_{i}")[:, None, None]
            total = total + squares.sum(1).mean()
        return total

    def _features(self, pictures: Tensor) -> list[Tensor]:
        """Features of every resolution, of unit length at every place."""
        hidden = (pictures.expand(-1, 3, -1, -1) - self.get_buffer("shift")) / self.get_buffer("scale")
        found = []
        for i, block in enumerate(self._blocks):
            hidden = F.max_pool2d(hidden, 2) if i else hidden
            for weight, bias in block:
                hidden = F.relu(F.conv2d(hidden, self.get_buffer(weight), self.get_buffer(bias), padding=1))
            found.append(F.normalize(hidden, dim=1, eps=1e-10))
        return found
