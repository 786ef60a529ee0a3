"""The backbone: one encoder-decoder over text, image and audio tokens, in and out.

Plain PyTorch; nothing of Ray or MLflow. Shape letters: B packed sequences, E encoder slots, D decoder slots, d width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from omnimill.training.backbone.blocks import RMSNorm, Table
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.initialise import initialise
from omnimill.training.backbone.inputs import Inputs
from omnimill.training.backbone.masks import (
    Mask,
    Pattern,
    decoder_self_mask,
    dynamic_mask,
    in_blocks,
    layer_pattern,
    pattern_mask,
    same_segment,
    target_index,
)
from omnimill.training.backbone.patches import PatchEncoder
from omnimill.training.backbone.rotary import Rotation, rotation
from omnimill.training.backbone.token_loss import token_loss
from omnimill.training.backbone.transformer import DecoderLayer, EncoderLayer
from omnimill.training.loading.batch import DecoderModality, EncoderModality, PackedBatch


class Encoded(NamedTuple):
    """The encoder's output: hidden [B, E, d] of the activations' dtype, segment int64 [B, E], rotations of slots."""

    hidden: Tensor
    segment: Tensor
    rotation: Rotation


class TokenLosses(NamedTuple):
    """Per decoder slot, float32 [B, D]; zero on padding.

    nll: -log p(target). log_z: log of the softmax's denominator.
    """

    nll: Tensor
    log_z: Tensor


class Backbone(nn.Module):
    """Encoder-decoder with one tied table per modality: logits = h Eᵀ / sqrt(d).

    Args:
        config: sizes.
        seed: of the initial weights; every weight is a function of the seed and its own name alone.
        activations: what the layers of encoder and decoder compute in; weights are float32.

    Attributes:
        flex_attention: whether the attention of packed sequences skips what its masks leave out altogether.
    """

    def __init__(self, config: BackboneConfig, seed: int = 0, activations: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.activations = config, activations
        self.flex_attention = False
        self.text_table = Table(config.text_rows, config.width)
        self.image_table = Table(config.image_rows, config.width)
        self.audio_table = Table(config.audio_rows, config.width)
        self.inputs = Inputs(config)
        self.encoder_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.encoder_norm = RMSNorm(config.width)
        self.decoder_modality = nn.Parameter(torch.empty(len(DecoderModality), config.width))
        self.decoder_layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.decoder_norm = RMSNorm(config.width)
        initialise(self, seed)

    def forward(self, batch: PackedBatch) -> TokenLosses:
        """Losses of every decoder slot; logits are computed per modality, on that modality's slots alone."""
        hidden = self.decode(self.encode(batch), batch).flatten(0, 1)
        targets = batch.decoder_targets.flatten()
        nll = log_z = torch.zeros(len(targets), device=hidden.device)
        for modality, at in slots_by_modality(batch):
            logits = self.logits(hidden[at], modality)
            miss, z = token_loss(logits, targets[at])
            nll, log_z = nll.index_copy(0, at, miss), log_z.index_copy(0, at, z)
        shape = batch.decoder_targets.shape
        # Not views: hooks of sharding are laid on what comes out here.
        return TokenLosses(nll.view(shape).clone(), log_z.view(shape).clone())

    @property
    def parts(self) -> list[nn.Module]:
        """The layers: what is sharded, compiled and checkpointed by itself."""
        return [*self.encoder_layers, *self.decoder_layers]

    @property
    def patch_layers(self) -> list[nn.Module]:
        """The layers of the image and audio encoders."""
        return [layer for encoder in self.encoders for layer in encoder.layers]

    @property
    def encoders(self) -> tuple[PatchEncoder, PatchEncoder]:
        """Of pictures and of sound."""
        return self.inputs.encoders

    @property
    def hold_encoders(self) -> bool:
        """While it is set, no gradient enters the encoders even where their parameters could have one."""
        return self.inputs.hold_encoders

    @hold_encoders.setter
    def hold_encoders(self, held: bool) -> None:
        self.inputs.hold_encoders = held

    def encode(self, batch: PackedBatch) -> Encoded:
        """Run the encoder over the batch's input content."""
        flat = batch.encoder_modality == EncoderModality.TEXT
        turns = rotation(batch.encoder_position, flat, self.config.head_width)
        mask = self._prepared(same_segment(batch.encoder_segment, batch.encoder_segment))
        x = self.inputs(batch, self.text_table).to(self.activations)
        for layer in self.encoder_layers:
            x = layer(x, mask, turns)
        return Encoded(self.encoder_norm(x), batch.encoder_segment, turns)

    def decode(self, encoded: Encoded, batch: PackedBatch) -> Tensor:
        """Run the decoder over the batch's shifted targets; hidden states [B, D, d] for :meth:`logits`."""
        turns = self.target_rotation(batch.decoder_position, batch.decoder_modality)
        cross_mask = self._prepared(same_segment(batch.decoder_segment, encoded.segment))
        x = self._embed_targets(batch)
        for layer, self_mask in zip(self.decoder_layers, self._self_masks(batch), strict=True):
            x = layer(x, encoded.hidden, self_mask, cross_mask, turns, encoded.rotation)
        return self.decoder_norm(x)

    def target_rotation(self, position: Tensor, modality: Tensor) -> Rotation:
        """Rotation of decoder slots: position float32 [B, S, 2], modality int64 [B, S]."""
        if self.config.audio_target_positions == "released":
            # The released model's table is made for a grid of (mel, time), and read by the number of the code, which
            # counts along mel first.
            time, mel = self.config.audio_target_grid
            index = position[..., 0] * mel + position[..., 1]
            other = torch.stack([index // time, index % time], -1)
            position = torch.where((modality == DecoderModality.AUDIO)[..., None], other, position)
        return rotation(position, modality == DecoderModality.TEXT, self.config.head_width)

    def layer_patterns(self) -> list[Pattern | None]:
        """The sparse pattern of every decoder layer; None where it sees all that came before."""
        count = self.config.decoder_layers
        return [layer_pattern(layer, count) if self.config.sparse_decoder else None for layer in range(count)]

    def logits(self, hidden: Tensor, modality: DecoderModality) -> Tensor:
        """float32 [..., rows] over the table of `modality`, from hidden states [..., d]."""
        table = self.table(modality).weight
        scale: float = self.config.width**-0.5
        return (hidden.float() * scale) @ table.float().T

    def embed_targets(self, ids: Tensor, modality: DecoderModality) -> Tensor:
        """Decoder inputs of one modality: table rows plus the modality's vector; [...] -> [..., d]."""
        return (self.table(modality)(ids) + self.decoder_modality[modality]).to(self.activations)

    def table(self, modality: DecoderModality) -> Table:
        """The tied table of a modality."""
        return (self.text_table, self.image_table, self.audio_table)[modality]

    def _prepared(self, mask: Tensor) -> Mask:
        return in_blocks(mask) if self.flex_attention else mask

    def _self_masks(self, batch: PackedBatch) -> list[Mask]:
        """Of every decoder layer, bool [B, 1, D, D]; layers of the same pattern share a mask."""
        base = decoder_self_mask(batch.decoder_segment, batch.decoder_modality)
        if not (self.config.sparse_decoder or self.config.dynamic_decoder):
            return [self._prepared(base)] * self.config.decoder_layers
        index = target_index(base)
        if self.config.dynamic_decoder:
            base = base & dynamic_mask(batch.decoder_hidden, index)
        of_modality = torch.tensor(self.config.target_columns, device=index.device)
        width = of_modality[batch.decoder_modality]
        # Some codes of a grid may be asked for alone, so that the number of a slot says nothing of its place.
        place = (batch.decoder_position[..., 0] * width + batch.decoder_position[..., 1]).long()
        columns, queries, keys = width[:, None, :, None], place[:, None, :, None], place[:, None, None, :]
        masks: dict[Pattern | None, Tensor] = {None: base}
        for pattern in self.layer_patterns():
            if pattern is not None and pattern not in masks:
                masks[pattern] = base & pattern_mask(pattern, queries, keys, columns)
        prepared = {pattern: self._prepared(mask) for pattern, mask in masks.items()}
        return [prepared[pattern] for pattern in self.layer_patterns()]

    def _embed_targets(self, batch: PackedBatch) -> Tensor:
        ids = batch.decoder_ids.flatten()
        x = self.decoder_modality.new_zeros(len(ids), self.config.width, dtype=self.activations)
        for modality, at in slots_by_modality(batch):
            x = x.index_copy(0, at, self.embed_targets(ids[at], modality))
        return x.view(*batch.decoder_ids.shape, -1)


def slots_by_modality(batch: PackedBatch) -> list[tuple[DecoderModality, Tensor]]:
    """Flat indices (int64 [n]) of the real decoder slots of every modality that the batch holds."""
    real = batch.decoder_segment.flatten() > 0
    kind = batch.decoder_modality.flatten()
    found = ((modality, (real & (kind == modality)).nonzero()[:, 0]) for modality in DecoderModality)
    return [(modality, at) for modality, at in found if len(at)]
