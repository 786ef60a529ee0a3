"""Initial weights: every tensor is drawn by a generator of its own, keyed by the seed and the tensor's name.

So a weight depends neither on the order of construction nor on what else the model holds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from omnimill.rng import digest64
from omnimill.training.backbone.blocks import COSINE_SCALE_INIT, HeadNorm, RMSNorm, Table

VECTOR_STD = 0.02


def initialise(model: nn.Module, seed: int) -> None:
    """Set every parameter of `model` in place; on the meta device there is nothing to set.

    Tables N(0, 1); linear weights N(0, 1 / inputs), biases 0; norms 1 (and 0); modality vectors, positions, latents and
    other learned tokens N(0, 0.02²); the cosine temperature ln 10; gates 0.
    """
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                continue
            with torch.no_grad():
                _fill(parameter, module, name, torch.Generator().manual_seed(_key(seed, f"{path}.{name}")))


def _fill(parameter: Tensor, module: nn.Module, name: str, generator: torch.Generator) -> None:
    if isinstance(module, RMSNorm | HeadNorm | nn.LayerNorm):
        parameter.fill_(0.0 if name == "bias" else 1.0)
    elif name in ("bias", "gate"):
        parameter.zero_()
    elif name == "logit_scale":
        parameter.fill_(math.log(COSINE_SCALE_INIT))
    elif isinstance(module, Table):
        parameter.normal_(0.0, 1.0, generator=generator)
    elif isinstance(module, nn.Linear):
        parameter.normal_(0.0, module.in_features**-0.5, generator=generator)
    else:
        parameter.normal_(0.0, VECTOR_STD, generator=generator)


def _key(seed: int, name: str) -> int:
    """A seed that torch accepts (63 bits)."""
    return digest64("init", seed, name) >> 1
