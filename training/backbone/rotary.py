"""Rotary positions (arXiv 2104.09864) in one dimension, and in two as in Unified-IO 2 (arXiv 2312.17172, section 3.2).

A head's values are taken as interleaved pairs (0, 1), (2, 3), …; pair i of a position p is turned by the angle
p * base^(-2i / width). In 2-D the first half of the head is turned by the first coordinate, the second by the second.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BASE = 10_000.0


class Rotation(NamedTuple):
    """Cosine and sine of every pair's angle: float32 [B, S, K / 2] each."""

    cos: Tensor
    sin: Tensor


def frequencies(width: int, device: torch.device) -> Tensor:
    """float32 [width / 2]: the angle per unit of position of every pair of `width` values."""
    return BASE ** (-torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)


def rotation(position: Tensor, flat: Tensor, head_width: int) -> Rotation:
    """Angles of a sequence that mixes 1-D and 2-D streams.

    Args:
        position: float32 [B, S, 2].
        flat: bool [B, S]; True where the position is 1-D: its first coordinate turns the whole head.
        head_width: a multiple of 4.
    """
    first, second = position[..., :1], position[..., 1:]
    half = frequencies(head_width // 2, position.device)
    line = first * frequencies(head_width, position.device)
    plane = torch.cat([first * half, second * half], -1)
    angle = torch.where(flat[..., None], line, plane)
    return Rotation(angle.cos(), angle.sin())


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn queries or keys [B, H, S, K]; computed in float32, returned in x's dtype."""
    cos, sin = (part[:, None] for part in rotation)
    even, odd = x.float().view(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).to(x.dtype)
