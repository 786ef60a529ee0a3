"""JAM-Width: two decoders of one shape side by side in one of twice the width."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.merging.plan import MERGES, Made, Make, MergePlan, Parent, check_same_shapes, decoders, shapes_of
from omnimill.training.merging.settings import WidthMerge

_BLOCKS = {"blockdiag": "[A 0; 0 B]", "duplicate": "[A A; B B]", "avg_offdiag": "[A M; M B], M = (A + B) / 2"}


@MERGES.register("width")
def width(parents: Sequence[Parent], settings: WidthMerge) -> MergePlan:
    """Tables, positions and output are joined along the width; matrices become blocks.

    The logits' scale stays the parents', so that with ``blockdiag`` and ``grouped`` the logits are the sum of theirs.
    """
    first, _ = decoders(parents, 2)
    check_same_shapes(parents)
    double = {name: 2 * getattr(first, name) for name in ("width", "heads", "mlp", "head_groups")}
    groups = 2 * first.norm_groups if settings.norm == "grouped" else 1
    merged = DecoderConfig.model_validate(
        {**first.model_dump(), **double, "norm_groups": groups, "logit_scale": first.scale}
    )
    return MergePlan(merged, tuple(_made(name, shape, settings) for name, shape in shapes_of(merged).items()))


def _made(name: str, shape: tuple[int, ...], settings: WidthMerge) -> Made:
    rule, make = _rule(name, shape, settings)
    return Made(name, shape, ((0, name), (1, name)), rule, make)


def _rule(name: str, shape: tuple[int, ...], settings: WidthMerge) -> tuple[str, Make]:
    module = name.split(".")[-2]
    if module in ("table", "position_table", "head"):
        return "[A | B]", lambda tensors: torch.cat(list(tensors), -1)
    if module in ("query_norm", "key_norm"):
        # A scale vector for each parent's heads.
        return "A; B", lambda tensors: torch.cat([tensor.view(-1, shape[-1]) for tensor in tensors])
    if len(shape) == 1:
        return "[A | B]", lambda tensors: torch.cat(list(tensors))
    return _BLOCKS[settings.init], partial(_blocks, init=settings.init)


def _blocks(tensors: Sequence[Tensor], init: str) -> Tensor:
    a, b = tensors
    above, below = {
        "blockdiag": (torch.zeros_like(a), torch.zeros_like(a)),
        "duplicate": (a, b),
        "avg_offdiag": ((a + b) / 2, (a + b) / 2),
    }[init]
    return torch.cat([torch.cat([a, above], 1), torch.cat([below, b], 1)])
