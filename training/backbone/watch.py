"""The largest attention logits of a pass: they grow before a training falls apart (arXiv 2302.05442, section 2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from omnimill.training.backbone.blocks import Attention
from omnimill.training.backbone.build import AnyBackbone
from omnimill.training.backbone.masks import Mask, in_full
from omnimill.training.backbone.model import Backbone

# The groups of layers, by the beginnings and ends of their attentions' names.
_GROUPS = {
    "encoder": ("encoder_layers", "attention"),
    "decoder": ("decoder_layers", "self_attention"),
    "cross": ("decoder_layers", "cross_attention"),
    "image_history": ("inputs.image_resampler", "attention"),
    "audio_history": ("inputs.audio_resampler", "attention"),
}
_SEQUENCE_GROUPS = {"cross": ("links_", "attention"), "decoder": ("", "attention")}


def groups_of(backbone: AnyBackbone) -> dict[str, tuple[str, str]]:
    """The groups of a backbone's layers, by the beginnings and ends of their attentions' names; the first that fits
    holds."""
    return _GROUPS if isinstance(backbone, Backbone) else _SEQUENCE_GROUPS


@contextmanager
def watch_attention(backbone: AnyBackbone) -> Iterator[dict[str, Tensor]]:
    """Keep the maxima of all passes of a ``with`` block: of every group of layers that ran, float32 [], over the pairs
    that the masks allow. Costs the memory of one layer's logits."""
    maxima: dict[str, Tensor] = {}
    watched, groups = [], groups_of(backbone)
    for name, module in backbone.named_modules():
        if isinstance(module, Attention):
            group = next(
                group for group, (head, tail) in groups.items() if name.startswith(head) and name.endswith(tail)
            )
            module.combine = partial(_combine, module, maxima, group)  # type: ignore[method-assign]
            watched.append(module)
    try:
        yield maxima
    finally:
        for module in watched:
            del module.combine


def _combine(
    module: Attention, maxima: dict[str, Tensor], group: str, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None
) -> Tensor:
    logits = q.float() @ k.float().transpose(-1, -2) * module.scale
    if mask is not None:
        logits = logits.masked_fill(~in_full(mask), -torch.inf)
    found = logits.amax()
    maxima[group] = torch.maximum(maxima[group], found) if group in maxima else found
    return Attention.combine(module, q, k, v, mask)
