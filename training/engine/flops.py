"""What a step costs in floating-point operations, and what share of a device's peak that is.

Counted as in PaLM (Chowdhery et al., arXiv 2204.02311, appendix B): a product with a weight costs 2 operations a token
and weight, its gradients twice as much again, together 6; attention costs 12 a layer, a value of its heads' width and
a pair of query and key, whether masked or not. Counted are real tokens alone, and pairs within one example alone:
what padding and packing make the device do besides is no use. What is computed again for checkpointed activations
does not count either.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from omnimill.training.backbone.config import BackboneConfig, PatchEncoderConfig, ResamplerConfig
from omnimill.training.backbone.kinds import SequenceConfig
from omnimill.training.backbone.patches import EXTRA_TOKENS
from omnimill.training.backbone.resampler import LAYERS as RESAMPLER_LAYERS
from omnimill.training.backbone.sizes import token_work
from omnimill.training.loading.batch import DecoderModality, Frames, PackedBatch

# Operations a second of dense products in bfloat16, from NVIDIA's data sheets, by what the device's name holds; of
# products in TF32 it is half. More exact names come first.
_PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
}


class StepFlops(NamedTuple):
    """Operations of one step by where they are done. `decoder` has cross-attention and logits with it;
    `modality_encoders` the projections and resamplers."""

    encoder: float
    decoder: float
    modality_encoders: float

    @property
    def transformer(self) -> float:
        """Of encoder and decoder."""
        return self.encoder + self.decoder

    @property
    def total(self) -> float:
        return sum(self)


def step_flops(batch: PackedBatch, config: BackboneConfig | SequenceConfig, encoders_trained: bool) -> Tensor:
    """float64 [3], in the order of :class:`StepFlops`, of forward and backward over a batch.

    Args:
        encoders_trained: image and audio encoder have gradients, too.
    """
    if not isinstance(config, BackboneConfig):
        return _sequence_flops(batch, config)
    inner, width = config.heads * config.head_width, config.width
    encoder, decoder = _lengths(batch.encoder_segment, batch), _lengths(batch.decoder_segment, batch)
    per_mlp = 3 * width * config.mlp
    encoded, decoded = encoder.sum(), decoder.sum()
    encoder_flops = config.encoder_layers * (
        6 * (4 * width * inner + per_mlp) * encoded + 12 * inner * encoder.square().sum()
    )
    decoder_flops = config.decoder_layers * (
        6 * ((6 * width * inner + per_mlp) * decoded + 2 * width * inner * encoded)
        + 12 * inner * (decoder.square().sum() + (decoder * encoder).sum())
    )
    rows = torch.tensor([config.text_rows, config.image_rows, config.audio_rows], device=decoder.device)
    real = batch.decoder_segment > 0
    targets = torch.stack([(real & (batch.decoder_modality == kind)).sum() for kind in DecoderModality])
    decoder_flops = decoder_flops + 6.0 * width * (rows * targets).sum()
    return torch.stack([encoder_flops, decoder_flops, _modality_encoders(batch, config, encoders_trained)])


def _sequence_flops(batch: PackedBatch, config: SequenceConfig) -> Tensor:
    """As :func:`step_flops`, of a backbone over one joint id space: all of it is its decoder's."""
    lengths, work = _lengths(batch.decoder_segment, batch), token_work(config)
    decoder = 6.0 * work.weights * lengths.sum() + 12.0 * work.attention * lengths.square().sum()
    return torch.stack([torch.zeros_like(decoder), decoder, torch.zeros_like(decoder)])


def _lengths(segment: Tensor, batch: PackedBatch) -> Tensor:
    """float64 [B, S]: tokens of every sequence's k-th example, in place k - 1."""
    slots = max(batch.encoder_segment.shape[1], batch.decoder_segment.shape[1])
    counts = torch.zeros(len(segment), slots + 1, dtype=torch.float64, device=segment.device)
    return counts.scatter_add_(1, segment, torch.ones_like(segment, dtype=torch.float64))[:, 1:]


def _modality_encoders(batch: PackedBatch, config: BackboneConfig, trained: bool) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=batch.encoder_segment.device)
    for encoder, resampler, current, history in (
        (config.image_encoder, config.image_resampler, batch.image, batch.image_history),
        (config.audio_encoder, config.audio_resampler, batch.audio, batch.audio_history),
    ):
        for frames in (current, history):
            if frames is not None:
                total = total + _patch_encoder(encoder, frames, trained)
        if current is not None:
            total = total + 6 * 2 * encoder.width * config.width * current.valid.sum()
        if history is not None:
            total = total + _resampler(resampler, history, encoder.width, config.width)
    return total


def _patch_encoder(config: PatchEncoderConfig, frames: Frames, trained: bool) -> Tensor:
    patches = frames.valid.sum(1).double()
    tokens = patches + EXTRA_TOKENS[config.kind]
    weights = config.layers * (4 * config.width**2 + 2 * config.width * config.mlp)
    forward = (
        2 * (weights * tokens.sum() + config.patch_values * config.width * patches.sum())
        + 4 * config.layers * config.width * tokens.square().sum()
    )
    return forward * (3 if trained else 1)


def _resampler(config: ResamplerConfig, frames: Frames, features: int, width: int) -> Tensor:
    inner, patches = config.heads * config.head_width, frames.valid.sum(1).double()
    latents = config.latents * len(patches)
    per_latent = RESAMPLER_LAYERS * (2 * config.width * inner + 2 * config.width * config.mlp) + config.width * width
    per_patch = features * config.width + RESAMPLER_LAYERS * 2 * config.width * inner
    attention = 12 * RESAMPLER_LAYERS * inner * config.latents * patches.sum()
    return 6 * (per_latent * latents + per_patch * patches.sum()) + attention


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Operations a second that a device's maker promises for dense products; None for a device not known here.

    Args:
        dtype: bfloat16, or float32 for products in TF32.
    """
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    peak = next((peak for part, peak in _PEAKS.items() if part in name), None)
    return peak if peak is None or dtype == torch.bfloat16 else peak / 2


def measured_flops(
    device: torch.device,
    dtype: torch.dtype,
    size: int = 1024,
    tries: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Operations a second of a product of two square matrices on a device: what stands for its peak where no maker
    promises one. The fastest of `tries` by `clock`."""
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(tries + 1):
        began = clock()
        (a @ b)[0, 0].item()
        seconds.append(clock() - began)
    return float(2 * size**3 / min(seconds[1:]))
