"""What training a code network minimises, besides the distance of its vectors from their codes.

Weights and schedule default to the published settings of Unified-IO 2's audio ViT-VQGAN: codebook 1, reconstruction 1,
perceptual 0.1, adversarial 0.1 from step 100,000. Its codebook learns by gradient; here it follows moving averages, so
of the codebook's loss the commitment alone remains, 0.25 of it (van den Oord et al. 2017, arXiv 1711.00937, eq. 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from omnimill.config import Config
from omnimill.tokenizers.networks import CodeNetwork
from omnimill.tokenizers.perceptual import PerceptualLoss, read_weights

# Least gradient of the adversarial loss, and largest weight, of Esser et al. 2021 (arXiv 2012.09841, eq. 7, and its
# released code).
_LEAST_GRADIENT = 1e-4
_MOST_WEIGHT = 1e4


class PerceptualConfig(Config):
    """Distance of features (Zhang et al. 2018, arXiv 1801.03924) of VGG16.

    weights: files that together hold VGG16's convolutions, and LPIPS' linear layers if these are wanted; .safetensors,
        or .pt and .pth without pickled code.
    """

    weights: tuple[str, ...] = Field(min_length=1)
    weight: float = Field(default=0.1, ge=0)


class AdversarialConfig(Config):
    """A discriminator of patches (Isola et al. 2017, arXiv 1611.07004) with hinge loss.

    weight: times the adaptive one, see :func:`adaptive_weight`. from_step: before it there is no discriminator.
    learning_rate: of the discriminator. channels: of its first convolution. layers: that halve the resolution.
    """

    weight: float = Field(default=0.1, ge=0)
    from_step: int = Field(default=100_000, ge=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    channels: int = Field(default=64, ge=1)
    layers: int = Field(default=3, ge=1)


class LossConfig(Config):
    """Weights of the losses. error: l2 (mean square) or l1 (mean absolute) between inputs and outputs."""

    error: Literal["l2", "l1"] = "l2"
    reconstruction: float = Field(default=1.0, gt=0)
    commitment: float = Field(default=0.25, ge=0)
    perceptual: PerceptualConfig | None = None
    adversarial: AdversarialConfig = AdversarialConfig()


@dataclass(frozen=True)
class Losses:
    """Of one batch. total: to be minimised; parts: scalars to be told, not weighted."""

    total: Tensor
    parts: dict[str, Tensor]


class NetworkLoss:
    """The loss of a code network.

    Args:
        config: weights.
        device: that the perceptual network runs on.

    Raises:
        ConfigError: a file of perceptual weights is missing or not what it should be.
    """

    def __init__(self, config: LossConfig, device: torch.device) -> None:
        self._config = config
        self._perceptual: PerceptualLoss | None = None
        if config.perceptual is not None:
            self._perceptual = PerceptualLoss(read_weights(config.perceptual.weights)).to(device)

    def __call__(
        self,
        network: CodeNetwork,
        inputs: Tensor,
        outputs: Tensor,
        commitment: Tensor,
        discriminator: nn.Module | None = None,
    ) -> Losses:
        """Losses of a batch.

        Args:
            network: not wrapped; of it the last layer's weight is looked at.
            inputs: what it was shown.
            outputs: what it made of them, of the same shape.
            commitment: see :class:`CodeNetwork`.
            discriminator: when it is switched on.
        """
        config = self._config
        outputs = outputs.float()
        error = F.mse_loss(outputs, inputs) if config.error == "l2" else F.l1_loss(outputs, inputs)
        parts = {"error": error, "commitment": commitment}
        likeness = config.reconstruction * error
        if self._perceptual is not None and config.perceptual is not None:
            parts["perceptual"] = self._perceptual(inputs, outputs)
            likeness = likeness + config.perceptual.weight * parts["perceptual"]
        total = likeness + config.commitment * commitment
        if discriminator is not None:
            parts["adversarial"] = -judged(discriminator, outputs).mean()
            parts["adaptive_weight"] = adaptive_weight(likeness, parts["adversarial"], network.last_layer)
            total = total + config.adversarial.weight * parts["adaptive_weight"] * parts["adversarial"]
        return Losses(total, {name: part.detach() for name, part in parts.items()})


def judged(discriminator: nn.Module, pictures: Tensor) -> Tensor:
    """What a discriminator says; gradients reach the pictures and not its parameters."""
    fixed = {name: value.detach() for name, value in discriminator.named_parameters()}
    verdict: Tensor = functional_call(discriminator, fixed, (pictures,))
    return verdict.float()


def adaptive_weight(likeness: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """How much weight makes both losses pull at the last layer with the same force (Esser et al. 2021, eq. 7).

    In a process group the gradients are those of the whole batch, so that the weight is the same on all workers.
    """
    (of_likeness,) = torch.autograd.grad(likeness, last_layer, retain_graph=True)
    (of_adversarial,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    both = torch.stack([of_likeness.flatten(), of_adversarial.flatten()])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(both)
        both /= torch.distributed.get_world_size()
    pull, push = both.norm(dim=1)
    weight: Tensor = (pull / (push + _LEAST_GRADIENT)).clamp(0.0, _MOST_WEIGHT)
    return weight.detach()


def hinge_loss(real: Tensor, made: Tensor) -> Tensor:
    """What a discriminator minimises, from its verdicts on real and on made pictures (Lim and Ye 2017)."""
    return (F.relu(1.0 - real).mean() + F.relu(1.0 + made).mean()) / 2.0


def discriminator_loss(discriminator: nn.Module, inputs: Tensor, outputs: Tensor) -> Tensor:
    """Hinge loss of a discriminator that is shown inputs, and outputs without their gradients."""
    # In one call: wrapped for several workers, a module expects one backward pass for every call.
    verdicts = discriminator(torch.cat([inputs, outputs.detach().to(inputs.dtype)])).float()
    real, made = verdicts.chunk(2)
    return hinge_loss(real, made)


def patch_discriminator(config: AdversarialConfig, channels: int) -> nn.Sequential:
    """Convolutions of 4 x 4 that judge overlapping patches: [B, channels, H, W] to [B, 1, h, w].

    Group norms stand where the published one has batch norms, so that a verdict does not depend on the other pictures
    of the batch nor on how it is spread over workers.
    """
    width = config.channels
    parts: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    for layer in range(1, config.layers + 1):
        after = config.channels * min(2**layer, 8)
        stride = 2 if layer < config.layers else 1
        parts += [nn.Conv2d(width, after, 4, stride=stride, padding=1, bias=False)]
        parts += [nn.GroupNorm(_groups(after), after), nn.LeakyReLU(0.2)]
        width = after
    parts.append(nn.Conv2d(width, 1, 4, stride=1, padding=1))
    network = nn.Sequential(*parts)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def _groups(channels: int) -> int:
    return next(groups for groups in (32, 16, 8, 4, 2, 1) if channels % groups == 0)
