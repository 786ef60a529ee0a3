"""The parts that every stack is made of: norm, attention, MLPs. Nothing here knows about modalities or packing.

Shape letters: B batch, S query slots, T key slots, H heads, K width of a head, d width of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from omnimill.training.backbone.masks import Mask
from omnimill.training.backbone.rotary import Rotation, rotate

NORM_EPS = 1e-6
COSINE_SCALE_INIT = 10.0
COSINE_SCALE_MAX = 100.0

AttentionNorm = Literal["qk_norm", "scaled_cosine", "none"]


class Block(nn.Module):
    """A module whose call gives one tensor; says so to the type checker."""

    __call__: Callable[..., Tensor]


class Linear(nn.Linear):
    """A linear map, computed in its input's dtype whatever its weights have.

    Its weights stay unset until :func:`omnimill.training.backbone.initialise.initialise`.
    """

    __call__: Callable[..., Tensor]

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__(inputs, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)

    def reset_parameters(self) -> None:
        """Draws nothing: every weight has one generator of its own."""


class Table(nn.Embedding):
    """An embedding table whose rows stay unset until initialised; decoder tables are also the output matrix."""

    __call__: Callable[..., Tensor]

    def reset_parameters(self) -> None:
        """Draws nothing: every weight has one generator of its own."""


class RMSNorm(Block):
    """y = x / sqrt(mean(x²) + eps) * scale over the last dimension, computed in float32.

    Args:
        groups: equal parts of the width that are normalised each by itself.
    """

    def __init__(self, width: int, groups: int = 1) -> None:
        super().__init__()
        self.groups = groups
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if self.groups == 1:
            return F.rms_norm(x.float(), x.shape[-1:], self.scale.float(), NORM_EPS).to(x.dtype)
        parts = x.float().view(*x.shape[:-1], self.groups, -1)
        scale = self.scale.float().view(self.groups, -1)
        return (F.rms_norm(parts, parts.shape[-1:], None, NORM_EPS) * scale).flatten(-2).to(x.dtype)


class HeadNorm(Block):
    """RMS norm over the width of every head, with one scale vector for each of `groups` equal runs of heads."""

    def __init__(self, head_width: int, groups: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(groups, head_width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, S, K] -> [B, H, S, K]."""
        scale = self.scale.float().repeat_interleave(x.shape[1] // len(self.scale), 0)[:, None]
        return (F.rms_norm(x.float(), x.shape[-1:], None, NORM_EPS) * scale).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, scale: float) -> Tensor:
    """Exact attention: softmax(q kᵀ * scale) v over the allowed keys, logits and softmax in float32.

    With a mask of blocks it is flex attention, compiled on a GPU.

    Args:
        q: [B, H, S, K]. k, v: [B, H, T, K].
        mask: bool, broadcastable to [B, H, S, T]; True where a query may look. A query that may look nowhere yields
            zeros.

    Returns:
        [B, H, S, K], of v's dtype.
    """
    if isinstance(mask, BlockMask):
        attention: Any = _compiled_flex_attention() if q.is_cuda else flex_attention
        return cast(Tensor, attention(q, k, v, block_mask=mask, scale=scale))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


@cache
def _compiled_flex_attention() -> Callable[..., Any]:
    return torch.compile(flex_attention)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, S, H * K] -> [B, H, S, K]."""
    return x.view(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, S, K] -> [B, S, H * K]."""
    return x.transpose(1, 2).flatten(2)


class Attention(Block):
    """Multi-head attention without biases.

    Queries and keys are normalised per head before they are rotated (Unified-IO 2, arXiv 2312.17172, section 3.2):
    ``qk_norm`` is an RMS norm over the head's width with one scale vector for all heads; ``scaled_cosine`` is the l2
    norm with a learned temperature per head.

    Args:
        norm_groups: runs of heads that have a scale vector each.
        context_width: of what keys and values are made of; that of the queries' input when None.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        norm: AttentionNorm = "qk_norm",
        *,
        norm_groups: int = 1,
        context_width: int | None = None,
    ) -> None:
        super().__init__()
        inner, context_width = heads * head_width, context_width or width
        self.heads, self.head_width = heads, head_width
        self.query = Linear(width, inner)
        self.key = Linear(context_width, inner)
        self.value = Linear(context_width, inner)
        self.out = Linear(inner, width)
        self.query_norm = _head_norm(head_width, norm, norm_groups)
        self.key_norm = _head_norm(head_width, norm, norm_groups)
        self.logit_scale = nn.Parameter(torch.empty(heads)) if norm == "scaled_cosine" else None

    @property
    def scale(self) -> float:
        """Of the products of queries and keys."""
        return 1.0 if self.logit_scale is not None else float(self.head_width**-0.5)

    def queries(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        """[B, S, d] -> [B, H, S, K], ready to meet the keys (without the factor 1/sqrt(K))."""
        q = split_heads(self.query(x), self.heads)
        if self.query_norm is not None:
            q = self.query_norm(q)
        if self.logit_scale is not None:
            temperature = self.logit_scale.clamp(max=math.log(COSINE_SCALE_MAX)).exp()[:, None, None]
            q = F.normalize(q.float(), dim=-1) * temperature
        return rotate(q, rotation) if rotation is not None else q

    def keys_values(self, context: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor]:
        """[B, T, d] -> keys and values [B, H, T, K]."""
        k = split_heads(self.key(context), self.heads)
        if self.key_norm is not None:
            k = self.key_norm(k)
        if self.logit_scale is not None:
            k = F.normalize(k.float(), dim=-1)
        return (rotate(k, rotation) if rotation is not None else k), split_heads(self.value(context), self.heads)

    def combine(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None) -> Tensor:
        """Attend and project back: -> [B, S, d]."""
        mixed = attend(q.to(v.dtype), k.to(v.dtype), v, mask, self.scale)
        return self.out(merge_heads(mixed))

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        mask: Mask | None,
        q_rotation: Rotation | None = None,
        k_rotation: Rotation | None = None,
    ) -> Tensor:
        """x [B, S, d], context [B, T, d], mask bool broadcastable to [B, H, S, T] -> [B, S, d]."""
        k, v = self.keys_values(context, k_rotation)
        return self.combine(self.queries(x, q_rotation), k, v, mask)


def _head_norm(head_width: int, norm: AttentionNorm, groups: int) -> Block | None:
    if norm != "qk_norm":
        return None
    return RMSNorm(head_width) if groups == 1 else HeadNorm(head_width, groups)


class GatedMLP(Block):
    """(silu(x W0) * x W1) Wo, without biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.wi_0 = Linear(width, hidden)
        self.wi_1 = Linear(width, hidden)
        self.wo = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(F.silu(self.wi_0(x)) * self.wi_1(x))


class MLP(Block):
    """gelu(x Wi) Wo; `tanh` takes the tanh approximation of GELU."""

    def __init__(self, width: int, hidden: int, bias: bool = False, tanh: bool = False) -> None:
        super().__init__()
        self.wi = Linear(width, hidden, bias=bias)
        self.wo = Linear(hidden, width, bias=bias)
        self.approximate: Literal["tanh", "none"] = "tanh" if tanh else "none"

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(F.gelu(self.wi(x), approximate=self.approximate))
