"""Published checkpoints: every name maps both ways, every kind of file is read, and what does not fit is named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from omnimill.errors import OmnimillError
from omnimill.tokenizers import store
from omnimill.tokenizers.config import AudioSettings, ImageSettings, TokenizerConfig
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.networks import (
    AudioPatchesConfig,
    CodeNetwork,
    ImagePatchesConfig,
    VitVqganConfig,
    VqganConfig,
    audio_network,
    image_network,
)
from omnimill.tokenizers.store import load_tokenizers
from omnimill.tokenizers.text import BpeConfig, train_bpe
from omnimill.tokenizers.train import _recipe, make_set
from omnimill.tokenizers.vocoder import HifiGan, VocoderConfig
from omnimill.tokenizers.weights import (
    PUBLISHED,
    Form,
    initial_network,
    published_digests,
    published_names,
    published_tensors,
    text_model,
)
from omnimill.tokens import AudioLayout, ImageLayout

IMAGE = ImageLayout(input_size=16, history_size=16, target_size=16, patch=8, code_stride=4, codes=32)
AUDIO = AudioLayout(segment_seconds=0.5, frames=32, mels=16, patch=8, code_patch=(8, 8), codes=16)
IMAGE_SHAPE = VqganConfig(channels=8, multipliers=(1, 1, 2), blocks=1, attention_sides=(4,), code_width=3)
AUDIO_SHAPE = VitVqganConfig(width=16, layers=2, heads=2, head_width=8, hidden=24, code_width=5)


def network_of(kind: str, seed: int = 0) -> CodeNetwork:
    torch.manual_seed(seed)
    network = image_network(IMAGE_SHAPE, IMAGE) if kind == "image" else audio_network(AUDIO_SHAPE, AUDIO)
    network.quantiser.start(torch.randn(200, network.quantiser.codebook.shape[1]))
    return network.eval()


def imported(kind: str, url: str) -> CodeNetwork:
    if kind == "image":
        return initial_network(ImageSettings(network=IMAGE_SHAPE, weights=url), IMAGE)
    return initial_network(AudioSettings(network=AUDIO_SHAPE, weights=url), AUDIO)


def same(found: CodeNetwork, expected: CodeNetwork) -> bool:
    state = expected.state_dict()
    return all(torch.allclose(value, state[name], atol=1e-6) for name, value in found.state_dict().items())


def named(network: CodeNetwork, form: Form) -> dict[str, Tensor]:
    state = network.state_dict()
    return {name: state[ours].clone() for ours, name in published_names(network, form).items()}


# --- names ---


def reference_image_shapes() -> dict[str, list[int]]:
    """The tensors of the reference's picture network, written down from its description."""
    shapes: dict[str, list[int]] = {"quantize.embedding.weight": [16384, 4]}

    def add(name: str, *weight: int, bias: int | None = None) -> None:
        shapes[f"{name}.weight"] = list(weight)
        shapes[f"{name}.bias"] = [weight[0] if bias is None else bias]

    def residual(name: str, before: int, after: int) -> None:
        add(f"{name}.norm1", before)
        add(f"{name}.conv1", after, before, 3, 3)
        add(f"{name}.norm2", after)
        add(f"{name}.conv2", after, after, 3, 3)
        if before != after:
            add(f"{name}.nin_shortcut", after, before, 1, 1)

    def attention(name: str, width: int) -> None:
        add(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            add(f"{name}.{part}", width, width, 1, 1)

    add("quant_conv", 4, 4, 1, 1)
    add("post_quant_conv", 4, 4, 1, 1)
    add("encoder.conv_in", 128, 3, 3, 3)
    before = 128
    for level, width in enumerate((128, 256, 256, 512)):
        for block in range(2):
            residual(f"encoder.down_{level}_block_{block}", before, width)
            before = width
            if level == 3:
                attention(f"encoder.down_{level}_attn_{block}", width)
        if level < 3:
            add(f"encoder.down_{level}_downsample.conv", width, width, 3, 3)
    add("decoder.conv_in", 512, 4, 3, 3)
    for half, out in (("encoder", 512), ("decoder", 128)):
        residual(f"{half}.mid_block_1", 512, 512)
        attention(f"{half}.mid_attn_1", 512)
        residual(f"{half}.mid_block_2", 512, 512)
        add(f"{half}.norm_out", out)
    for step, width in enumerate((512, 256, 256, 128)):
        for block in range(3):
            residual(f"decoder.up_{step}_block_{block}", before, width)
            before = width
            if step == 0:
                attention(f"decoder.up_{step}_attn_{block}", width)
        if step < 3:
            add(f"decoder.up_{step}_upsample.conv", width, width, 3, 3)
    add("encoder.conv_out", 4, 512, 3, 3)
    add("decoder.conv_out", 3, 128, 3, 3)
    return shapes


def reference_audio_shapes() -> dict[str, list[int]]:
    shapes = {
        "quantize.embedding.weight": [8192, 32],
        "encoder.embedding.weight": [512, 64],
        "encoder.embedding.bias": [512],
        "encoder.encoder_proj.weight": [32, 512],
        "encoder.encoder_norm.bias": [32],
        "decoder.decoder_proj.weight": [512, 32],
        "decoder.conv_transpose.weight": [512, 1, 8, 8],
    }
    for half in ("encoder", "decoder"):
        for part in ("weight", "bias"):
            shapes[f"{half}.transformer.encoder_norm.{part}"] = [512]
        for layer in range(8):
            block = f"{half}.transformer.encoderblock_{layer}"
            for norm in ("ln_1", "ln_2"):
                shapes |= {f"{block}.{norm}.weight": [512], f"{block}.{norm}.bias": [512]}
            for part in ("query", "key", "value", "out"):
                shapes[f"{block}.attn.{part}.weight"] = [512, 512]
            shapes |= {f"{block}.mlp.fc1.weight": [2048, 512], f"{block}.mlp.fc1.bias": [2048]}
            shapes |= {f"{block}.mlp.fc2.weight": [512, 2048], f"{block}.mlp.fc2.bias": [512]}
    return shapes


@pytest.mark.parametrize(("kind", "expected"), [("image", reference_image_shapes), ("audio", reference_audio_shapes)])
def test_every_name_of_the_reference_maps_both_ways(kind: str, expected: Callable[[], dict[str, list[int]]]) -> None:
    with torch.device("meta"):
        network = (
            image_network(VqganConfig(), ImageLayout())
            if kind == "image"
            else audio_network(VitVqganConfig(), AudioLayout())
        )
    state = network.state_dict()
    names = published_names(network, "reference")
    assert set(names) == set(state)
    assert {name: list(state[ours].shape) for ours, name in names.items()} == expected()
    prefix = f"target_embedders.{kind}.vqgan."
    assert set(published_tensors(network)) == {prefix + name for name in names.values()}


def test_taming_transformers_counts_the_decoders_levels_from_the_finest() -> None:
    with torch.device("meta"):
        network = image_network(VqganConfig(), ImageLayout())
    names = published_names(network, "taming")
    assert len(set(names.values())) == len(names)
    assert names["decoder.up.0.attn.2.proj_out.weight"] == "decoder.up.3.attn.2.proj_out.weight"
    assert names["decoder.up.1.block.0.nin_shortcut.bias"] == "decoder.up.2.block.0.nin_shortcut.bias"
    assert names["encoder.down.3.attn.1.q.weight"] == "encoder.down.3.attn.1.q.weight"
    assert names["quantiser.codebook"] == "quantize.embedding.weight"


# --- files ---


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_weights_come_back_as_they_were_exported(kind: str, tmp_path: Path) -> None:
    network = network_of(kind)
    others = {"decoder.layers.0.weight": torch.zeros(3), "target_embedders.image.modality_embedding": torch.zeros(3)}
    save_file({**published_tensors(network), **others}, tmp_path / "model.safetensors")
    again = imported(kind, str(tmp_path))
    assert same(again, network)
    assert not same(again, network_of(kind, seed=1))


def test_sharded_checkpoints(tmp_path: Path) -> None:
    network = network_of("image")
    tensors = published_tensors(network)
    placed = {name: f"model-0000{1 + i % 2}-of-00003.safetensors" for i, name in enumerate(tensors)}
    placed["encoder.layers.0.weight"] = "model-00003-of-00003.safetensors"  # not needed, so not looked for
    for file in sorted(set(placed.values()))[:2]:
        save_file({name: tensors[name] for name in tensors if placed[name] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    assert same(imported("image", str(index)), network)
    assert same(imported("image", str(tmp_path)), network)
    index.write_text(json.dumps({"weight_map": {name: f"../{file}" for name, file in placed.items()}}))
    with pytest.raises(OmnimillError, match=r"files must lie beside the index, found '../model"):
        imported("image", str(tmp_path))
    index.write_text("[]")
    with pytest.raises(OmnimillError, match="it has no weight_map"):
        imported("image", str(tmp_path))


def test_pytorch_files(tmp_path: Path) -> None:
    image, audio = network_of("image"), network_of("audio")
    torch.save(named(audio, "reference"), tmp_path / "pytorch_model.bin")
    assert same(imported("audio", str(tmp_path)), audio)
    # As taming-transformers saves them: nested, with the discriminator beside the network.
    beside = {"loss.discriminator.main.0.weight": torch.zeros(1)}
    torch.save({"state_dict": {**named(image, "taming"), **beside}, "epoch": 3}, tmp_path / "model.ckpt")
    assert same(imported("image", str(tmp_path / "model.ckpt")), image)
    halves = {name: tensor.bfloat16() for name, tensor in named(image, "reference").items()}
    torch.save(halves, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    again = imported("image", str(tmp_path / "old.bin"))
    assert {tensor.dtype for tensor in again.state_dict().values()} == {torch.float32}


def test_weights_on_an_object_store() -> None:
    import fsspec
    from safetensors.torch import save

    network = network_of("audio")
    with fsspec.open("memory://bucket/uio2/model.safetensors", "wb") as file:
        file.write(save(published_tensors(network)))
    assert same(imported("audio", "memory://bucket/uio2"), network)


def test_own_files_and_quick_networks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = ImagePatchesConfig(stem=2, channels=8, multipliers=(1, 1), code_width=4)
    network = image_network(shape, IMAGE)
    save_file(network.state_dict(), tmp_path / "image.safetensors")
    settings = ImageSettings(network=shape, weights=str(tmp_path / "image.safetensors"))
    assert same(initial_network(settings, IMAGE), network)
    sounds = audio_network(AudioPatchesConfig(width=16, heads=2, layers=1), AUDIO)
    with pytest.raises(OmnimillError, match="the reference has no code network of type PatchNetwork"):
        published_tensors(sounds)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
            return Path.touch, (tmp_path / "harmed",)  # type: ignore[return-value]

    torch.save({"state_dict": {}, "callbacks": Harmful()}, tmp_path / "model.ckpt")
    with pytest.raises(OmnimillError, match=r"holds more than tensors.*could run code"):
        imported("image", str(tmp_path / "model.ckpt"))
    assert not (tmp_path / "harmed").exists()


# --- what does not fit ---


def test_a_missing_file_is_met_with_the_list_of_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(OmnimillError) as caught:
        imported("image", str(tmp_path / "uio2-large"))
    message = str(caught.value)
    assert message.startswith(f"image.weights: {tmp_path}/uio2-large does not exist")
    for part in ("allenai/uio2-large", "model.safetensors", "target_embedders.image.vqgan.", "taming-transformers"):
        assert part in message
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("x")
    with pytest.raises(OmnimillError, match=r"holds none of model.safetensors.index.json, model.safetensors"):
        imported("audio", str(tmp_path / "folder"))
    with pytest.raises(OmnimillError, match=r"text.model: .*gone does not exist\n.*\n.*llama.meta.com"):
        text_model(str(tmp_path / "gone"))
    assert set(PUBLISHED) == {"text.model", "image.weights", "audio.weights", "audio.vocoder.weights"}


def changed(tensors: dict[str, Tensor], pattern: str, change: Callable[[Tensor], Tensor | None]) -> dict[str, Tensor]:
    """Tensors with those whose names match changed, or left out."""
    result = {name: change(value) if re.search(pattern, name) else value for name, value in tensors.items()}
    return {name: value for name, value in result.items() if value is not None}


def test_what_is_missing_mis_shaped_or_left_over_is_named(tmp_path: Path) -> None:
    tensors = published_tensors(network_of("image"))
    file = tmp_path / "model.safetensors"

    def message(content: dict[str, Tensor]) -> str:
        save_file(content, file)
        with pytest.raises(OmnimillError) as caught:
            imported("image", str(file))
        return str(caught.value)

    prefix = "target_embedders.image.vqgan."
    told = message(changed(tensors, r"quantize", lambda value: value.repeat(2, 1)))
    assert f"1 of another shape: {prefix}quantize.embedding.weight [64, 3] instead of [32, 3]" in told
    told = message(changed(tensors, r"mid_attn_1\.q\.", lambda value: None))
    assert f"4 missing: {prefix}decoder.mid_attn_1.q.bias" in told
    told = message({**tensors, f"{prefix}encoder.down_0_block_7.conv1.bias": torch.zeros(8)})
    assert f"1 left over: {prefix}encoder.down_0_block_7.conv1.bias" in told
    told = message(changed(tensors, r"encoder", lambda value: None))
    assert "and " in told
    assert len(told) < 2000
    told = message({"lm_head.weight": torch.zeros(1)})
    assert "holds none of the tensors of this network" in told
    assert "found lm_head.weight" in told
    file.write_bytes(b"\x00" * 40)
    with pytest.raises(OmnimillError, match="cannot be read as a checkpoint"):
        imported("image", str(file))
    (tmp_path / "model.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(OmnimillError, match=r"model\.pt: "):
        imported("image", str(tmp_path / "model.pt"))


# --- text, and what a set is made of ---


def test_training_for_no_steps_imports(root: str, config: TokenizerConfig, tmp_path: Path) -> None:
    """The way of docs/tokenizers.md: `weights` and `training.steps: 0`."""
    image_layout, audio_layout = config.layout.image, config.layout.audio
    image_shape = VqganConfig(channels=8, multipliers=(1, 1, 1, 2), blocks=1, attention_sides=(4,), code_width=3)
    vocoder_shape = VocoderConfig(rates=(6, 43), kernels=(12, 45), channels=4)
    torch.manual_seed(0)
    image, audio = image_network(image_shape, image_layout), audio_network(AUDIO_SHAPE, audio_layout)
    vocoder = HifiGan(vocoder_shape, audio_layout.mels)
    for network in (image, audio):
        network.quantiser.start(torch.randn(200, network.quantiser.codebook.shape[1]))
    save_file({**published_tensors(image), **published_tensors(audio)}, tmp_path / "model.safetensors")
    torch.save({"generator": vocoder.state_dict()}, tmp_path / "g_00930000")
    given = config.model_dump(mode="json")
    none = {"weights": str(tmp_path), "training": {**given["image"]["training"], "steps": 0}}
    given["image"] |= {"network": image_shape.model_dump(), **none}
    none["training"] = {**given["audio"]["training"], "steps": 0}
    given["audio"] |= {"network": AUDIO_SHAPE.model_dump(), **none}
    given["audio"]["vocoder"] = {"weights": str(tmp_path / "g_00930000"), "network": vocoder_shape.model_dump()}
    stored, files = make_set(TokenizerConfig.model_validate(given), Corpus(root, "corpus"))
    store.publish(str(tmp_path), "imported", stored, files)
    tokenizers = load_tokenizers(str(tmp_path), "imported")
    assert same(tokenizers.image.network, image)
    assert same(tokenizers.audio.network, audio)
    assert tokenizers.vocoder is not None
    assert torch.equal(tokenizers.vocoder.network.conv_pre.weight, vocoder.conv_pre.weight)
    assert tokenizers.waveform(np.zeros((32, 16), np.float32)).shape == (audio_layout.segment_samples,)


def test_a_text_model_of_another_size_is_remarked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tokenizer.model").write_bytes(train_bpe(["some words to learn from"] * 20, BpeConfig(pieces=290)))
    tokenizer = text_model(str(tmp_path / "tokenizer.model"))
    told = " ".join("".join(capsys.readouterr()).split())
    assert f"has {tokenizer.vocabulary.pieces} pieces" in told
    assert "(LLaMA's) has 32,000" in told


def test_sets_follow_content_not_paths(root: str, tmp_path: Path) -> None:
    settings = {"name": "a", "dataset": "a", "tokens": "b"}
    assert published_digests(TokenizerConfig.model_validate(settings)) == {}
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        save_file(published_tensors(network_of("image", seed)), tmp_path / name / "model.safetensors")

    def digest(name: str) -> str:
        config = TokenizerConfig.model_validate({**settings, "image": {"weights": str(tmp_path / name)}})
        (found,) = published_digests(config).items()
        assert found[0] == "image.weights"
        return found[1]

    assert digest("one") == digest("same") != digest("other")

    def recipe(name: str) -> str:
        given = {**settings, "dataset": "corpus", "image": {"weights": str(tmp_path / name)}}
        config = TokenizerConfig.model_validate(given)
        return _recipe(config, Corpus(root, "corpus"), published_digests(config))

    assert recipe("one") == recipe("same") != recipe("other")
