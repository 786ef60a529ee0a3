"""Pieces that convolutional code networks share."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


def norm(channels: int, groups: int) -> nn.GroupNorm:
    """Group norm, with fewer groups where `channels` cannot be divided into as many."""
    return nn.GroupNorm(math.gcd(groups, channels), channels, eps=1e-6)


def conv(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    """3 x 3 convolution that keeps the size at stride 1."""
    return nn.Conv2d(before, after, 3, stride, padding=1)


class Double(nn.Module):
    """Twice the resolution: nearest neighbour, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv(width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.conv(F.interpolate(inputs, scale_factor=2.0))
        return result
