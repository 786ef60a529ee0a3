"""What a worker has to hold: what is told equals what a learner holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from omnimill.tokens import TokenLayout
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.engine.learner import Learner
from omnimill.training.engine.memory import Memory, memory
from omnimill.training.engine.optim import AdafactorConfig, AdamWConfig
from omnimill.training.engine.settings import ParallelSettings
from omnimill.training.planning.lengths import Budgets
from omnimill.training.runs.inputs import TrainInputs

PROJECT = Path(__file__).parents[2]
REFERENCE = TokenLayout(tokenizers="reference", digests={})
# Rows of the table in docs/training.md: workers, and whether they keep inputs of layers alone.
ROWS = ((1, False), (8, False), (8, True), (64, True))


@pytest.mark.parametrize("optimizer", [AdafactorConfig(min_factored_dim=64), AdamWConfig(name="adamw")])
def test_a_learner_holds_what_is_told(inputs: TrainInputs, optimizer: AdafactorConfig | AdamWConfig) -> None:
    config = inputs.config.model_copy(update={"optimizer": optimizer})
    told = memory(
        inputs.backbone,
        optimizer,
        config.packing.budgets,
        ParallelSettings(),
        dtype=torch.float32,
        workers=1,
        sequences=1,
    )
    learner = Learner(inputs.model_copy(update={"config": config}), 1, torch.device("cpu"), resumed=False)
    state = learner.state()
    assert told.weights == sum(tensor.nbytes for tensor in state["model"].values())
    assert told.gradients == told.weights == 4 * told.trained
    held = [value for one in state["optimizer"]["state"].values() for value in one.values()]
    assert told.optimizer == sum(value.nbytes for value in held if isinstance(value, Tensor))


def at(size: str, workers: int, checkpointed: bool, budgets: Budgets | None = None, sequences: int = 1) -> Memory:
    return memory(
        BackboneConfig.of(size, REFERENCE),  # type: ignore[arg-type]
        AdafactorConfig(),
        budgets or Budgets(),
        ParallelSettings(strategy="fsdp", checkpoint_activations=checkpointed),
        dtype=torch.bfloat16,
        workers=workers,
        sequences=sequences,
    )


def test_what_is_shared_out_and_what_is_not() -> None:
    alone, shared, checkpointed = at("large", 1, False), at("large", 8, False), at("large", 8, True)
    assert (shared.trained, shared.frozen) == (alone.trained, alone.frozen)
    assert shared.weights - 4 * shared.frozen == (alone.weights - 4 * alone.frozen) // 8
    assert (shared.gradients, shared.optimizer) == (alone.gradients // 8, alone.optimizer // 8)
    assert (alone.gathered, shared.gathered > 0) == (0, True)
    assert 10 * checkpointed.activations < shared.activations
    # Activations and logits are those of as many sequences, whatever sizes happen to be equal.
    for budgets in (Budgets(), Budgets(encoder=1024, decoder=1024)):
        one, four = (at("large", 8, False, budgets, sequences) for sequences in (1, 4))
        assert four.logits == 4 * one.logits
        assert four.activations == pytest.approx(4 * one.activations, rel=0.01)


@pytest.mark.parametrize("size", ["large", "xl", "xxl"])
def test_the_table_of_the_documentation_is_what_is_computed(size: str) -> None:
    text = (PROJECT / "docs" / "training.md").read_text()
    for workers, checkpointed in ROWS:
        told = at(size, workers, checkpointed)
        parts = (told.weights, told.gradients, told.optimizer, told.gathered, told.activations, told.logits, told.total)
        kept = "inputs" if checkpointed else "all"
        row = [f"`{size}`", str(workers), kept, *(f"{part / 1e9:.1f}" for part in parts)]
        assert f"| {' | '.join(row)} |" in text
