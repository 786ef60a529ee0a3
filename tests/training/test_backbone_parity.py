"""Parts of the backbone against values worked out by hand, and against golden vectors where they are present."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from golden_backbone import golden, grid_positions, near
from torch import Tensor, nn

from omnimill.training.backbone.blocks import MLP, Attention, GatedMLP, RMSNorm, attend
from omnimill.training.backbone.config import PatchEncoderConfig, ResamplerConfig
from omnimill.training.backbone.patches import PatchEncoder
from omnimill.training.backbone.resampler import Resampler
from omnimill.training.backbone.rotary import Rotation, rotate, rotation
from omnimill.training.checkpoints.published_weights import published_names


def weights_of(arrays: Mapping[str, Tensor], block: str) -> dict[str, Tensor]:
    return {key.partition("/w/")[2]: value for key, value in arrays.items() if key.startswith(f"{block}/w/")}


def load(module: nn.Module, place: str, prefix: str, weights: Mapping[str, Tensor]) -> None:
    """Give a part of the model, which is at `place`, all recorded weights; `prefix` is not part of their names."""
    names = published_names(f"{place}.{name}" for name in module.state_dict())
    recorded = {own: [name.removeprefix(prefix) for name in stored] for own, stored in names.items()}
    state = {}
    for own, stored in recorded.items():
        if weights.keys() >= set(stored):
            value = torch.stack([weights[name] for name in stored])
            state[own.removeprefix(f"{place}.")] = value if own.endswith("extra_tokens") else value[0]
    assert {name for stored in recorded.values() for name in stored} >= weights.keys()
    module.load_state_dict(state, strict=False)


def cached(table: Tensor) -> Rotation:
    """A rotation from the recorded layout: cos 0, sin 0, cos 1, sin 1, …"""
    return Rotation(table[..., 0::2], table[..., 1::2])


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
        # What the released code turns sound targets by, see `BackboneConfig.audio_target_positions`.
        "cache_2d_audio_target_16x32_hd16": grid_positions(16, 32),
        "cache_2d_history_8frames_x_32latents_hd16": grid_positions(8, 32),
    }
    assert not arrays or grids.keys() == {name for name in arrays if name.startswith("cache_")}
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
        load(resampler, "inputs.image_resampler", "input_embedders.image_history.resampler.", weights_of(arrays, name))
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
            place = "image" if block == "vit" else "audio"
            prefix = f"input_embedders.{place}.image_encoder."
            load(encoder, f"inputs.{place}_encoder", prefix, weights_of(arrays, block))
            valid = arrays[f"{block}/in/mask"] > 0
            found = encoder(arrays[f"{block}/in/patches"], arrays[f"{block}/in/pos_ids{suffix}"], valid, grid)
            for features, name in zip(found, ("x", "x1"), strict=True):
                near(features[valid], arrays[f"{block}/out/{name}{suffix}"][valid])
            resized = f"{block}/out/posemb_interp{suffix.removeprefix('_grid').rjust(6, '_')}"
            if resized in arrays:
                every = torch.arange(grid[0] * grid[1])[None]
                near(encoder._positions(every, grid).view(*grid, -1), arrays[resized])
