"""Parts of the backbone against values worked out by hand, and against golden vectors where they are present."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from omnimill.training.backbone.blocks import MLP, Attention, GatedMLP, RMSNorm, attend
from omnimill.training.backbone.config import BackboneConfig, PatchEncoderConfig, ResamplerConfig
from omnimill.training.backbone.model import Backbone
from omnimill.training.backbone.patches import PatchEncoder
from omnimill.training.backbone.resampler import Resampler
from omnimill.training.backbone.rotary import Rotation, rotate, rotation
from omnimill.training.batch import DecoderModality, EncoderModality, Frames, PackedBatch
from omnimill.training.loss import modality_sums

Arrays = Mapping[str, npt.NDArray[np.float32]]


def golden(parity: Path, name: str) -> dict[str, Tensor]:
    """Arrays of one golden file; empty when it is not there."""
    file = parity / name
    if not file.exists():
        return {}
    with np.load(file) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def weights_of(arrays: Mapping[str, Tensor], block: str) -> dict[str, Tensor]:
    return {key.partition("/w/")[2]: value for key, value in arrays.items() if key.startswith(f"{block}/w/")}


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected.float(), atol=tolerance, rtol=tolerance)


def cached(table: Tensor) -> Rotation:
    """A rotation from the recorded layout: cos 0, sin 0, cos 1, sin 1, …"""
    return Rotation(table[..., 0::2], table[..., 1::2])


def grid_positions(rows: int, columns: int, scale: float = 1.0) -> Tensor:
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()[None] * scale


# --- by hand ---


def test_rms_norm_by_hand() -> None:
    norm = RMSNorm(2)
    norm.scale.data = torch.tensor([1.0, 2.0])
    # mean of squares of (3, 4) is 12.5
    near(norm(torch.tensor([3.0, 4.0])), torch.tensor([3.0, 8.0]) / math.sqrt(12.5))
    near(norm(torch.zeros(2)), torch.zeros(2))


def test_rotation_by_hand() -> None:
    """1-D: pair i turns by p * 10000^(-2i/K); 2-D: the first half by the row, the second by the column."""
    position = torch.tensor([[[3.0, 9.0], [3.0, 9.0]]])
    found = rotation(position, torch.tensor([[True, False]]), 8)
    line = torch.tensor([3.0, 0.3, 0.03, 0.003])
    plane = torch.tensor([3.0, 0.03, 9.0, 0.09])
    near(found.cos[0], torch.stack([line, plane]).cos())
    near(found.sin[0], torch.stack([line, plane]).sin())
    quarter = Rotation(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    near(rotate(torch.tensor([[[[2.0, 5.0]]]]), quarter), torch.tensor([[[[-5.0, 2.0]]]]))


def test_rotated_products_depend_on_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8).unbind(0)

    def product(at: tuple[float, float], other: tuple[float, float]) -> Tensor:
        flat = torch.zeros(1, 1, dtype=torch.bool)
        turned = [rotate(x, rotation(torch.tensor([[p]]), flat, 8)) for x, p in ((q, at), (k, other))]
        return (turned[0] * turned[1]).sum(-1)

    near(product((2, 5), (1, 3)), product((7, 12), (6, 10)), 1e-4)
    assert not torch.allclose(product((2, 5), (1, 3)), product((2, 5), (1, 4)))


def test_attention_by_hand() -> None:
    """Two keys with logits 0 and ln 3 share the weight 1 : 3; a masked key has none; all masked gives zeros."""
    q, k = torch.tensor([[[[1.0]]]]), torch.tensor([[[[0.0], [math.log(3.0)]]]])
    v = torch.tensor([[[[4.0], [8.0]]]])
    assert math.isclose(attend(q, k, v, None, 1.0).item(), 7.0, rel_tol=1e-6)
    mask = torch.tensor([[[[True, False]]]])
    assert math.isclose(attend(q, k, v, mask, 1.0).item(), 4.0, rel_tol=1e-6)
    assert attend(q, k, v, torch.zeros_like(mask), 1.0).item() == 0.0


def test_attention_keeps_its_logits_in_float32() -> None:
    """In bfloat16, logits that differ by 0.1 at 1,000 would be equal; the weights must not be."""
    q = torch.tensor([[[[100.0, 1.0]]]]).bfloat16()
    k = torch.tensor([[[[10.0, 0.0], [10.0, 0.1]]]]).bfloat16()
    v = torch.tensor([[[[0.0], [1.0]]]]).bfloat16()
    assert abs(attend(q, k, v, None, 1.0).float().item() - 1 / (1 + math.exp(-0.1))) < 4e-3


def test_scaled_cosine_ignores_the_length_of_its_inputs() -> None:
    torch.manual_seed(0)
    block = Attention(8, 2, 4, "scaled_cosine")
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x, context = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    k, v = block.keys_values(context, None)
    near(block.combine(block.queries(x * 10, None), k, v, None), block(x, context, None))
    with torch.no_grad():
        block.logit_scale.fill_(20.0)  # type: ignore[union-attr, operator]
        q = block.queries(x, None)
    near(q.norm(dim=-1), torch.full((1, 2, 3), 100.0))


def test_mlps_by_hand() -> None:
    gated, plain = GatedMLP(1, 1), MLP(1, 1)
    for parameter in (*gated.parameters(), *plain.parameters()):
        nn.init.constant_(parameter, 2.0)
    silu = 2.0 / (1.0 + math.exp(-2.0))
    near(gated(torch.ones(1)), torch.tensor([silu * 2.0 * 2.0]))
    gelu = 2.0 * 0.5 * (1.0 + math.erf(2.0 / math.sqrt(2.0)))
    near(plain(torch.ones(1)), torch.tensor([gelu * 2.0]))


# --- golden vectors ---


def test_golden_rotations(parity: Path) -> None:
    arrays = golden(parity, "01_rope.npz")
    line = torch.nn.functional.pad(torch.arange(512.0)[None, :, None], (0, 1))
    grids = {
        "cache_1d_len16_hd16": line[:, :16],
        "cache_1d_len512_hd64": line,
        "cache_2d_4x6_hd16_res1": grid_positions(4, 6),
        "cache_2d_24x24_hd16_res1.3333": grid_positions(24, 24, 4 / 3),
        "cache_2d_audio_in_16x8_hd16_res1.3333": grid_positions(16, 8, 4 / 3),
        "cache_2d_image_target_32x32_hd16": grid_positions(32, 32),
        "cache_2d_history_8frames_x_32latents_hd16": grid_positions(8, 32),
    }
    for name in grids.keys() & arrays.keys():
        flat = torch.full(grids[name].shape[:2], "_1d_" in name)
        found = rotation(grids[name], flat, arrays[name].shape[1])
        near(torch.stack([found.cos[0], found.sin[0]], -1).flatten(1), arrays[name])
    if arrays:
        turned = rotate(arrays["apply_x_bqhd"].transpose(1, 2), cached(arrays["apply_cache_bqd"]))
        near(turned.transpose(1, 2), arrays["apply_y_bqhd"])


def test_golden_blocks(parity: Path) -> None:
    arrays = golden(parity, "02_norm_attention_mlp.npz")
    blocks = {"rmsnorm": RMSNorm(16), "mlp_silu_gated": GatedMLP(32, 48), "mlp_gelu": MLP(32, 48)} if arrays else {}
    for name, block in blocks.items():
        block.load_state_dict(weights_of(arrays, name))
        near(block(arrays[f"{name}/in/x"]), arrays[f"{name}/out/y"])


def test_golden_attention(parity: Path) -> None:
    arrays = golden(parity, "02_norm_attention_mlp.npz")
    for name in ("qknorm", "plain", "scaled_cosine") if arrays else ():
        block = Attention(32, 4, 8, {"qknorm": "qk_norm", "plain": "none"}.get(name, name))  # type: ignore[arg-type]
        block.load_state_dict(weights_of(arrays, f"attn_{name}"))
        inputs = {key.rpartition("/")[2]: value for key, value in arrays.items() if key.startswith(f"attn_{name}/in/")}
        mask = inputs["mask"] > 0
        turns = [cached(inputs[f"{side}_sinusoids"]) for side in ("q", "k")]
        # A query that sees nothing is uniform over all keys there and zero here.
        seeing = mask.any(-1)[:, 0]
        for case, rest in {"nomask_norope": (None,), "mask_norope": (mask,), "mask_rope": (mask, *turns)}.items():
            found = block(inputs["inputs_q"], inputs["inputs_kv"], *rest)
            near(found[seeing], arrays[f"attn_{name}/out/{case}"][seeing])


def test_golden_resamplers(parity: Path) -> None:
    arrays = golden(parity, "03_perceiver.npz")
    for name, attention in {"qknorm_L_XL": "qk_norm", "scaled_cosine_XXL": "scaled_cosine"}.items() if arrays else ():
        config = ResamplerConfig(width=32, heads=2, head_width=16, mlp=64, latents=8, attention=attention)
        resampler = Resampler(config, 32, 32)
        weights = {resampler_name(key): value for key, value in weights_of(arrays, name).items()}
        resampler.load_state_dict(weights, strict=False)
        found = resampler.resample(arrays[f"{name}/in/embed"], arrays[f"{name}/in/mask"] > 0)
        near(found[:2], arrays[f"{name}/out/latents"][:2])


def test_golden_patch_encoders(parity: Path) -> None:
    size = {"width": 32, "heads": 2, "layers": 3, "mlp": 64}
    vit = PatchEncoderConfig(kind="vit", patch_values=768, positions=(14, 14), **size)
    ast = PatchEncoderConfig(kind="ast", patch_values=256, positions=(8, 64), **size)
    cases = [
        ("04_vit", vit, (24, 24), "_grid24x24"),
        ("04_vit", vit, (16, 16), "_grid16x16"),
        ("04_vit", vit, (14, 14), "_grid14x14"),
        ("05_ast", ast, (16, 8), ""),
    ]
    for file, config, grid, suffix in cases:
        arrays, block = golden(parity, f"{file}.npz"), file[3:]
        if arrays:
            encoder = PatchEncoder(config)
            encoder.load_state_dict(patch_encoder_weights(weights_of(arrays, block)))
            valid = arrays[f"{block}/in/mask"] > 0
            found = encoder(arrays[f"{block}/in/patches"], arrays[f"{block}/in/pos_ids{suffix}"], valid, grid)
            for features, name in zip(found, ("x", "x1"), strict=True):
                near(features[valid], arrays[f"{block}/out/{name}{suffix}"][valid])


def test_golden_model(parity: Path) -> None:
    """A whole small model: encoder over all five input streams, decoder and losses for all three targets."""
    encoder, decoder = golden(parity, "06_encoder.npz"), golden(parity, "07_decoder.npz")
    if not encoder or not decoder:
        return
    model = golden_model(parity).requires_grad_(False)
    batch = golden_batch(encoder, decoder)
    encoded = model.encode(batch)
    real = encoder["out/encoder/concat_mask"] > 0
    near(encoded.hidden[real], encoder["out/encoder/final"][real], 1e-4)

    hidden = model.decode(encoded, batch)
    for modality, stride in zip(DecoderModality, (1, 8, 8), strict=True):
        name = modality.name.lower()
        expected = decoder[f"out/text+image+audio/{name}/logits" + ("_every8th" if stride > 1 else "")]
        at = batch.decoder_modality[0] == modality
        found = model.logits(hidden[:, at], modality)[:, ::stride]
        seen = decoder[f"in/{name}/mask"][:, ::stride] > 0
        near(found[seen], expected[seen], 1e-4)

    sums = modality_sums(model(batch), batch)
    for modality in DecoderModality:
        name = modality.name.lower()
        near(sums.nll[modality] / sums.weight[modality], decoder[f"out/{name}/{name}/ce_mean_over_loss_mask"], 1e-4)
        near(sums.z[modality] / sums.weight[modality], decoder[f"out/{name}/{name}/zloss_1e-4_mean"], 1e-4)


def golden_model(parity: Path) -> Backbone:
    plain = json.loads((parity / "06_tiny_model_config.json").read_text())["t5_config"]
    encoder = {"width": 32, "heads": 2, "layers": 3, "mlp": 64}
    resampler = {"width": 32, "heads": 2, "head_width": 16, "mlp": 64}
    config = BackboneConfig(
        width=plain["emb_dim"],
        heads=plain["num_heads"],
        head_width=plain["head_dim"],
        mlp=plain["mlp_dim"],
        encoder_layers=plain["num_encoder_layers"],
        decoder_layers=plain["num_decoder_layers"],
        text_rows=plain["vocab_size"],
        image_rows=plain["image_vocab_size"],
        audio_rows=plain["audio_vocab_size"],
        image_grid=(24, 24),
        history_grid=(16, 16),
        audio_grid=(16, 8),
        image_encoder=PatchEncoderConfig(kind="vit", patch_values=768, positions=(14, 14), **encoder),
        audio_encoder=PatchEncoderConfig(kind="ast", patch_values=256, positions=(8, 64), **encoder),
        image_resampler=ResamplerConfig(**resampler, latents=8),
        audio_resampler=ResamplerConfig(**resampler, latents=4, attention="scaled_cosine"),
    )
    model = Backbone(config)
    model.load_state_dict(model_weights(read_safetensors(parity / "06_tiny_model.safetensors")))
    return model


def golden_batch(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> PackedBatch:
    """The recorded inputs as a batch of two sequences of one example each."""
    streams = {stream: stream.name.lower() for stream in EncoderModality}
    rows = len(encoder["in/text/tokens"])
    sizes = {stream: encoder[f"out/{name}/mask"].shape[1] for stream, name in streams.items()}
    starts = dict(zip(streams, np.cumsum([0, *sizes.values()]), strict=False))
    slots = sum(sizes.values())

    def frames(stream: EncoderModality, latents: int | None = None) -> Frames:
        name = streams[stream]
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
    for stream, latents in ((EncoderModality.IMAGE_HISTORY, 8), (EncoderModality.AUDIO_HISTORY, 4)):
        here = slice(int(starts[stream]), int(starts[stream]) + sizes[stream])
        position[:, here] = grid_positions(sizes[stream] // latents, latents)
    seen = encoder["in/text/mask"] > 0
    text_slot = (torch.arange(rows)[:, None] * slots + torch.arange(sizes[EncoderModality.TEXT]))[seen]

    targets = [decoder[f"out/{name}/{name}/targets"].long() for name in ("text", "image", "audio")]
    masks = [decoder[f"in/{name}/mask"] > 0 for name in ("text", "image", "audio")]
    loss = [
        decoder[f"in/{name}/{part}"]
        for name, part in (("text", "mask"), ("image", "loss_mask"), ("audio", "loss_mask"))
    ]
    kind = torch.cat([torch.full_like(part, m) for m, part in zip(DecoderModality, targets, strict=True)], 1)
    # The recorded audio targets are 32 x 16 tokens whose positions were made for a grid of 16 x 32.
    places = [
        torch.nn.functional.pad(torch.arange(16.0)[None, :, None], (0, 1)),
        grid_positions(32, 32),
        grid_positions(16, 32),
    ]
    return PackedBatch(
        text_ids=encoder["in/text/tokens"][seen],
        text_slot=text_slot,
        image=frames(EncoderModality.IMAGE),
        image_history=frames(EncoderModality.IMAGE_HISTORY, 8),
        audio=frames(EncoderModality.AUDIO),
        audio_history=frames(EncoderModality.AUDIO_HISTORY, 4),
        encoder_segment=encoder["out/encoder/concat_mask"].long(),
        encoder_modality=torch.cat([torch.full((rows, sizes[s]), s) for s in streams], 1),
        encoder_position=position,
        decoder_ids=torch.cat([torch.nn.functional.pad(part, (1, -1)) for part in targets], 1),
        decoder_targets=torch.cat(targets, 1),
        decoder_loss=torch.cat(loss, 1).float(),
        decoder_segment=torch.cat(masks, 1).long(),
        decoder_modality=kind,
        decoder_position=torch.cat(places, 1).expand(rows, -1, -1),
        decoder_hidden=torch.zeros_like(kind, dtype=torch.bool),
        decoder_task=torch.zeros_like(kind),
    )


# --- names of the recorded weights ---


def resampler_name(name: str) -> str:
    name = name.replace("resampler.", "").replace("perceiver.", "").replace("layers_", "layers.")
    return name.replace("xattention", "attention").replace("perceiver_norm", "norm")


def patch_encoder_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {"transformer.resblocks": "layers", "attn.": "", "_in_proj_": ".", "out_proj": "out", "mlp.fc1": "mlp.wi"}
    renamed |= {"mlp.fc2": "mlp.wo", "pre_ln": "pre_norm", "positional_embedding": "positions"}
    result, extra = {}, []
    for name, value in weights.items():
        own = name.removeprefix("vision_transformer.")
        if own in ("class_embedding", "cls_token", "dist_token"):
            extra.append((own, value))
            continue
        for old, new in renamed.items():
            own = own.replace(old, new)
        result[own] = value
    return {**result, "extra_tokens": torch.stack([value for _, value in sorted(extra)])}


def model_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}

    def stacked(side: str, kinds: type[EncoderModality] | type[DecoderModality]) -> Tensor:
        return torch.stack([weights[f"{side}_embedders.{kind.name.lower()}.modality_embedding"] for kind in kinds])

    result = {f"{name}_table.weight": weights[f"{name}_token_embedder.weight"] for name in ("text", "image", "audio")}
    for side in ("encoder", "decoder"):
        for name, value in under(f"{side}.").items():
            own = name.replace("encoder_decoder_attention", "cross_attention").replace("layers_", f"{side}_layers.")
            result[own] = value
    for name in ("image", "audio"):
        result[f"inputs.{name}_projection.weight"] = weights[f"input_embedders.{name}.projection.weight"]
        for own, value in patch_encoder_weights(under(f"input_embedders.{name}.image_encoder.")).items():
            result[f"inputs.{name}_encoder.{own}"] = value
        for own, value in under(f"input_embedders.{name}_history.").items():
            if own != "modality_embedding":
                result[f"inputs.{name}_resampler.{resampler_name(own)}"] = value
    result["inputs.modality"] = stacked("input", EncoderModality)
    result["decoder_modality"] = stacked("target", DecoderModality)
    return result


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file: a JSON header after its length in 8 bytes, then the raw values."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    body = memoryview(data)[8 + length :]
    header = {name: entry for name, entry in json.loads(data[8 : 8 + length]).items() if name != "__metadata__"}
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    return {
        name: torch.from_numpy(np.frombuffer(body[slice(*entry["data_offsets"])], "<f4").copy()).view(entry["shape"])
        for name, entry in header.items()
    }
