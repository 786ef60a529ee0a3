"""The recorded model of `shared/reference/parity` with its recorded inputs, in the backbone's terms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from omnimill.tokenizers.checkpoints import open_checkpoint
from omnimill.tokenizers.networks import CodeNetwork, audio_network, image_network
from omnimill.tokenizers.vit_vqgan import VitVqganConfig
from omnimill.tokenizers.vqgan import VqganConfig
from omnimill.tokenizers.weights import fill
from omnimill.tokens import AudioLayout, ImageLayout
from omnimill.training.backbone.config import BackboneConfig, PatchEncoderConfig, ResamplerConfig
from omnimill.training.backbone.model import Backbone
from omnimill.training.checkpoints.published_weights import fill_from_published
from omnimill.training.loading.batch import DecoderModality, EncoderModality, Frames, PackedBatch

WEIGHTS = "06_tiny_model.safetensors"
LATENTS = {EncoderModality.IMAGE_HISTORY: 8, EncoderModality.AUDIO_HISTORY: 4}
TARGET_GRIDS = {DecoderModality.IMAGE: (32, 32), DecoderModality.AUDIO: (32, 16)}


def golden(parity: Path, name: str) -> dict[str, Tensor]:
    """Arrays of one golden file; empty when it is not there."""
    file = parity / name
    if not file.exists():
        return {}
    with np.load(file) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected.float(), atol=tolerance, rtol=tolerance)


def grid_positions(rows: int, columns: int, scale: float = 1.0) -> Tensor:
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()[None] * scale


def golden_config(parity: Path, **changes: object) -> BackboneConfig:
    plain = json.loads((parity / "06_tiny_model_config.json").read_text())["t5_config"]
    encoder = {"width": 32, "heads": 2, "layers": 3, "mlp": 64}
    resampler = {"width": 32, "heads": 2, "head_width": 16, "mlp": 64}
    settings = {
        "width": plain["emb_dim"],
        "heads": plain["num_heads"],
        "head_width": plain["head_dim"],
        "mlp": plain["mlp_dim"],
        "encoder_layers": plain["num_encoder_layers"],
        "decoder_layers": plain["num_decoder_layers"],
        "text_rows": plain["vocab_size"],
        "image_rows": plain["image_vocab_size"],
        "audio_rows": plain["audio_vocab_size"],
        "image_grid": (24, 24),
        "history_grid": (16, 16),
        "audio_grid": (16, 8),
        "image_target_grid": TARGET_GRIDS[DecoderModality.IMAGE],
        "audio_target_grid": TARGET_GRIDS[DecoderModality.AUDIO],
        "image_encoder": PatchEncoderConfig(kind="vit", patch_values=768, positions=(14, 14), **encoder),
        "audio_encoder": PatchEncoderConfig(kind="ast", patch_values=256, positions=(8, 64), **encoder),
        "image_resampler": ResamplerConfig(**resampler, latents=8),
        "audio_resampler": ResamplerConfig(**resampler, latents=4, attention="scaled_cosine"),
        "audio_target_positions": "released",
    }
    return BackboneConfig.model_validate({**settings, **changes})


def golden_model(parity: Path, **changes: object) -> Backbone:
    """The recorded model, loaded the way that published weights are."""
    model = Backbone(golden_config(parity, **changes))
    fill_from_published(model, str(parity / WEIGHTS))
    return model.requires_grad_(False)


def golden_code_networks(parity: Path) -> tuple[CodeNetwork, CodeNetwork]:
    """The recorded networks of pictures and of sound."""
    shapes = json.loads((parity / "06_tiny_model_config.json").read_text())
    image, audio = shapes["image_vqgan"], shapes["audio_vqgan"]
    picture = VqganConfig(
        channels=image["ch"],
        multipliers=tuple(image["ch_mult"]),
        blocks=image["num_res_blocks"],
        attention_sides=tuple(image["attn_resolutions"]),
        code_width=image["z_channels"],
    )
    sound = VitVqganConfig(
        width=audio["encoder_hidden_size"],
        layers=audio["encoder_num_layers"],
        heads=audio["encoder_num_heads"],
        head_width=audio["encoder_head_dim"],
        hidden=audio["encoder_mlp_dim"],
        code_width=audio["proj_dim"],
    )
    networks = (
        image_network(picture, ImageLayout(codes=image["n_embed"])),
        audio_network(sound, AudioLayout(codes=audio["vocab_size"])),
    )
    with open_checkpoint(str(parity / WEIGHTS)) as checkpoint:
        for network in networks:
            fill(network.eval().requires_grad_(False), checkpoint)
    return networks


def golden_batch(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> PackedBatch:
    """The recorded inputs as a batch of two sequences of one example each."""
    streams = {stream: stream.name.lower() for stream in EncoderModality}
    rows = len(encoder["in/text/tokens"])
    sizes = {stream: encoder[f"out/{name}/mask"].shape[1] for stream, name in streams.items()}
    starts = dict(zip(streams, np.cumsum([0, *sizes.values()]), strict=False))
    slots = sum(sizes.values())

    def frames(stream: EncoderModality) -> Frames:
        name, latents = streams[stream], LATENTS.get(stream)
        values, valid, index = (encoder[f"in/{name}/{part}"] for part in ("input", "mask", "pos_ids"))
        if latents is None:
            values, valid, index = (part[:, None] for part in (values, valid, index))
        number = torch.arange(valid.shape[1]).expand(valid.shape[:2])
        first = torch.arange(rows)[:, None] * slots + int(starts[stream]) + number * (latents or 0)
        slot = first[..., None] + torch.arange(latents or valid.shape[2])
        kept = valid.any(-1)
        slot = slot[kept] if latents else slot[kept].where(valid[kept] > 0, -1)
        return Frames(values[kept].float(), index[kept], valid[kept] > 0, slot, number[kept])

    position = torch.zeros(rows, slots, 2)
    position[:, : sizes[EncoderModality.TEXT], 0] = encoder["in/text/pos_ids"].float()
    for stream, columns in ((EncoderModality.IMAGE, 24), (EncoderModality.AUDIO, 8)):
        index = encoder[f"in/{streams[stream]}/pos_ids"]
        here = slice(int(starts[stream]), int(starts[stream]) + sizes[stream])
        position[:, here] = torch.stack([index // columns, index % columns], -1) * 4 / 3
    for stream, latents in LATENTS.items():
        here = slice(int(starts[stream]), int(starts[stream]) + sizes[stream])
        position[:, here] = grid_positions(sizes[stream] // latents, latents)
    seen = encoder["in/text/mask"] > 0
    text_slot = (torch.arange(rows)[:, None] * slots + torch.arange(sizes[EncoderModality.TEXT]))[seen]

    names = {modality: modality.name.lower() for modality in DecoderModality}
    targets = [decoder[f"out/{name}/{name}/targets"].long() for name in names.values()]
    masks = [decoder[f"in/{name}/mask"] > 0 for name in names.values()]
    loss = [decoder[f"in/{name}/{'mask' if name == 'text' else 'loss_mask'}"] for name in names.values()]
    hidden = [decoder.get(f"in/{name}/task_mask", torch.zeros_like(masks[0])) > 0 for name in names.values()]
    line = torch.nn.functional.pad(torch.arange(float(targets[0].shape[1]))[None, :, None], (0, 1))
    places = [line, *(grid_positions(*grid) for grid in TARGET_GRIDS.values())]
    kind = torch.cat([torch.full_like(part, m) for m, part in zip(DecoderModality, targets, strict=True)], 1)
    return PackedBatch(
        text_ids=encoder["in/text/tokens"][seen],
        text_slot=text_slot,
        **{name: frames(stream) for stream, name in streams.items() if stream != EncoderModality.TEXT},
        encoder_segment=encoder["out/encoder/concat_mask"].long(),
        encoder_modality=torch.cat([torch.full((rows, sizes[s]), s) for s in streams], 1),
        encoder_position=position,
        decoder_ids=torch.cat([torch.nn.functional.pad(part, (1, -1)) for part in targets], 1),
        decoder_targets=torch.cat(targets, 1),
        decoder_loss=torch.cat(loss, 1).float(),
        decoder_segment=torch.cat(masks, 1).long(),
        decoder_modality=kind,
        decoder_position=torch.cat(places, 1).expand(rows, -1, -1),
        decoder_hidden=torch.cat(hidden, 1),
        decoder_task=torch.zeros_like(kind),
    )


def folded(batch: PackedBatch) -> PackedBatch:
    """The batch's sequences one after the other in a single one."""
    rows = torch.arange(len(batch.encoder_segment))[:, None] + 1
    changes = {
        name: getattr(batch, name).flatten(0, 1)[None]
        for name in vars(batch)
        if name.startswith(("encoder_", "decoder_"))
    }
    for side in ("encoder_segment", "decoder_segment"):
        changes[side] = (getattr(batch, side) * rows).flatten()[None]
    return PackedBatch(**{**vars(batch), **changes})
