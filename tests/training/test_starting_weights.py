"""A run that starts from trained weights, as they were written here or as others publish them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from omnimill.cli.main import main
from omnimill.errors import OmnimillError
from omnimill.infra import lineage
from omnimill.tokenizers import store
from omnimill.tokenizers.checkpoints import open_checkpoint
from omnimill.tokenizers.networks import ImageNetworkConfig, ImagePatchesConfig, image_network
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vqgan import VqganConfig
from omnimill.tokenizers.weights import fill as fill_codes
from omnimill.training.backbone.model import Backbone
from omnimill.training.checkpoints.checkpoint import CheckpointRecord, load_weights, newest, read_record
from omnimill.training.checkpoints.export import export
from omnimill.training.checkpoints.starting_weights import fill, source_digest
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.history import read_history
from omnimill.training.runs.inputs import TrainInputs, resolve
from omnimill.training.runs.loop import Worker, train_worker
from omnimill.training.runs.run import record_inputs


def trained(config: TrainConfig, root: Path) -> Path:
    train_worker(resolve(config, str(root)), str(root), Worker())
    return root / "runs" / config.name


def weights_of(run: Path) -> dict[str, Tensor]:
    folder = newest(run)
    assert folder
    return load_weights(folder)


@pytest.fixture(scope="module")
def first(train_root: Path, train_config: TrainConfig) -> Path:
    """The folder of a run of one step."""
    return trained(train_config.model_copy(update={"name": "to-start-from", "steps": 1}), train_root)


def test_runs_start_from_checkpoints_and_from_their_export(
    first: Path,
    train_root: Path,
    train_config: TrainConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both ways the first step's loss and the weights after it are the same to the last bit."""
    before = weights_of(first)

    exported = tmp_path / "exported"
    asked = ["checkpoint", "export", str(first), str(exported), "--root", str(train_root), "--backbone-only", "--json"]
    assert main(asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parameters"] == sum(value.numel() for value in before.values())
    assert set(load_file(exported / "model.safetensors")) >= {"encoder.layers_0.attention.query.weight"}
    assert source_digest(str(exported)) != source_digest(str(first))

    def second(name: str, source: Path) -> Path:
        changes = {"name": name, "steps": 1, "seed": 8, "init_from": str(source)}
        return trained(train_config.model_copy(update=changes), train_root)

    runs = [second("from-run", first), second("from-export", exported)]
    losses = [read_history(run)[0]["loss"] for run in runs]
    assert losses[0] == losses[1] < read_history(first)[0]["loss"]
    one, other = (weights_of(run) for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)

    # A run that goes on does not start again, and does not mind where the weights were.
    monkeypatch.chdir(first.parent)
    longer = train_config.model_copy(update={"name": "from-run", "steps": 2, "seed": 8, "init_from": "elsewhere"})
    found = resolve(longer, str(train_root))
    assert found.config.init_from == str(first.parent / "elsewhere")
    assert not read_record(newest(runs[0]) or "").changes(found)
    step = read_history(trained(longer, train_root))[1]
    assert step["step"] == 1
    assert read_record(newest(runs[0]) or "").step == 2


@pytest.mark.parametrize("shape", [VqganConfig(channels=4, norm_groups=2), ImagePatchesConfig(stem=4, channels=8)])
def test_export_holds_the_code_networks_too(
    shape: ImageNetworkConfig, inputs: TrainInputs, text: TextTokenizer, tmp_path: Path, store_checkpoint: Any
) -> None:
    """One file, as whole models are published: backbone and tokenizers both start from it."""
    network = image_network(shape, inputs.layout.image)
    network.quantiser.codebook.normal_()
    files = {"text": text.model, "image": store.weights(network)}
    layout = inputs.layout
    stored = store.StoredSet(
        text_pieces=layout.text_pieces,
        image=layout.image,
        audio=layout.audio,
        image_network=shape,
        digests=store.file_digests(files),
    )
    store.publish(str(tmp_path), layout.tokenizers, stored, files)
    facts = {**dict(inputs), "layout": stored.layout(layout.tokenizers)}
    record = CheckpointRecord(**facts, run="r", step=1, plan={}, ledger="0", examples={})
    model = Backbone(inputs.backbone)
    folder = store_checkpoint(tmp_path / "runs" / "r", record, model.state_dict())
    if isinstance(shape, ImagePatchesConfig):
        with pytest.raises(OmnimillError, match=r"no code network of type .*; --backbone-only leaves"):
            export(str(tmp_path), folder, str(tmp_path / "out"))
        return
    result = export(str(tmp_path), folder, str(tmp_path / "out"))
    again, codes = Backbone(inputs.backbone, seed=3), image_network(shape, layout.image)
    fill(again, result.file)
    with open_checkpoint(result.file) as checkpoint:
        fill_codes(codes, checkpoint)
    for one, other in ((model, again), (network, codes)):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert result.tensors == len(load_file(result.file))


def test_lineage_says_what_a_run_started_from(first: Path, train_root: Path, train_config: TrainConfig) -> None:
    """The record of the command has the weights with their digest, when it begins and not when it goes on."""
    root = str(train_root)
    inputs = resolve(train_config.model_copy(update={"init_from": str(first)}), root)
    read = []
    for started_at in (0, 2):
        with lineage.command_run(root, "begin", {}) as told:
            record_inputs(inputs, root, train_root / "runs" / "none", told, started_at)
        (run,) = (run for run in lineage.runs(root, "begin") if run.info.run_id == told.id)
        references = lineage.references(run, "input")
        read.append([(one.digest, one.url) for one in references if one.name == "init_from"])
    assert read == [[(read_record(newest(first) or "").digest, str(first))], []]


def test_other_shapes_are_told(first: Path) -> None:
    record = read_record(newest(first) or "")
    wider = Backbone(record.backbone.model_copy(update={"mlp": 64, "sparse_decoder": True}))
    with pytest.raises(OmnimillError, match=r"its backbone has other shapes[^\n]*\n  mlp: was 352, is 64"):
        fill(wider, str(first))
    # What changes no shape does not keep a run from starting.
    fill(Backbone(record.backbone.model_copy(update={"sparse_decoder": True})), str(first))


def test_weights_that_are_nowhere(train_root: Path, train_config: TrainConfig, tmp_path: Path) -> None:
    config = train_config.model_copy(update={"name": "nowhere", "init_from": str(tmp_path / "none")})
    with pytest.raises(OmnimillError, match=r"none does not exist\nExpected is one of"):
        trained(config, train_root)
    assert main(["checkpoint", "export", str(tmp_path), str(tmp_path / "out"), "--root", str(train_root)]) == 1
