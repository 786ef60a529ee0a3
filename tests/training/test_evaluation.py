"""Evaluations while a run trains: the losses of held-out examples, the same bits with any number of workers."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from omnimill.errors import ConfigError, OmnimillError
from omnimill.mixtures.config import Task
from omnimill.mixtures.rows import TaskRows
from omnimill.mixtures.versions import open_versions
from omnimill.tokenizers.store import load_text, load_tokenizers
from omnimill.training.checkpoints.checkpoint import list_checkpoints
from omnimill.training.checkpoints.settings import CheckpointSettings
from omnimill.training.engine.learner import Learner
from omnimill.training.engine.loss import task_sums
from omnimill.training.evaluation.held_out import open_held_out, row_order
from omnimill.training.evaluation.losses import Evaluator
from omnimill.training.evaluation.scoring import generate_and_score
from omnimill.training.evaluation.settings import EvaluationSettings
from omnimill.training.generation.generate import Generator
from omnimill.training.loading.collate import collate
from omnimill.training.rendering.pairs import Renderer
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.history import TIMING, read_history
from omnimill.training.runs.inputs import TrainInputs, resolve
from omnimill.training.runs.loop import Worker, train_worker

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def held_out(watched_config: TrainConfig, train_root: Path) -> TrainInputs:
    """What `watched_config` means."""
    return resolve(watched_config, str(train_root))


@pytest.fixture(scope="module")
def learner(held_out: TrainInputs) -> Learner:
    return Learner(held_out, len(held_out.mixture.tasks), CPU, resumed=False)


def test_losses_are_those_of_the_examples_alone(held_out: TrainInputs, learner: Learner, train_root: Path) -> None:
    found = Evaluator(held_out, str(train_root), CPU).evaluate(learner)
    mixture = held_out.mixture
    tasks = mixture.model_copy(update={"tasks": mixture.held_out, "held_out": ()})
    budgets = held_out.config.packing.budgets
    text = load_text(str(train_root), held_out.layout)
    renderer = Renderer(tasks, held_out.layout, text, held_out.render, budgets)
    data = open_versions(str(train_root), held_out.versions)
    for number, task in enumerate(mixture.held_out):
        rows = TaskRows.open(data, task)
        examples = [renderer.render(number, rows.fetch(row), 0) for row in islice(row_order(rows), 5)]
        assert len({id(example) for example in examples}) == 5
        batch = collate([[example] for example in examples], budgets)
        sums = task_sums(learner.losses(batch), batch, len(mixture.held_out))
        assert found["loss_by_task"][task.name] == pytest.approx(
            float(sums.nll[number] / sums.weight[number]), rel=1e-5
        )
        assert found["targets"][task.name] == sums.weight[number]
    assert found["loss"] == pytest.approx(sum(found["loss_by_task"].values()) / 3)
    # One task of each modality: both ways to add up are the same.
    assert list(found["loss_by_modality"].values()) == pytest.approx(list(found["loss_by_task"].values()))


@pytest.mark.parametrize("world", [2, 3, 8])
def test_the_sum_over_workers_has_the_same_bits(
    held_out: TrainInputs, learner: Learner, train_root: Path, world: int
) -> None:
    root = str(train_root)
    parts = [Evaluator(held_out, root, CPU, rank=rank, world=world).own_sums(learner) for rank in range(world)]
    alone = Evaluator(held_out, root, CPU).own_sums(learner)
    assert 3 <= len(alone) < 8
    assert torch.equal(sum(parts[1:], parts[0]), alone)


def test_a_run_is_evaluated_and_goes_on_as_if_never_stopped(held_out: TrainInputs, train_root: Path) -> None:
    settings = EvaluationSettings(every=2, examples=1)

    def curve(name: str, *steps: int) -> list[dict[str, Any]]:
        for done in steps:
            changed = {
                "name": name,
                "steps": done,
                "streams": 1,
                "checkpoints": CheckpointSettings(),
                "evaluation": settings,
            }
            config = held_out.config.model_copy(update=changed)
            train_worker(held_out.model_copy(update={"config": config}), str(train_root), Worker())
        lines = read_history(train_root / "runs" / name)
        return [{key: value for key, value in line.items() if key != TIMING} for line in lines]

    whole = curve("whole", 3)
    assert [line["step"] for line in whole if "evaluation" in line] == [1, 2]
    # What was evaluated can be looked at: there is a checkpoint of it.
    assert [path.name[-1] for path in list_checkpoints(train_root / "runs" / "whole")] == ["2", "3"]
    assert whole[1]["evaluation"]["loss"] != whole[2]["evaluation"]["loss"]
    assert curve("parts", 2, 3) == whole


def test_answers_are_judged_by_the_metrics_of_their_families(
    held_out: TrainInputs, learner: Learner, train_root: Path
) -> None:
    tell = held_out.mixture.held_out[0].model_copy(update={"family": "image-captioning"})
    settings = EvaluationSettings(every=1, examples=1, generate=3)
    asking = held_out.model_copy(
        update={
            "mixture": held_out.mixture.model_copy(update={"held_out": (tell,)}),
            "config": held_out.config.model_copy(update={"evaluation": settings}),
        }
    )
    found = Evaluator(asking, str(train_root), CPU).evaluate(learner)["scores"]
    tokenizers = load_tokenizers(str(train_root), asking.layout.tokenizers)
    cases = open_held_out(str(train_root), asking, tokenizers).cases(3)
    judged = generate_and_score(Generator(learner.backbone, asking, tokenizers), cases)["tell"].scores
    assert {score.name for score in judged} == {"cider_d", "bleu_4"}
    assert found == {"tell": {one.name: {"value": one.value, "count": 3, "unread": one.unread} for one in judged}}
    with pytest.raises(OmnimillError, match="image"):
        Evaluator(held_out.model_copy(update={"config": asking.config}), str(train_root), CPU)


def test_there_has_to_be_something_to_evaluate_on(
    held_out: TrainInputs, train_config: TrainConfig, train_root: Path
) -> None:
    watched = train_config.model_copy(update={"evaluation": EvaluationSettings(every=1)})
    with pytest.raises(ConfigError, match=r"evaluation.every: the mixture holds no task out"):
        resolve(watched, str(train_root))
    empty = (Task(name="none", rate=1, sources=("pages",), target="image"),)
    mixture = held_out.mixture.model_copy(update={"held_out": empty})
    with pytest.raises(ConfigError, match=r"evaluation: task 'none': no eligible row: pages: "):
        Evaluator(held_out.model_copy(update={"mixture": mixture}), str(train_root), CPU)
