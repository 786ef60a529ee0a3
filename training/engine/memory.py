"""What a worker's device has to hold while it trains, computed from the model's own parts on PyTorch's meta device.

Counted, in bytes of one worker:

- **weights** and **gradients**: 4 a value. Under ``fsdp`` every worker has its share of what is trained, and the whole
  of what is frozen; under ``ddp`` the gradients lie a second time in the buckets that are averaged.
- **optimizer**: its state, shared out like the weights.
- **gathered**: what ``fsdp`` has whole at a time: everything that is no layer, and two layers (one is computed, the
  next is on its way) with their gradients.
- **activations**: what PyTorch keeps of every layer for the gradients, for the slots of the packed sequences that are
  computed at once, real or not; with checkpointing each layer's input, and all of one layer.
- **logits**: float32, three times (themselves, their softmax, its gradient), if every target were text.

Not counted: activations of the modality encoders (none are kept while these are frozen), attention's scores where the
device has no fused attention, the allocator's waste, and what CUDA and NCCL take for themselves (one to two GB).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from omnimill.training.backbone.build import AnyBackbone, build
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.backbone.decoder_only import DecoderOnlyLayer
from omnimill.training.backbone.kinds import SequenceConfig
from omnimill.training.backbone.rotary import rotation
from omnimill.training.backbone.towers import Link
from omnimill.training.backbone.towers_config import LinkForm, TowersConfig
from omnimill.training.backbone.transformer import DecoderLayer, EncoderLayer
from omnimill.training.engine.optim import OptimizerConfig, build_optimizer
from omnimill.training.engine.settings import ParallelSettings
from omnimill.training.planning.lengths import Budgets

_FLOAT = 4
# Layers whose weights are whole at a time, see above.
_GATHERED_LAYERS = 2
_COPIES_OF_LOGITS = 3


@dataclass(frozen=True)
class Memory:
    """Bytes on one worker, see this module. trained, frozen: parameters of the whole model, in values."""

    trained: int
    frozen: int
    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations + self.logits


def memory(
    config: BackboneConfig | SequenceConfig,
    optimizer: OptimizerConfig,
    budgets: Budgets,
    parallel: ParallelSettings,
    *,
    dtype: torch.dtype,
    workers: int,
    sequences: int,
) -> Memory:
    """What one of several workers holds.

    Args:
        budgets: slots of a packed sequence.
        dtype: of activations.
        workers: how many train together.
        sequences: packed sequences that a worker computes at once.
    """
    with torch.device("meta"):
        backbone = build(config)
    parameters = list(backbone.parameters())
    trained = sum(one.numel() for one in parameters if one.requires_grad)
    frozen = sum(one.numel() for one in parameters) - trained
    state = _state_bytes(build_optimizer(optimizer, [one for one in parameters if one.requires_grad]))
    sharded = parallel.strategy == "fsdp" and workers > 1
    share = workers if sharded else 1
    copies = 2 if workers > 1 and not sharded else 1
    if isinstance(config, BackboneConfig):
        kept, rows = _kept(config, budgets, sequences, dtype, sharded), config.text_rows
    else:
        kept, rows = _kept_of_sequences(config, budgets, sequences, dtype, sharded), config.rows
    return Memory(
        trained=trained,
        frozen=frozen,
        weights=_FLOAT * (trained // share + frozen),
        gradients=_FLOAT * copies * trained // share,
        optimizer=state // share,
        gathered=_gathered(backbone, trained, dtype) if sharded else 0,
        activations=kept.checkpointed if parallel.checkpoint_activations else kept.whole,
        logits=_COPIES_OF_LOGITS * _FLOAT * sequences * budgets.decoder * rows,
    )


@dataclass(frozen=True)
class _Kept:
    """Bytes of activations of all layers: whole, and when inputs of layers alone are kept."""

    whole: int
    checkpointed: int


def _kept(config: BackboneConfig, budgets: Budgets, sequences: int, dtype: torch.dtype, sharded: bool) -> _Kept:
    e, d = budgets.encoder, budgets.decoder
    with torch.device("meta"):
        layers = EncoderLayer(config), DecoderLayer(config)
        if sharded:
            # Gathered in this type; else every pass makes such a copy of its own and keeps it.
            for layer in layers:
                layer.to(dtype)
        x, y = (torch.empty(sequences, slots, config.width, dtype=dtype, requires_grad=True) for slots in (e, d))
        turns, targets = (_rotation(sequences, slots, config.head_width) for slots in (e, d))
        own, cross = (torch.ones(sequences, 1, d, slots, dtype=torch.bool) for slots in (d, e))
        seen = torch.ones(sequences, 1, e, e, dtype=torch.bool)
    encoder, decoder = layers
    heads = sequences * config.heads
    in_encoder = _saved(encoder, lambda: encoder(x, seen, turns), {(heads, e, e)})
    in_decoder = _saved(decoder, lambda: decoder(y, x, own, cross, targets, turns), {(heads, d, d), (heads, d, e)})
    inputs = config.encoder_layers * x.nbytes + config.decoder_layers * y.nbytes
    return _Kept(
        whole=config.encoder_layers * in_encoder + config.decoder_layers * in_decoder,
        checkpointed=inputs + max(in_encoder, in_decoder),
    )


def _kept_of_sequences(
    config: SequenceConfig, budgets: Budgets, sequences: int, dtype: torch.dtype, sharded: bool
) -> _Kept:
    """As :func:`_kept`, of a backbone over one joint id space."""
    slots = budgets.decoder
    saved, inputs, most = 0, 0, 0
    with torch.device("meta"):
        mask = torch.ones(sequences, 1, slots, slots, dtype=torch.bool)
    for own, other, count in _layers_of(config):
        with torch.device("meta"):
            layer = DecoderOnlyLayer(own) if other is None else Link(own, other, _link_form(config))
            if sharded:
                layer.to(dtype)
            widths = [own.width] if other is None else [own.width, other.width]
            given = [torch.empty(sequences, slots, width, dtype=dtype, requires_grad=True) for width in widths]
            turns = _rotation(sequences, slots, own.head_width)
        size = _saved(layer, partial(layer, *given, mask, turns), {(sequences * own.heads, slots, slots)})
        saved, inputs = saved + count * size, inputs + count * sum(x.nbytes for x in given)
        most = max(most, size)
    return _Kept(whole=saved, checkpointed=inputs + most)


def _layers_of(config: SequenceConfig) -> list[tuple[DecoderConfig, DecoderConfig | None, int]]:
    """Kinds of layers and how many of each: the tower that they belong to, and for links the one that they look at."""
    if isinstance(config, DecoderConfig):
        return [(config, None, config.layers)]
    if not isinstance(config, TowersConfig):
        return [(member, None, member.layers) for member in config.members]
    first, second = config.towers
    links = ((first, second, config.to_first), (second, first, config.to_second))
    return [
        *((tower, None, tower.layers) for tower in config.towers),
        *((own, other, own.layers // every) for own, other, every in links if every),
    ]


def _link_form(config: SequenceConfig) -> LinkForm:
    return config.link if isinstance(config, TowersConfig) else "attention"


def _rotation(sequences: int, slots: int, width: int) -> tuple[Tensor, Tensor]:
    return rotation(torch.empty(sequences, slots, 2), torch.ones(sequences, slots, dtype=torch.bool), width)


def _saved(layer: nn.Module, run: Callable[[], Tensor], scores: set[tuple[int, int, int]]) -> int:
    """Bytes that PyTorch keeps of a pass for its gradients, without weights.

    Args:
        scores: sizes of attention's scores (heads, queries, keys), which fused attention does not keep.
    """
    own = {parameter.untyped_storage()._cdata for parameter in layer.parameters()}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and (math.prod(tensor.shape[:-2]), *tensor.shape[-2:]) not in scores:
            found[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # What is kept lives as long as the result.
        result = run()
        assert result.requires_grad
    return sum(found.values())


def _gathered(backbone: AnyBackbone, trained: int, dtype: torch.dtype) -> int:
    sizes: list[int] = [sum(parameter.numel() for parameter in layer.parameters()) for layer in backbone.parts]
    return _FLOAT * (trained - sum(sizes)) + _GATHERED_LAYERS * 2 * dtype.itemsize * max(sizes)


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    held: list[Tensor] = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
    ]
    return sum(tensor.nbytes for tensor in held)
