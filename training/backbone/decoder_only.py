"""The decoder-only backbone: text and picture codes in one stream, each predicted from what comes before it.

It reads the decoder's side of a packed batch: ids and targets in the joint id space, one segment per example, positions
in the first coordinate. Nothing of Ray or MLflow. Shape letters: B packed sequences, D slots, T slots with those kept
from before, d width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from omnimill.training.backbone.blocks import MLP, Attention, Block, GatedMLP, Linear, RMSNorm, Table
from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.backbone.initialise import initialise
from omnimill.training.backbone.kinds import SequenceConfig
from omnimill.training.backbone.masks import Mask, causal_segments, in_blocks
from omnimill.training.backbone.model import TokenLosses
from omnimill.training.backbone.rotary import Rotation, rotation
from omnimill.training.backbone.token_loss import token_loss
from omnimill.training.backbone.transformer import LayerCache
from omnimill.training.loading.batch import PackedBatch


class DecoderOnlyLayer(Block):
    """Self-attention, then an MLP; pre-norm, residual, no biases."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, groups = config.width, config.norm_groups
        self.pre_attention_norm = RMSNorm(width, groups)
        self.attention = Attention(
            width, config.heads, config.head_width, config.head_norm, norm_groups=config.head_groups
        )
        self.pre_mlp_norm = RMSNorm(width, groups)
        self.mlp = GatedMLP(width, config.mlp) if config.mlp_form == "gated" else MLP(width, config.mlp)

    def forward(self, x: Tensor, mask: Mask | None, turns: Rotation | None, cache: LayerCache | None = None) -> Tensor:
        """x [B, D, d] -> [B, D, d]: all slots, or with a cache those that follow the ones it holds.

        Args:
            mask: bool [B, 1, D, T]; None: all may be seen.
        """
        h = self.pre_attention_norm(x)
        keys, values = self.attention.keys_values(h, turns)
        if cache is not None:
            keys, values = cache.extend(keys, values)
        x = x + self.attention.combine(self.attention.queries(h, turns), keys, values, mask)
        return x + self.mlp(self.pre_mlp_norm(x))


class SequenceModel(nn.Module):
    """What all backbones over one joint id space have in common; they differ in how states and logits are computed.

    Attributes:
        activations: what layers compute in; weights are float32.
        flex_attention: whether the attention of packed sequences skips what its masks leave out altogether.
        image_ids: ids of picture codes, as ranges.
    """

    config: SequenceConfig
    activations: torch.dtype
    flex_attention: bool = False
    image_ids: tuple[tuple[int, int], ...]
    # It reads codes alone: there is nothing between it and the pictures.
    encoders: tuple[nn.Module, ...] = ()
    patch_layers: tuple[nn.Module, ...] = ()
    hold_encoders: bool = False

    @property
    @abstractmethod
    def parts(self) -> list[nn.Module]:
        """The layers, in the order in which they are computed: what is sharded, compiled and checkpointed by itself."""

    @property
    @abstractmethod
    def caches(self) -> int:
        """How many caches :meth:`states` fills."""

    @abstractmethod
    def states(
        self, ids: Tensor, position: Tensor, mask: Mask | None, caches: Sequence[LayerCache | None] | None = None
    ) -> Tensor:
        """What :meth:`logits` reads, [B, D, …], for ids int64 [B, D] at positions float32 [B, D, 2].

        Args:
            mask: bool [B, 1, D, T]; None: all may be seen.
            caches: of the slots before, see :attr:`caches`; they are extended by these.
        """

    @abstractmethod
    def logits(self, states: Tensor) -> Tensor:
        """float32 [..., rows] of states [..., …]."""

    def forward(self, batch: PackedBatch) -> TokenLosses:
        """Losses of every slot of the decoder's side."""
        shape = batch.decoder_ids.shape
        mask = causal_segments(batch.decoder_segment)
        states = self.states(
            batch.decoder_ids, batch.decoder_position, in_blocks(mask) if self.flex_attention else mask
        ).flatten(0, 1)
        at = (batch.decoder_segment.flatten() > 0).nonzero()[:, 0]
        nll, log_z = token_loss(self.logits(states[at]), batch.decoder_targets.flatten()[at])
        empty = torch.zeros(len(states), device=states.device)
        return TokenLosses(empty.index_copy(0, at, nll).view(shape), empty.index_copy(0, at, log_z).view(shape))

    @torch.inference_mode()
    def step(self, ids: Tensor, position: Tensor, caches: Sequence[LayerCache]) -> Tensor:
        """Logits float32 [B, rows] of what follows the newest ids.

        Args:
            ids: int64 [B, n]; those that no call with these caches has had yet.
            position: float32 [B, n, 2].
            caches: of :meth:`new_caches`; what all sequences had so far.
        """
        seen = caches[0].length
        count = ids.shape[1]
        keys = torch.arange(seen + count, device=ids.device)
        mask = None if count == 1 else (keys <= keys[seen:, None])[None, None]
        return self.logits(self.states(ids, position, mask, caches)[:, -1])

    def new_caches(self) -> list[LayerCache]:
        """Empty ones, for :meth:`step`."""
        return [LayerCache() for _ in range(self.caches)]


class Tower(nn.Module):
    """The layers of a decoder with their positions, without table and output."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        learned = config.positions == "learned"
        self.position_table = Table(config.max_positions, config.width) if learned else None
        self.layers = nn.ModuleList(DecoderOnlyLayer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_groups)

    def enter(self, x: Tensor, position: Tensor) -> tuple[Tensor, Rotation | None]:
        """The first layer's input, of embedded ids [B, D, d], and what turns queries and keys."""
        if self.position_table is not None:
            return x + self.position_table(position[..., 0].long()).to(x.dtype), None
        flat = torch.ones(position.shape[:2], dtype=torch.bool, device=position.device)
        return x, rotation(position, flat, self.config.head_width)


class DecoderOnly(SequenceModel):
    """A decoder with a table for ids, which is the output matrix, too, where the configuration ties them.

    Args:
        config: sizes.
        seed: of the initial weights; every weight is a function of the seed and its own name alone.
        activations: what the layers compute in; weights are float32.
    """

    def __init__(self, config: DecoderConfig, seed: int = 0, activations: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config: DecoderConfig = config
        self.activations, self.image_ids = activations, config.image_ids
        self.table = Table(config.rows, config.width)
        self.tower = Tower(config)
        self.head = None if config.tied else Linear(config.width, config.rows)
        initialise(self, seed)

    @property
    def parts(self) -> list[nn.Module]:
        return list(self.tower.layers)

    @property
    def caches(self) -> int:
        return self.config.layers

    def states(
        self, ids: Tensor, position: Tensor, mask: Mask | None, caches: Sequence[LayerCache | None] | None = None
    ) -> Tensor:
        """The last layer's output, normalised: [B, D, d]."""
        x, turns = self.tower.enter(self.table(ids).to(self.activations), position)
        for layer, cache in zip(self.tower.layers, caches or [None] * self.caches, strict=True):
            x = layer(x, mask, turns, cache)
        return self.tower.norm(x)

    def logits(self, states: Tensor) -> Tensor:
        matrix = self.table.weight if self.head is None else self.head.weight
        return (states.float() * self.config.scale) @ matrix.float().T
