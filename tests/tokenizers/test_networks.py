"""The reference's code networks: their sizes, their numbers against recorded ones and by hand, and that they learn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_backbone import golden_code_networks
from torch import Tensor

from omnimill.tokenizers import audio
from omnimill.tokenizers.networks import (
    CodeNetwork,
    VitVqganConfig,
    VqganConfig,
    audio_network,
    image_network,
)
from omnimill.tokenizers.vit_vqgan import sincos_positions
from omnimill.tokenizers.vq import picture_input, sound_input
from omnimill.tokens import AudioLayout, ImageLayout

TINY_IMAGE = VqganConfig(channels=8, multipliers=(1, 2), blocks=1, attention_sides=(8,), code_width=3)
TINY_AUDIO = VitVqganConfig(width=16, layers=1, heads=2, head_width=6, hidden=24, code_width=5)
IMAGE = ImageLayout(input_size=16, history_size=16, target_size=16, patch=8, code_stride=2, codes=32)
AUDIO = AudioLayout(segment_seconds=0.5, frames=32, mels=16, patch=8, code_patch=(8, 4), codes=16)


def parameters(network: CodeNetwork) -> int:
    """Numbers that are learned, the codebook included."""
    return sum(tensor.numel() for tensor in network.state_dict().values())


def test_the_reference_has_the_published_sizes() -> None:
    with torch.device("meta"):
        pictures = image_network(VqganConfig(), ImageLayout())
        sounds = audio_network(VitVqganConfig(), AudioLayout())
        assert pictures.encode(torch.zeros(1, 3, 256, 256)).shape == (1, 32, 32)
        assert pictures.decode(torch.zeros(1, 32, 32, dtype=torch.int64)).shape == (1, 3, 256, 256)
        assert sounds.encode(torch.zeros(1, 1, 256, 128)).shape == (1, 32, 16)
        assert sounds.decode(torch.zeros(1, 32, 16, dtype=torch.int64)).shape == (1, 1, 256, 128)
    assert pictures.last_layer.shape == (3, 128, 3, 3)
    assert sounds.last_layer.shape == (512, 1, 8, 8)
    assert (parameters(pictures), parameters(sounds)) == (67_717_295, 50_768_416)
    # What the published totals of whole models (1,080,595,919 and so on) hold besides the backbone, to the last one.
    assert parameters(pictures) + parameters(sounds) == 118_485_711


# --- recorded from the reference ---


def golden(parity: Path, name: str) -> dict[str, np.ndarray]:
    """Arrays by name; none where the folder is not there."""
    file = parity / name
    return dict(np.load(file)) if file.exists() else {}


def close(found: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4, rtol=1e-4)


def same_codes(found: Tensor, expected: np.ndarray, margin: np.ndarray) -> None:
    np.testing.assert_array_equal(found.reshape(expected.shape).numpy()[margin > 1e-4], expected[margin > 1e-4])


def test_golden_pictures(parity: Path) -> None:
    if not (arrays := golden(parity, "08_image_vqgan.npz")):
        return
    network, _ = golden_code_networks(parity)
    inputs = picture_input(torch.from_numpy(arrays["in/image_u8_bhwc"]))
    close(network.encoder(inputs), arrays["out/encoder_h_bchw"])
    latent = network.latent(inputs)
    close(latent.permute(0, 3, 1, 2), arrays["out/z_prequant_bchw"])
    codes = network.encode(inputs)
    same_codes(codes, arrays["out/indices_bn"], arrays["out/nearest_margin"])
    outputs, again, commitment = network(inputs)
    assert torch.equal(again, codes)
    # The recorded loss is 0.25 of the commitment and the whole of the codebook's, which have the same value.
    close(1.25 * commitment, arrays["out/commit_loss"])
    close(network.quantiser.vectors_of(codes).permute(0, 3, 1, 2), arrays["out/z_q_bchw"])
    close(outputs, arrays["out/decoded_bchw"])
    recorded = torch.from_numpy(arrays["out/indices_bn"]).long().view(codes.shape)
    close(network.decode(recorded), arrays["out/decoded_from_codes_bchw"])
    whole = network.encode(picture_input(torch.from_numpy(arrays["in/target_image_u8_bhwc"])))
    assert (whole.flatten(1).numpy() == arrays["out/target_indices_bn"]).mean() > 0.998  # no margins recorded


def test_golden_sounds(parity: Path) -> None:
    if not (arrays := golden(parity, "09_audio_vqgan.npz")):
        return
    _, network = golden_code_networks(parity)
    inputs = torch.from_numpy(arrays["in/spectrogram_norm_b_time256_mel128_1"]).permute(0, 3, 1, 2)
    latent = network.latent(inputs)
    close(latent.transpose(1, 2).flatten(1, 2), arrays["out/encoder_h_bnd"])
    codes = network.encode(inputs)
    mel_major = arrays["out/indices_bn_encoderorder_16x32"]
    same_codes(codes.transpose(1, 2), mel_major, arrays["out/nearest_margin"])
    if (arrays["out/nearest_margin"] > 1e-4).all():
        np.testing.assert_array_equal(codes.flatten(1) + 2, arrays["out/target_tokens_plus2_b512_order32x16"])
    outputs, _, commitment = network(inputs)
    close(network.quantiser.vectors_of(codes).transpose(1, 2).flatten(1, 2), arrays["out/z_q_bnd"])
    close(1.25 * commitment, arrays["out/commit_loss"])
    close(outputs.transpose(2, 3), arrays["out/decoded_straightthrough_b1hw"])
    recorded = torch.from_numpy(arrays["out/target_tokens_plus2_b512_order32x16"]).long() - 2
    decoded = network.decode(recorded.view(-1, 32, 16))
    close(decoded.transpose(2, 3), arrays["out/decoded_from_codes_b1_mel128_time256"])


def test_golden_positions(parity: Path) -> None:
    if not (arrays := golden(parity, "01_rope.npz")):
        return
    close(sincos_positions((16, 32), 32), arrays["sincos2d_emb32_img128x256_patch8"].reshape(512, 32))
    close(sincos_positions((4, 6), 16), arrays["sincos2d_emb16_img32x48_patch8"].reshape(24, 16))


# --- recomputed by hand ---


def test_positions_by_hand() -> None:
    table = sincos_positions((2, 3), 8)
    # Cell (row 1, column 2): two rates, 1 and 1/100; first the column, then the row.
    by_hand = [np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02), np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)]
    close(table[5], np.array(by_hand, np.float32))


def test_a_picture_network_by_hand() -> None:
    torch.manual_seed(0)
    network = image_network(TINY_IMAGE, IMAGE).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_(0.0, 0.3)
    inputs = torch.rand(2, 3, 16, 16) * 2 - 1
    state = network.state_dict()

    def conv(x: Tensor, name: str, **how: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)

    def norm(x: Tensor, name: str) -> Tensor:
        groups = x.shape[1]  # 32 in the reference; 8 and 16 channels have no more groups than channels
        grouped = x.reshape(len(x), groups, -1)
        centred = grouped - grouped.mean(2, keepdim=True)
        scaled = centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt()
        return scaled.reshape(x.shape) * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    def swish(x: Tensor) -> Tensor:
        return x / (1 + torch.exp(-x))

    def residual(x: Tensor, name: str) -> Tensor:
        hidden = conv(swish(norm(x, f"{name}.norm1")), f"{name}.conv1", padding=1)
        hidden = conv(swish(norm(hidden, f"{name}.norm2")), f"{name}.conv2", padding=1)
        return hidden + (conv(x, f"{name}.nin_shortcut") if f"{name}.nin_shortcut.weight" in state else x)

    def attention(x: Tensor, name: str) -> Tensor:
        hidden = norm(x, f"{name}.norm")
        query, key, value = (conv(hidden, f"{name}.{part}").flatten(2) for part in "qkv")
        shares = torch.softmax(query.transpose(1, 2) @ key / x.shape[1] ** 0.5, dim=2)
        return x + conv((value @ shares.transpose(1, 2)).view(x.shape), f"{name}.proj_out")

    hidden = residual(conv(inputs, "encoder.conv_in", padding=1), "encoder.down.0.block.0")
    wider = torch.zeros(2, 8, 17, 17)
    wider[:, :, :16, :16] = hidden
    hidden = residual(conv(wider, "encoder.down.0.downsample.conv", stride=2), "encoder.down.1.block.0")
    hidden = attention(hidden, "encoder.down.1.attn.0")
    hidden = attention(residual(hidden, "encoder.mid.block_1"), "encoder.mid.attn_1")
    hidden = swish(norm(residual(hidden, "encoder.mid.block_2"), "encoder.norm_out"))
    latent = conv(conv(hidden, "encoder.conv_out", padding=1), "quant_conv")
    torch.testing.assert_close(network.latent(inputs).permute(0, 3, 1, 2), latent, atol=1e-4, rtol=1e-4)

    hidden = conv(conv(latent, "post_quant_conv"), "decoder.conv_in", padding=1)
    hidden = attention(residual(hidden, "decoder.mid.block_1"), "decoder.mid.attn_1")
    hidden = residual(hidden, "decoder.mid.block_2")
    for block in range(2):
        hidden = attention(residual(hidden, f"decoder.up.0.block.{block}"), f"decoder.up.0.attn.{block}")
    hidden = conv(hidden.repeat_interleave(2, 2).repeat_interleave(2, 3), "decoder.up.0.upsample.conv", padding=1)
    hidden = residual(residual(hidden, "decoder.up.1.block.0"), "decoder.up.1.block.1")
    outputs = conv(swish(norm(hidden, "decoder.norm_out")), "decoder.conv_out", padding=1)
    torch.testing.assert_close(network.output(latent.permute(0, 2, 3, 1)), outputs, atol=1e-4, rtol=1e-4)


def test_a_sound_network_by_hand() -> None:
    torch.manual_seed(0)
    network = audio_network(TINY_AUDIO, AUDIO).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_(0.0, 0.3)
    inputs = torch.randn(2, 1, 32, 16)
    state = {name: value.double() for name, value in network.state_dict().items()}

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(2, keepdim=True)
        scaled = centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt()
        return scaled * state.get(f"{name}.weight", torch.ones(())) + state[f"{name}.bias"]

    def transformer(x: Tensor, name: str) -> Tensor:
        layer = f"{name}.layers.0"
        hidden = norm(x, f"{layer}.ln_1")
        mixed = []
        for head in range(2):
            rows = slice(6 * head, 6 * head + 6)
            query, key, value = (
                hidden @ state[f"{layer}.attn.{part}.weight"][rows].T for part in ("query", "key", "value")
            )
            mixed.append(torch.softmax(query @ key.transpose(1, 2) / 6**0.5, dim=2) @ value)
        x = x + torch.cat(mixed, 2) @ state[f"{layer}.attn.out.weight"].T
        hidden = norm(x, f"{layer}.ln_2") @ state[f"{layer}.mlp.fc1.weight"].T + state[f"{layer}.mlp.fc1.bias"]
        x = x + hidden.clamp(min=0) @ state[f"{layer}.mlp.fc2.weight"].T + state[f"{layer}.mlp.fc2.bias"]
        return norm(x, f"{name}.encoder_norm")

    # Patches of 4 mel bands x 8 frames, mel bands first in the order of patches and inside each.
    cells = [(mel, time) for mel in range(4) for time in range(4)]
    patches = torch.stack(
        [
            inputs[:, 0, 8 * time : 8 * time + 8, 4 * mel : 4 * mel + 4].transpose(1, 2).flatten(1)
            for mel, time in cells
        ],
        1,
    ).double()
    hidden = patches @ state["encoder.embedding.weight"].T + state["encoder.embedding.bias"]
    hidden = transformer(hidden + sincos_positions((4, 4), 16).double(), "encoder.transformer").clamp(min=0)
    latent = norm(hidden @ state["encoder.encoder_proj.weight"].T, "encoder.encoder_norm")
    found = network.latent(inputs)
    for cell, (mel, time) in enumerate(cells):
        torch.testing.assert_close(found[:, time, mel].double(), latent[:, cell], atol=1e-4, rtol=1e-4)

    hidden = latent @ state["decoder.decoder_proj.weight"].T + sincos_positions((4, 4), 16).double()
    hidden = transformer(hidden, "decoder.transformer")
    outputs = network.output(found)
    for cell, (mel, time) in enumerate(cells):
        patch = torch.einsum("bc,cmt->btm", hidden[:, cell], state["decoder.conv_transpose.weight"][:, 0])
        part = outputs[:, 0, 8 * time : 8 * time + 8, 4 * mel : 4 * mel + 4]
        torch.testing.assert_close(part.double(), patch, atol=1e-3, rtol=1e-3)


# --- training ---


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_networks_learn_and_keep_their_codes_in_use(kind: str, samples: SimpleNamespace) -> None:
    torch.manual_seed(0)
    if kind == "image":
        network = image_network(TINY_IMAGE, IMAGE)
        inputs = picture_input(torch.from_numpy(np.stack([samples.pixels(i, 16, 16) for i in range(64)])))
    else:
        network = audio_network(TINY_AUDIO, AUDIO)
        mels = np.stack([audio.log_mel(samples.waveform(i, 8000), AUDIO)[0] for i in range(64)])
        inputs = sound_input(torch.from_numpy(audio.normalise_target(mels)))
    network.start(inputs)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    network.train()
    errors = []
    for _ in range(40):
        batch = inputs[torch.randint(64, (16,))]
        outputs, _, commitment = network(batch)
        error = F.mse_loss(outputs, batch)
        optimiser.zero_grad()
        torch.autograd.backward(error + 0.25 * commitment)
        optimiser.step()
        errors.append(error.item())
    assert np.mean(errors[-5:]) < 0.7 * np.mean(errors[:5])
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    used = network.eval().encode(inputs).unique()
    assert len(used) > 0.7 * len(network.quantiser.codebook)
