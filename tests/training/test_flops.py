"""Operations of a step against those that PyTorch counts as it computes one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from omnimill.training.backbone.config import BackboneConfig, PatchEncoderConfig, ResamplerConfig
from omnimill.training.backbone.model import Backbone
from omnimill.training.engine.flops import measured_flops, peak_flops, step_flops
from omnimill.training.loading.batch import DecoderModality, Frames, PackedBatch

TEXT, PATCHES, PIXELS, MELS = 10, (16, 8), 12, 6
ENCODER = {"width": 32, "heads": 2, "layers": 3, "mlp": 48, "positions": (4, 4)}
RESAMPLER = ResamplerConfig(width=24, heads=2, head_width=8, mlp=40, latents=5)
CONFIG = BackboneConfig(
    width=64,
    heads=4,
    head_width=8,
    mlp=96,
    encoder_layers=2,
    decoder_layers=3,
    text_rows=50,
    image_rows=40,
    audio_rows=30,
    image_grid=(4, 4),
    history_grid=(4, 4),
    audio_grid=(4, 4),
    image_target_grid=(4, 4),
    audio_target_grid=(4, 4),
    image_encoder=PatchEncoderConfig(kind="vit", patch_values=PIXELS, **ENCODER),
    audio_encoder=PatchEncoderConfig(kind="ast", patch_values=MELS, **ENCODER),
    image_resampler=RESAMPLER,
    audio_resampler=RESAMPLER,
)


def unpadded() -> PackedBatch:
    """Two sequences of one example each that fill every slot: all kinds of input, targets of text and picture."""
    frames = {"image": (1, 16), "image_history": (2, RESAMPLER.latents), "audio": (1, 8), "audio_history": (1, 5)}
    encoder, decoder, sequences = TEXT + sum(count * slots for count, slots in frames.values()), 28, 2
    free = iter(range(sequences * encoder))
    slots: dict[str, list[int]] = {"text": [], **{name: [] for name in frames}}
    for _ in range(sequences):
        slots["text"] += [next(free) for _ in range(TEXT)]
        for name, (count, each) in frames.items():
            slots[name] += [next(free) for _ in range(count * each)]
    made = {}
    for name, (count, each) in frames.items():
        patches, values = (16, PIXELS) if name.startswith("image") else (8, MELS)
        shape = (sequences * count, patches)
        made[name] = Frames(
            patches=torch.randn(*shape, values),
            index=torch.arange(patches).repeat(shape[0], 1),
            valid=torch.ones(shape, dtype=torch.bool),
            slot=torch.tensor(slots[name]).view(shape[0], each),
            frame=torch.zeros(shape[0], dtype=torch.int64),
        )
    ones, targets = torch.ones(sequences, encoder, dtype=torch.int64), torch.ones(sequences, decoder, dtype=torch.int64)
    modality = targets * DecoderModality.TEXT
    modality[:, 12:] = DecoderModality.IMAGE
    return PackedBatch(
        text_ids=torch.ones(sequences * TEXT, dtype=torch.int64),
        text_slot=torch.tensor(slots["text"]),
        **made,
        encoder_segment=ones,
        encoder_modality=torch.zeros_like(ones),
        encoder_position=torch.zeros(sequences, encoder, 2),
        decoder_ids=targets,
        decoder_targets=targets,
        decoder_loss=targets.float(),
        decoder_segment=targets,
        decoder_modality=modality,
        decoder_position=torch.zeros(sequences, decoder, 2),
        decoder_hidden=torch.zeros_like(targets, dtype=torch.bool),
        decoder_task=torch.zeros_like(targets),
    )


@pytest.mark.parametrize("frozen", [False, True])
def test_operations_are_those_that_pytorch_counts(frozen: bool) -> None:
    batch, config = unpadded(), CONFIG.model_copy(update={"frozen_encoders": frozen})
    # The counter knows attention as the products that it is made of.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        Backbone(config)(batch).nll.sum().backward()
    # What the weights nearest to the input read needs no gradient, which the rule of six does not know.
    current, history = 2 * sum(PATCHES), 2 * (2 * PATCHES[0] + PATCHES[1])
    if frozen:
        saved = 2 * (2 * 32 * 64 * current + 32 * RESAMPLER.width * history)
    else:
        saved = 2 * 32 * 2 * (3 * PATCHES[0] * PIXELS + 2 * PATCHES[1] * MELS)
    assert step_flops(batch, config, not frozen).sum() == counter.get_total_flops() + saved


def test_padding_is_no_work() -> None:
    batch = unpadded()

    def padded(value: Tensor) -> Tensor:
        return F.pad(value, (0, 3))

    longer = replace(
        batch,
        decoder_segment=padded(batch.decoder_segment),
        decoder_modality=padded(batch.decoder_modality),
        encoder_segment=padded(batch.encoder_segment),
    )
    assert torch.equal(step_flops(longer, CONFIG, True), step_flops(batch, CONFIG, True))


def test_examples_of_one_sequence_do_not_attend_to_each_other() -> None:
    batch = unpadded()
    segments = {
        name: torch.cat([getattr(batch, name)[:1], 2 * getattr(batch, name)[1:]], 1)
        for name in ("encoder_segment", "decoder_segment")
    }
    packed = replace(batch, **segments, decoder_modality=batch.decoder_modality.flatten()[None])
    assert torch.equal(step_flops(packed, CONFIG, True), step_flops(batch, CONFIG, True))


def test_a_device_without_a_promised_peak_is_measured() -> None:
    device = torch.device("cpu")
    assert peak_flops(device, torch.float32) is None
    assert 1e8 < measured_flops(device, torch.float32, size=128) < 1e14
