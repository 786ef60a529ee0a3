"""Published checkpoints in and out: the recorded tiny one, and the published sizes by names and shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import torch
from golden_backbone import WEIGHTS, golden_config
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnimill.errors import OmnimillError
from omnimill.tokenizers.config import AudioSettings, ImageSettings
from omnimill.tokenizers.networks import audio_network, image_network
from omnimill.tokenizers.weights import published_tensors as code_tensors
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.config import BackboneConfig, Size
from omnimill.training.backbone.model import Backbone
from omnimill.training.checkpoints.published_weights import (
    fill_from_published,
    published_digest,
    published_names,
    published_tensors,
    write_published,
)

TOTALS: dict[Size, int] = {"large": 1_080_595_919, "xl": 3_175_415_247, "xxl": 6_864_176_143}


@pytest.fixture
def golden_tensors(parity: Path) -> dict[str, Tensor]:
    """Tensors of the recorded tiny model; empty when it is not there."""
    file = parity / WEIGHTS
    return load_file(file) if file.exists() else {}


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def of_backbone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if ".vqgan." not in name}


def test_recorded_model_in_and_out(parity: Path, golden_tensors: Mapping[str, Tensor], tmp_path: Path) -> None:
    """What goes in comes out: every name, shape and bit, through this program's files too."""
    if not golden_tensors:
        return
    model = Backbone(golden_config(parity))
    fill_from_published(model, str(parity / WEIGHTS))
    exported = published_tensors(model.state_dict())
    original = of_backbone(golden_tensors)
    assert shapes(exported) == shapes(dict(sorted(original.items())))
    assert all(torch.equal(exported[name], value) for name, value in original.items())

    url = write_published(str(tmp_path / "published"), exported)
    again = Backbone(golden_config(parity), seed=1)
    fill_from_published(again, str(tmp_path / "published"))
    assert published_digest(url) != published_digest(str(parity / WEIGHTS))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    first = Path(url).read_bytes()
    write_published(str(tmp_path / "published"), exported)
    assert Path(url).read_bytes() == first


@pytest.mark.parametrize("size", list(TOTALS))
def test_published_sizes_by_name_and_shape(golden_tensors: Mapping[str, Tensor], size: Size) -> None:
    """All published names, as many layers as the size has; with both code networks the published total, exactly."""
    layout = TokenLayout(tokenizers="none", digests={})
    with torch.device("meta"):
        model = Backbone(BackboneConfig.of(size, layout))
        codes = [
            image_network(ImageSettings().network, layout.image),
            audio_network(AudioSettings().network, layout.audio),
        ]
    exported = published_tensors(model.state_dict())
    assert sum(value.numel() for value in exported.values()) == sum(p.numel() for p in model.parameters())
    # The published total counts the code networks, codebooks and all, which are a tokenizer set's here.
    whole = exported | {name: value for network in codes for name, value in code_tensors(network).items()}
    assert sum(value.numel() for value in whole.values()) == TOTALS[size]

    norms = {name.rpartition(".xattention.")[2] for name in exported if ".xattention." in name}
    expected = {"logit_scale"} if size == "xxl" else {"query_norm.scale", "key_norm.scale"}
    assert norms == {f"{part}.weight" for part in ("query", "key", "value", "out")} | expected
    if golden_tensors:
        # The recorded model resamples pictures as L and XL do, and sound as XXL does; a published size does both alike.
        assert kinds(exported) == kinds(of_backbone(golden_tensors))

    # And back: every published name leads to one tensor of the backbone, of the same shape.
    back: dict[str, tuple[int, ...]] = {}
    for own, names in published_names(model.state_dict()).items():
        parts = [tuple(exported[name].shape) for name in names]
        stacked = own in ("inputs.modality", "decoder_modality") or own.endswith("extra_tokens")
        back[own] = (len(parts), *parts[0]) if stacked else parts[0]
    assert back == shapes(model.state_dict())


def kinds(names: Iterable[str]) -> set[str]:
    """Names without the numbers of layers, and without how resamplers normalise."""
    plain = {re.sub(r"\d+", "N", name) for name in names}
    return {name for name in plain if not re.search(r"xattention\.(logit_scale|query_norm|key_norm)", name)}


def stored(tensors: Mapping[str, Tensor], folder: Path) -> str:
    folder.mkdir()
    save_file(dict(tensors), folder / "model.safetensors")
    return str(folder)


def test_faults_are_listed(parity: Path, golden_tensors: Mapping[str, Tensor], tmp_path: Path) -> None:
    if not golden_tensors:
        return
    model = Backbone(golden_config(parity))
    without = {name: value for name, value in golden_tensors.items() if name != "encoder.encoder_norm.scale"}
    with pytest.raises(OmnimillError, match=r"1 missing: encoder\.encoder_norm\.scale") as failure:
        fill_from_published(model, stored(without, tmp_path / "missing"))
    assert "allenai/uio2-large" in str(failure.value)
    more = {**golden_tensors, "lm_head.weight": torch.zeros(2)}
    with pytest.raises(OmnimillError, match=r"1 left over: lm_head\.weight"):
        fill_from_published(model, stored(more, tmp_path / "more"))
    other = {**golden_tensors, "text_token_embedder.weight": torch.zeros(5, 64)}
    with pytest.raises(OmnimillError, match=r"text_token_embedder\.weight \[5, 64\] instead of \[512, 64\]"):
        fill_from_published(model, stored(other, tmp_path / "other"))


def test_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(OmnimillError) as failure:
        fill_from_published(torch.nn.Linear(1, 1), str(tmp_path / "nothing"))
    first, *listed = str(failure.value).splitlines()
    assert first.endswith("nothing does not exist")
    assert "pytorch_model.bin" in listed[1]


def test_pytorch_files_in_parts_with_encoders_listed_twice(
    parity: Path, golden_tensors: Mapping[str, Tensor], tmp_path: Path
) -> None:
    """PyTorch's format names shared encoders under both streams; they must be the same."""
    if not golden_tensors:
        return
    marker = ".image.image_encoder."
    twice = {
        name.replace(marker, ".image_history.vit_image_encoder."): value
        for name, value in golden_tensors.items()
        if marker in name
    }
    half = torch.bfloat16
    parts = {
        "a.bin": {n: v.to(half) for n, v in golden_tensors.items()},
        "b.bin": {n: v.to(half) for n, v in twice.items()},
    }
    for file, tensors in parts.items():
        torch.save(tensors, tmp_path / file)
    places = {name: file for file, tensors in parts.items() for name in tensors}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    model = Backbone(golden_config(parity))
    fill_from_published(model, str(tmp_path))
    assert model.text_table.weight.dtype == torch.float32
    assert torch.equal(model.text_table.weight, golden_tensors["text_token_embedder.weight"].to(half).float())

    name = next(iter(parts["b.bin"]))
    torch.save({**parts["b.bin"], name: parts["b.bin"][name] + 1}, tmp_path / "b.bin")
    with pytest.raises(OmnimillError, match=f"1 stored twice with other values: {name}"):
        fill_from_published(model, str(tmp_path))
