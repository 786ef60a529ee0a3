"""Held-out cases asked of decoder-only backbones, and their examples made visible: what is learnt is found again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from omnimill.cli.main import main
from omnimill.tokenizers.store import Tokenizers, load_tokenizers
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.build import build_sequence_model
from omnimill.training.checkpoints.checkpoint import CheckpointRecord
from omnimill.training.engine.optim import AdafactorConfig
from omnimill.training.evaluation.held_out import HeldOut, open_held_out
from omnimill.training.evaluation.scoring import answer_cases, case_losses, generate_and_score
from omnimill.training.evaluation.settings import EvaluationSettings
from omnimill.training.generation.decoding import Decoding, Sampling
from omnimill.training.generation.interleaved import SequenceGenerator
from omnimill.training.loading.collate import collate_apart
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.runs.config import BackboneSettings, TrainConfig
from omnimill.training.runs.history import read_history
from omnimill.training.runs.inputs import TrainInputs, resolve
from omnimill.training.runs.loop import Worker, train_worker
from tests.training.conftest import token_row

PHOTOS = {"rate": 1, "sources": ["photos"]}
PAIRS = {"name": "pairs", **PHOTOS, "target": "image", "objective": "causal", "prompts": ["{caption}"]}
HELD: list[dict[str, Any]] = [
    {**PHOTOS, "name": "describe", "family": "image-captioning", "inputs": ["image"], "target": "text:caption"},
    {**PHOTOS, "name": "draw", "family": "image-from-text", "target": "image", "prompts": ["draw {caption}"]},
    {**PHOTOS, "name": "story", "target": "document:caption"},
    {**PHOTOS, "name": "mend", "target": "text:caption", "objective": "ul2_s25"},
]
LIKELIEST = Decoding(text=Sampling(temperature=0.0), image=Sampling(temperature=0.0))


@dataclass(frozen=True)
class World:
    root: Path
    config: TrainConfig
    inputs: TrainInputs
    tokenizers: Tokenizers

    def held_out(self) -> HeldOut:
        return open_held_out(str(self.root), self.inputs, self.tokenizers)


@pytest.fixture(scope="module")
def world(joint_layout: tuple[Path, TokenLayout], store_tokens: Callable[..., Any]) -> World:
    root, layout = joint_layout
    tokenizers = load_tokenizers(str(root), "joint", None, batch=1)
    store_tokens(str(root), {"photos": [token_row("photos", n, tokenizers.text, layout) for n in range(4)]}, layout)
    tasks = [PAIRS, *({**one, "held_out": True} for one in HELD)]
    (root / "pictures.yaml").write_text(yaml.safe_dump({"datasets": ["tokens"], "tasks": tasks}))
    config = TrainConfig(
        name="sketch",
        mixture=str(root / "pictures.yaml"),
        steps=2,
        streams=2,
        backbone=BackboneSettings(kind="decoder", overrides={"width": 64, "heads": 2, "head_width": 32}),
        packing=PackingSettings(budgets=Budgets(decoder=120)),
        render=RenderSettings(max_text=48, max_target_text=48, uninformative_prompt="<mask>"),
        optimizer=AdafactorConfig(peak_learning_rate=0.03, warmup_steps=2),
        evaluation=EvaluationSettings(every=2, examples=3, generate=2),
    )
    (root / "sketch.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return World(root, config, resolve(config, str(root)), tokenizers)


@pytest.fixture(scope="module")
def learnt(world: World) -> SequenceGenerator:
    """A model that knows by heart what it will be asked for."""
    torch.manual_seed(0)
    model = build_sequence_model(world.inputs.backbone, seed=1)  # type: ignore[arg-type]
    batch = collate_apart([case.example for case in world.held_out().cases(4) if case.asked])
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    # Padding of pictures too, which would lead what follows it astray.
    slots = batch.decoder_segment > 0
    for _ in range(70):
        optimizer.zero_grad()
        model(batch).nll[slots].mean().backward()
        optimizer.step()
    return SequenceGenerator(model.eval(), world.inputs, world.tokenizers)


def test_what_was_learnt_by_heart_is_answered(world: World, learnt: SequenceGenerator) -> None:
    cases = world.held_out().cases(4)
    answers = list(answer_cases(learnt, cases, LIKELIEST, batch=3))
    assert [answer.generated for answer in answers] == [True] * 8 + [False] * 8
    for case, answer in zip(cases, answers, strict=True):
        assert list(answer.case.output) == list(case.wanted)
        assert answer.loss == pytest.approx(case_losses(learnt.model, [case])[0], rel=1e-3, abs=1e-3)
        assert not answer.generated or answer.loss[0] / answer.loss[1] < 0.3
    assert [len(case.wanted) for case in cases[4:8]] == [16] * 4
    asked = [case for case in cases if case.asked is not None]
    judged = generate_and_score(learnt, asked, LIKELIEST)
    assert {score.name: score.value for score in judged["describe"].scores}["bleu_4"] == pytest.approx(1.0)


def test_commands(
    world: World,
    learnt: SequenceGenerator,
    store_checkpoint: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts = {**dict(world.inputs), "run": "known", "step": 1, "plan": {}, "ledger": "0", "examples": {}}
    run = world.root / "runs" / "known"
    store_checkpoint(run, CheckpointRecord(**facts), learnt.model.state_dict())
    (tmp_path / "likeliest.yaml").write_text(yaml.safe_dump({"text": {"temperature": 0}, "image": {"temperature": 0}}))
    command = ["evaluate", str(run), "--root", str(world.root), "-n", "2", "--json"]
    assert main([*command, "--decoding", str(tmp_path / "likeliest.yaml")]) == 0
    tasks = json.loads(capsys.readouterr().out)["tasks"]
    assert {name: (one["count"], one["seen"]) for name, one in tasks.items()} == {one["name"]: (2, 2) for one in HELD}
    assert tasks["describe"]["metrics"]["bleu_4"]["value"] == pytest.approx(1.0)
    assert tasks["mend"]["metrics"] == tasks["story"]["metrics"] == {}
    (tmp_path / "beams.yaml").write_text(yaml.safe_dump({"text": {"beams": 3}}))
    assert main([*command, "--decoding", str(tmp_path / "beams.yaml")]) == 1
    assert "beams: found 3" in capsys.readouterr().err


def test_answers_are_judged_while_it_trains(world: World) -> None:
    train_worker(world.inputs, str(world.root), Worker(), "none")
    scores = read_history(world.root / "runs" / "sketch")[-1]["evaluation"]["scores"]
    assert set(scores["describe"]) == {"cider_d", "bleu_4"}
    assert scores["describe"]["bleu_4"]["count"] == 2


def test_examples_are_shown_as_they_are_read(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "shown.html"
    command = ["mixture", "show", world.config.mixture, "describe", "draw", "pairs", "mend", "-n", "2"]
    command += ["--root", str(world.root), "--training", str(world.root / "sketch.yaml")]
    assert main([*command, "--html", str(page), "--json"]) == 0
    shown = {one["task"]: one for one in json.loads(capsys.readouterr().out)["examples"]}
    codes = "[16 codes of a picture]"
    reads, writes = (
        {name: [run["text"] for run in one[side]] for name, one in shown.items()} for side in ("reads", "writes")
    )
    # The family's own prompts.
    assert reads["describe"][:2] == [codes, "<break>"] and shown["describe"]["prompt"] == reads["describe"][2]
    assert len(writes["describe"]) == 2 and writes["describe"][1] == "</s>"
    assert reads["draw"][0].startswith("draw ") and writes["draw"] == ["<break>", codes, "</s>"]
    # Of what is all predicted nothing is only read.
    assert reads["pairs"] == [] and writes["pairs"][1:] == ["<break>", codes, "</s>"]
    assert len(reads["mend"]) == 1 and "asked for: the last" in shown["mend"]["divided"]
    assert [len(shown[name]["pictures"]) for name in shown] == [1, 0, 0, 0]
    assert [len(shown[name]["target_pictures"]) for name in shown] == [0, 1, 1, 0]
    assert page.read_text().count("<article") == 8
    assert main(command) == 0
    assert "as its codes decode" in capsys.readouterr().out
