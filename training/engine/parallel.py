"""How a backbone is laid out over workers and computed on each.

DDP keeps the whole model on every worker. FSDP is PyTorch's ``fully_shard`` ("FSDP2"): a layer's parameters are brought
together when it is computed, those outside the layers at the beginning of a pass.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from omnimill.training.backbone.build import AnyBackbone
from omnimill.training.engine.settings import ParallelSettings


def several() -> bool:
    """Whether more than one worker trains."""
    return dist.is_initialized() and dist.get_world_size() > 1


def prepare_layers(backbone: AnyBackbone, config: ParallelSettings) -> None:
    """Make the layers compute their training pass as configured; a pass without gradients stays plain."""
    layers = backbone.parts
    if config.checkpoint_activations:
        for layer in [*layers, *backbone.patch_layers]:
            # Layers draw nothing: there is no state of a generator to keep.
            again = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
            _replace_training_pass(layer, again)
    if config.compile:
        # Not the layers of the modality encoders: every batch has another number of frames.
        for layer in layers:
            _replace_training_pass(layer, torch.compile(layer.forward))


def _replace_training_pass(layer: nn.Module, training: Any) -> None:
    # Of the forward alone and not of the module, so that names stay and hooks of sharding are left outside.
    plain = layer.forward

    def forward(*args: Any, **settings: Any) -> Any:
        return (training if torch.is_grad_enabled() else plain)(*args, **settings)

    layer.forward = forward


def distribute(backbone: AnyBackbone, config: ParallelSettings, device: torch.device) -> nn.Module:
    """The module to train, which averages gradients over the workers; parameters of `backbone` are sharded in place.

    Args:
        backbone: the same on every worker, on the CPU; or on the meta device, if its weights are still to be loaded.
    """
    backbone.flex_attention = device.type == "cuda" and config.attention == "auto"
    if not several():
        return _settle(backbone, device)
    if config.strategy == "fsdp":
        return _shard(backbone, device)
    # Every batch leaves other parts of the model unused. And only like this does DDP keep its buckets for good, so
    # that the first step after a resume adds gradients up in the same order as any other.
    return DistributedDataParallel(
        _settle(backbone, device), device_ids=[device] if device.type == "cuda" else None, find_unused_parameters=True
    )


def _shard(backbone: AnyBackbone, device: torch.device) -> nn.Module:
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    layers = MixedPrecisionPolicy(backbone.activations, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in backbone.parts:
        fully_shard(layer, mesh=mesh, mp_policy=layers)
    # What is not trained is read alone: every worker keeps it.
    frozen = {parameter for parameter in backbone.parameters() if not parameter.requires_grad}
    fully_shard(backbone, mesh=mesh, ignored_params=frozen)
    _settle(backbone, device)
    for module in backbone.modules():
        if isinstance(module, FSDPModule):
            # Workers leave different parts of the model unused.
            module.set_reduce_scatter_unused_params(True)
    return backbone


def _settle(backbone: AnyBackbone, device: torch.device) -> AnyBackbone:
    on_meta = any(parameter.is_meta for parameter in backbone.parameters())
    return backbone.to_empty(device=device) if on_meta else backbone.to(device)


@contextmanager
def whole(backbone: AnyBackbone) -> Iterator[AnyBackbone]:
    """Have all weights on every worker for the length of a ``with`` block, to be used without gradients; all workers
    enter and leave it together, and do in it what they like."""
    units = [module for module in backbone.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.unshard()
    # Without its hooks: FSDP records the order of passes and brings weights together for the next backward pass by it,
    # so what one worker does alone would have the workers wait for different weights.
    hooks = [(unit._forward_pre_hooks, unit._forward_hooks) for unit in units]
    for unit in units:
        unit._forward_pre_hooks, unit._forward_hooks = OrderedDict(), OrderedDict()
    try:
        yield backbone
    finally:
        for unit, (before, after) in zip(units, hooks, strict=True):
            unit._forward_pre_hooks, unit._forward_hooks = before, after
            unit.reshard()
