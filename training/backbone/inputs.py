"""From the content of a packed batch to encoder slots.

The modality encoders run on real frames only; what they yield is then put into its slots.

Shape letters: B sequences, E encoder slots, F frames, P patches, L latents, d width of the backbone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omnimill.training.backbone.blocks import Block, Linear, Table
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.patches import PatchEncoder
from omnimill.training.backbone.resampler import Resampler
from omnimill.training.loading.batch import EncoderModality, Frames, PackedBatch


class Inputs(Block):
    """Image and audio encoders with the projections and resamplers that bring them to the backbone's width."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        image, audio = config.image_encoder, config.audio_encoder
        self.image_encoder = PatchEncoder(image)
        self.audio_encoder = PatchEncoder(audio)
        self.image_projection = Linear(2 * image.width, config.width)
        self.audio_projection = Linear(2 * audio.width, config.width)
        self.image_resampler = Resampler(config.image_resampler, image.width, config.width)
        self.audio_resampler = Resampler(config.audio_resampler, audio.width, config.width)
        self.modality = nn.Parameter(torch.empty(len(EncoderModality), config.width))
        # While it is set, no gradient enters the encoders even where their parameters could have one.
        self.hold_encoders = config.frozen_encoders
        for encoder in self.encoders:
            encoder.requires_grad_(not config.frozen_encoders)

    @property
    def encoders(self) -> tuple[PatchEncoder, PatchEncoder]:
        """Of pictures and of sound."""
        return self.image_encoder, self.audio_encoder

    def forward(self, batch: PackedBatch, text_table: Table) -> Tensor:
        """float32 [B, E, d]: content plus the vector of its modality in every slot; padding holds no content."""
        config = self.config
        slots = batch.encoder_segment.numel()
        x = self.modality.new_zeros(slots, config.width)
        x = _place(x, batch.text_slot, text_table(batch.text_ids))
        if batch.image is not None:
            features = self._current(self.image_encoder, batch.image, config.image_grid)
            x = _place(x, batch.image.slot, self.image_projection(features))
        if batch.image_history is not None:
            features = self._last(self.image_encoder, batch.image_history, config.history_grid)
            x = _place(x, batch.image_history.slot, self.image_resampler(features, batch.image_history.valid))
        if batch.audio is not None:
            features = self._current(self.audio_encoder, batch.audio, config.audio_grid)
            x = _place(x, batch.audio.slot, self.audio_projection(features))
        if batch.audio_history is not None:
            features = self._last(self.audio_encoder, batch.audio_history, config.audio_grid)
            x = _place(x, batch.audio_history.slot, self.audio_resampler(features, batch.audio_history.valid))
        return x.view(*batch.encoder_segment.shape, -1) + self.modality[batch.encoder_modality]

    def _current(self, encoder: PatchEncoder, frames: Frames, grid: tuple[int, int]) -> Tensor:
        """Last and second layer side by side, [F, P, 2 w]."""
        return torch.cat(self._encode(encoder, frames, grid), -1)

    def _last(self, encoder: PatchEncoder, frames: Frames, grid: tuple[int, int]) -> Tensor:
        """The last layer, [F, P, w]."""
        return self._encode(encoder, frames, grid)[0]

    def _encode(self, encoder: PatchEncoder, frames: Frames, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.hold_encoders):
            last, second = encoder(frames.patches, frames.index, frames.valid, grid)
        return last, second


def _place(x: Tensor, slot: Tensor, values: Tensor) -> Tensor:
    """`values` [..., d] written to the rows `slot` [...] of x [slots, d]; a slot of -1 is dropped."""
    used = slot >= 0
    return x.index_copy(0, slot[used], values[used].to(x.dtype))
