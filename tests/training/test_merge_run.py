"""Parents are trained, merged and trained on by the ordinary commands, and a trace finds the data of all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from omnimill.cli.main import main
from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra import lineage
from omnimill.infra.dataset import Commit, Counts, Dataset, InputRef
from omnimill.rng import generator
from omnimill.schema import to_table
from omnimill.tokenizers import image
from omnimill.tokenizers.store import StoredSet, file_digests, publish
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokens import TOKEN_SCHEMA, AudioLayout, ImageLayout
from omnimill.training.backbone.model import Backbone
from omnimill.training.checkpoints.checkpoint import CheckpointRecord, load_weights, newest, read_record
from omnimill.training.checkpoints.settings import CheckpointSettings
from omnimill.training.engine.optim import AdafactorConfig
from omnimill.training.evaluation.forgetting import TAG, check_remembered, measure_parents
from omnimill.training.evaluation.forgetting_settings import ForgettingSettings
from omnimill.training.evaluation.settings import EvaluationSettings
from omnimill.training.lineage.provenance import trace
from omnimill.training.lineage.replay import ledger_entries
from omnimill.training.merging.plan import Mismatch
from omnimill.training.merging.run import merge
from omnimill.training.merging.settings import MergeConfig
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.runs.config import BackboneSettings, TrainConfig
from omnimill.training.runs.follow import checkpoint_name
from omnimill.training.runs.history import read_history
from omnimill.training.runs.inputs import TrainInputs, resolve
from omnimill.training.runs.loop import Worker, train_worker
from omnimill.training.runs.run import record_inputs, train
from omnimill.vocabulary_layout import VocabularyLayout
from tests.made_rows import make_row

IMAGES = ImageLayout(input_size=32, history_size=32, target_size=32, patch=16, code_stride=8, codes=32)
VOCABULARY = VocabularyLayout(joint=("image",), specials=("<break>",), locations=0, history=1)
WORDS = ("the", "red", "tree", "cat", "sings", "near", "house")


@dataclass(frozen=True)
class Parents:
    """A root with a text parent and an image-text parent, each trained on data of its own."""

    root: str

    def run(self, name: str) -> str:
        return str(Path(self.root) / "runs" / name)

    def config(self, name: str, mixture: str, **settings: Any) -> TrainConfig:
        return TrainConfig(
            name=name,
            mixture=str(Path(self.root) / f"{mixture}.yaml"),
            streams=2,
            **{
                "steps": 3,
                "backbone": BackboneSettings(kind="decoder", overrides={"width": 32, "heads": 2, "head_width": 16}),
                "packing": PackingSettings(budgets=Budgets(decoder=120), pool=8),
                "render": RenderSettings(max_text=32, max_target_text=64),
                "optimizer": AdafactorConfig(peak_learning_rate=0.03, warmup_steps=2),
                "checkpoints": CheckpointSettings(every=2),
                "watch_attention": 2,
                **settings,
            },
        )

    def train(self, config: TrainConfig) -> Path:
        """As `omnimill train` does it, in this process."""
        inputs = resolve(config, self.root)
        with lineage.command_run(self.root, "train", inputs.model_dump(mode="json"), config.name) as told:
            record_inputs(inputs, self.root, Path(self.run(config.name)), told, 0)
            train_worker(inputs, self.root, Worker(), told.id)
            found = newest(Path(self.run(config.name)))
            assert found is not None
            told.output(checkpoint_name(found), read_record(found).digest, str(found))
        return found


def rows_of(source: str, text: TextTokenizer) -> list[dict[str, Any]]:
    rows = []
    for number in range(12):
        rng = generator(source, number)
        row: dict[str, Any] = {name: [] for name in TOKEN_SCHEMA.names}
        row |= {"id": make_row(source, str(number)).id, "source": source, "key": str(number)}
        ids = text.encode(" ".join(rng.choice(WORDS, 12)))
        role = "body" if source == "stories" else "caption"
        for name, value in (("roles", role), ("images", None), ("audio", None), ("items", None)):
            row[f"text_{name}"].append(value)
        row["text_lengths"].append(len(ids))
        row["text_ids"].append(ids)
        if source == "captions":
            row["image_data"].append(image.encode_png(rng.integers(0, 256, (32, 32, 3), np.uint8)))
            row["image_patches"].append(4)
            row["history_patches"].append(4)
            row["image_codes"].append(rng.integers(0, 32, 16).tolist())
            row["image_codes_lengths"].append(16)
        rows.append(row)
    return rows


def ingest(root: str, source: str, rows: list[dict[str, Any]], attributes: dict[str, Any]) -> None:
    """Examples and tokens of a source, as their commands leave them: with their runs in MLflow."""
    counts = Counts(records_in=len(rows), kept=len(rows), examples_written=len(rows))
    examples, tokens = Dataset(root, f"{source}-examples"), Dataset(root, source)
    file = InputRef(uri=f"memory:{source}.tar", digest=source.encode().hex().ljust(64, "0"), bytes=7)
    made = examples.publish_shard(to_table([make_row(source, row["key"]) for row in rows]))
    first = Commit(unit=source, source=source, recipe="r", inputs=(file,), shards=(made,), counts=counts)
    read = InputRef(uri=examples.shard_url(made), digest=made.digest, bytes=made.bytes)
    shard = tokens.publish_shard(pa.Table.from_pylist(rows, TOKEN_SCHEMA))
    second = Commit(unit=source, source=source, recipe="r", inputs=(read,), shards=(shard,), counts=counts)
    for dataset, commit in ((examples, first), (tokens, second)):
        dataset.commit(commit)
    with lineage.command_run(root, "ingest", {}) as told:
        digest, _ = examples.publish_manifest("examples", [first])
        told.output(examples.name, digest, examples.url)
    with lineage.command_run(root, "tokenize", {}) as told:
        made_from = {examples.name: digest}
        digest, _ = tokens.publish_manifest("tokens", [second], made_from, attributes)
        told.output(tokens.name, digest, tokens.url)


def task(name: str, source: str, target: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "rate": 1, "sources": [source], "target": target, **settings}


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory, text: TextTokenizer) -> Parents:
    root = str(tmp_path_factory.mktemp("jam"))
    files = {"text": text.model}
    stored = StoredSet(
        text_pieces=text.vocabulary.pieces,
        vocabulary=VOCABULARY,
        image=IMAGES,
        audio=AudioLayout(segment_seconds=0.5, frames=64, mels=32),
        digests=file_digests(files),
    )
    publish(root, "joint", stored, files)
    layout = {"layout": stored.layout("joint").model_dump(mode="json")}
    for source in ("stories", "captions"):
        ingest(root, source, rows_of(source, text), layout)
    stories = [task("read", "stories", "text:body", objective="causal_lm")]
    told = task("told", "stories", "text:body", objective="causal", held_out=True)
    paint = {"prompts": ["{caption}"], "objective": "causal_masked"}
    captions = [
        task("paint", "captions", "image", **paint),
        task("caption", "captions", "text:caption", objective="causal", inputs=["image"]),
    ]
    painted = task("painted", "captions", "image", prompts=["{caption}"], objective="causal", held_out=True)
    for name, datasets, tasks in (
        ("stories", ["stories"], [*stories, told]),
        ("captions", ["captions"], [*captions, painted]),
        ("both", ["stories", "captions"], [*stories, *captions, told]),
    ):
        (Path(root) / f"{name}.yaml").write_text(yaml.safe_dump({"datasets": datasets, "tasks": tasks}))
    found = Parents(root)
    found.train(found.config("writer", "stories"))
    found.train(found.config("painter", "captions"))
    return found


def settings(parents: Parents, name: str, method: dict[str, Any], **more: Any) -> MergeConfig:
    plain = {"name": name, "parents": ["writer", "painter/step-00000003"], "method": method, **more}
    return MergeConfig.model_validate(plain)


def test_a_decoder_learns_and_goes_on_where_it_was(parents: Parents) -> None:
    losses = [line["loss"] for line in read_history(Path(parents.run("writer")))]
    assert losses[-1] < losses[0]
    first = read_history(Path(parents.run("painter")))[0]
    assert set(first["loss_by_modality"]) == {"text", "image"}
    assert set(first["attention_logit"]) == {"decoder"}
    assert first["tokens"]["encoder"] == 0
    parents.train(parents.config("again", "captions", steps=2))
    parents.train(parents.config("again", "captions"))
    whole, twice = (load_weights(newest(Path(parents.run(name))) or "") for name in ("painter", "again"))
    assert all((whole[name] == twice[name]).all() for name in whole)


def test_perplexities_at_step_0_are_those_of_the_parents_kept(parents: Parents) -> None:
    found = merge(settings(parents, "uniform-1", {"name": "uniform", "weights": [1.0, 0.0]}), parents.root).report
    assert found["merged"] == found["A"] != found["B"]
    assert set(found["A"].tasks) == {"told", "painted"}
    assert set(found["A"].modalities) == {"text", "image"}


@pytest.mark.parametrize(
    ("method", "closed"),
    [
        ({"name": "cross", "join": "first"}, "A"),
        ({"name": "width"}, None),
        ({"name": "logits", "weights": [0.5, 0.5]}, None),
    ],
    ids=lambda one: one["name"] if isinstance(one, dict) else "",
)
def test_every_merge_can_be_trained_on(parents: Parents, method: dict[str, Any], closed: str | None) -> None:
    name = method["name"]
    result = merge(settings(parents, name, method), parents.root)
    record = read_record(result.checkpoint)
    assert (record.step, record.digest, record.run) == (0, result.digest, name)
    assert result.parameters == sum(one.numel() for one in load_weights(result.checkpoint).values())
    assert all(np.isfinite(list(one.modalities.values())).all() for one in result.report.values())
    if closed:
        assert result.report["merged"].tasks["told"] == pytest.approx(result.report[closed].tasks["told"], rel=0.2)
    inherited = BackboneSettings(kind="inherited")
    config = parents.config(f"{name}-on", "both", steps=1, backbone=inherited, init_from=parents.run(name))
    assert read_record(parents.train(config)).backbone == record.backbone


def test_a_trace_reaches_both_parents_and_their_data(
    parents: Parents, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "merge.yaml"
    both = [parents.run("writer"), parents.run("painter")]
    file.write_text(yaml.safe_dump({"name": "joined", "parents": both, "method": {"name": "cross"}}))
    arguments = ["merge", str(file), "--root", parents.root]
    assert main([*arguments, "--plan"]) == 0
    assert "what is made of what" in capsys.readouterr().out
    assert main([*arguments, "--plan", "--json"]) == 0
    made = {one["name"]: one for one in json.loads(capsys.readouterr().out)["map"]}
    query = {"parent": "painter/step-00000003", "name": "tower.layers.3.attention.query.weight"}
    assert made["towers.1.layers.3.attention.query.weight"]["sources"] == [query]
    assert main([*arguments, "--json"]) == 0
    merged = json.loads(capsys.readouterr().out)
    digests = [read_record(newest(Path(run)) or "").digest for run in both]

    found = trace(parents.root, merged["checkpoint"])
    assert [one["digest"] for one in found["parents"]] == digests
    files = [file["uri"] for source in found["sources"] for file in source["files"]]
    assert files == ["memory:captions.tar", "memory:stories.tar"]
    assert {one["dataset"] for one in found["datasets"]} == {
        "stories",
        "captions",
        "stories-examples",
        "captions-examples",
    }

    inherited = BackboneSettings(kind="inherited")
    config = parents.config("child", "stories", steps=1, backbone=inherited, init_from=parents.run("joined"))
    child = parents.train(config)
    answer = trace(parents.root, str(child))
    assert [source["source"] for source in answer["sources"]] == ["stories"]
    assert answer["started_from"]["digest"] == merged["digest"]
    assert [one["digest"] for one in answer["started_from"]["parents"]] == digests
    assert main(["lineage", "trace", str(child), "--root", parents.root]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "started from" in told
    assert told.count("merged from") == 2
    assert "captions, stories" in told

    # And back: what saw a row is found in what was made of it.
    row = make_row("captions", "3").id
    assert main(["lineage", "impact", row, "--root", parents.root, "--json"]) == 0
    runs = {run["name"]: run for run in json.loads(capsys.readouterr().out)["runs"]}
    last = runs["painter"]["checkpoints"][-1]
    assert last["times_seen"]
    assert {"joined/step-00000000", "child/step-00000001"} <= set(last["made_of_it"])


def test_what_does_not_fit_is_told_before_anything_is_done(parents: Parents) -> None:
    wide = parents.config("wide", "stories", steps=1)
    overrides = {**wide.backbone.overrides, "mlp": 64}
    parents.train(wide.model_copy(update={"backbone": BackboneSettings(kind="decoder", overrides=overrides)}))
    config = MergeConfig.model_validate(
        {"name": "never", "parents": [parents.run("writer"), parents.run("wide")], "method": {"name": "uniform"}}
    )
    with pytest.raises(Mismatch, match=r"tower.layers.2.mlp.wi_1.weight: A \[352, 32\], B \[64, 32\]"):
        merge(config, parents.root)
    assert not Path(parents.run("never")).exists()


def test_a_merged_model_is_no_run_to_go_on_with(parents: Parents) -> None:
    merge(settings(parents, "taken", {"name": "uniform"}, report={"examples": 0}), parents.root)
    with pytest.raises(ConfigError, match="there is a run 'taken'"):
        merge(settings(parents, "taken", {"name": "uniform"}), parents.root)
    with pytest.raises(ConfigError, match="'taken' is a merged model"):
        train(parents.config("taken", "stories"), parents.root)
    with pytest.raises(ConfigError, match="inherited takes the backbone of the checkpoint of init_from"):
        resolve(parents.config("x", "stories", backbone=BackboneSettings(kind="inherited")), parents.root)
    with pytest.raises(OmnimillError, match="neither a checkpoint's folder nor that of a run"):
        merge(MergeConfig(name="x", parents=("a", "b"), method={"name": "fourier"}), parents.root)  # type: ignore[arg-type]


def test_encoder_decoders_are_averaged_too(
    inputs: TrainInputs, store_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    root, models = str(tmp_path), {"left": Backbone(inputs.backbone, 1), "right": Backbone(inputs.backbone, 2)}
    for name, model in models.items():
        record = CheckpointRecord(**dict(inputs), run=name, step=1, plan={}, ledger="", examples={})
        store_checkpoint(tmp_path / "runs" / name, record, model.state_dict())
    plain: dict[str, Any] = {"name": "middle", "parents": list(models), "method": {"name": "uniform"}}
    with pytest.raises(ConfigError, match="no task is held out"):
        merge(MergeConfig.model_validate(plain), root)
    with pytest.raises(Mismatch, match="A: the method takes decoder-only backbones; found BackboneConfig"):
        merge(MergeConfig.model_validate({**plain, "method": {"name": "width"}}), root)
    found = load_weights(merge(MergeConfig.model_validate({**plain, "report": {"examples": 0}}), root).checkpoint)
    left, right = (model.state_dict() for model in models.values())
    assert all(np.allclose(found[name], (left[name] + right[name]) / 2, atol=1e-7) for name in found)


def test_what_parents_knew_must_not_be_forgotten(parents: Parents) -> None:
    known = {"writer": ("told",)}
    evaluation = EvaluationSettings(every=2, examples=6)

    def trained(name: str, rate: float) -> tuple[TrainInputs, Path]:
        optimizer = AdafactorConfig(peak_learning_rate=rate, warmup_steps=1)
        forgetting = ForgettingSettings(parents=known, margin=0.5)
        start = {"init_from": parents.run("writer"), "forgetting": forgetting, "evaluation": evaluation}
        config = parents.config(name, "stories", steps=2, optimizer=optimizer, **start)
        parents.train(config)
        return resolve(config, parents.root), Path(parents.run(name))

    gentle, rough = trained("gentle", 1e-4), trained("rough", 100.0)
    before = {name: measure_parents(inputs, parents.root, run) for name, (inputs, run) in (("g", gentle), ("r", rough))}
    assert before["g"] == before["r"]
    # As the parent itself is measured when it is told to be.
    report = merge(settings(parents, "alone", {"name": "uniform"}, report={"examples": 6}), parents.root).report
    assert np.exp(before["g"]["writer: told"]) == pytest.approx(report["A"].tasks["told"], rel=1e-5)
    with lineage.command_run(parents.root, "train", {}) as told:
        check_remembered(*gentle, told)
    assert lineage.runs(parents.root)[-1].data.tags[TAG] == "passed"
    message = r"run rough has forgotten more than forgetting.margin \(0.5\)[\s\S]*told"
    with pytest.raises(OmnimillError, match=message), lineage.command_run(parents.root, "train", {}) as told:
        check_remembered(*rough, told)
    last = next(run for run in lineage.runs(parents.root) if run.data.tags.get(TAG) == "failed")
    assert last.info.status == "FAILED"
    assert last.data.metrics["forgetting/told"] > 0.5
    with pytest.raises(ConfigError, match=r"forgetting.parents.writer: the mixture does not hold out 'x'"):
        forgetting = ForgettingSettings(parents={"writer": ("x",)}, margin=1.0)
        resolve(parents.config("y", "stories", forgetting=forgetting, evaluation=evaluation), parents.root)
    with pytest.raises(ConfigError, match="forgetting: needs an evaluation"):
        resolve(parents.config("y", "stories", forgetting=ForgettingSettings(parents=known, margin=1.0)), parents.root)


def test_a_merged_model_has_seen_no_data_itself(parents: Parents) -> None:
    merged = merge(settings(parents, "asked", {"name": "uniform"}, report={"examples": 0}), parents.root).checkpoint
    with pytest.raises(OmnimillError, match=r"has seen no data itself; ask about its parents: .*writer.*painter"):
        ledger_entries(merged, parents.root)
