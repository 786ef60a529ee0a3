"""One step: numbers add up, what is not finite is not learnt, and how the batch is cut up does not matter."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from omnimill.mixtures.config import Mixture
from omnimill.mixtures.course import new_course
from omnimill.training.backbone.model import Backbone
from omnimill.training.engine.optim import AdafactorConfig, build_optimizer
from omnimill.training.engine.parallel import prepare_layers
from omnimill.training.engine.settings import ParallelSettings
from omnimill.training.engine.step import StepSettings, train_step
from omnimill.training.loading.batch import DecoderModality, PackedBatch
from omnimill.training.loading.loader import Loader
from omnimill.training.runs.inputs import TrainInputs

STREAMS, RATE = 4, 0.05


@pytest.fixture(scope="module")
def settings(mixture: Mixture) -> StepSettings:
    return StepSettings(tasks=len(mixture.tasks), z_loss=1e-3, gradient_clip=1e3)


def batch_of(inputs: TrainInputs, token_data: Any, rank: int = 0, world: int = 1) -> PackedBatch:
    with Loader(
        new_course(token_data.root, inputs.mixture, STREAMS),
        token_data.text,
        packing=inputs.config.packing,
        render=inputs.config.render,
        rank=rank,
        world=world,
    ) as loader:
        return next(loader)[1]


def test_numbers_are_those_of_the_batch(inputs: TrainInputs, token_data: Any, settings: StepSettings) -> None:
    batch = batch_of(inputs, token_data)
    model = Backbone(inputs.backbone, seed=1)
    with torch.no_grad():
        losses = model(batch)
    metrics = train_step(model, torch.optim.SGD(model.parameters(), lr=0.0), batch, settings, RATE)

    weight, expected = batch.decoder_loss, 0.0
    for modality in DecoderModality:
        of = weight * (batch.decoder_modality == modality)
        mean = float((of * losses.nll).sum() / of.sum())
        assert metrics.modality_loss[modality.name.lower()] == pytest.approx(mean, rel=1e-5)
        expected += mean + 1e-3 * float((of * losses.log_z**2).sum() / of.sum())
    assert metrics.loss == pytest.approx(expected, rel=1e-5)
    for task in batch.decoder_task.unique().tolist():
        if task >= 0:
            of = weight * (batch.decoder_task == task)
            assert metrics.task_loss[task] == pytest.approx(float((of * losses.nll).sum() / of.sum()), rel=1e-5)
    assert set(metrics.task_loss) == set(batch.decoder_task.unique().tolist()) - {-1}
    assert metrics.encoder_tokens == int((batch.encoder_segment > 0).sum())
    assert metrics.decoder_padding == pytest.approx(float((batch.decoder_segment == 0).float().mean()))


def test_the_gradient_is_clipped(inputs: TrainInputs, token_data: Any, settings: StepSettings) -> None:
    batch = batch_of(inputs, token_data)
    model = Backbone(inputs.backbone, seed=1)
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    metrics = train_step(model, optimizer, batch, replace(settings, gradient_clip=0.5), 0.01)
    after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert metrics.grad_norm > 0.5
    assert float((after - before).norm()) == pytest.approx(0.5 * 0.01, rel=1e-3)


def gradients(model: Backbone, batch: PackedBatch, settings: StepSettings) -> torch.Tensor:
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    train_step(model, torch.optim.SGD(model.parameters(), lr=1.0), batch, settings, 1.0)
    return before - torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    ("parallel", "bits"),
    [
        (ParallelSettings(micro_batches=4), False),
        (ParallelSettings(micro_batches=2, checkpoint_activations=True), False),
        (ParallelSettings(checkpoint_activations=True), True),
    ],
)
def test_what_is_learnt_does_not_depend_on_how_it_is_computed(
    inputs: TrainInputs, token_data: Any, settings: StepSettings, parallel: ParallelSettings, bits: bool
) -> None:
    batch = batch_of(inputs, token_data)
    expected = gradients(Backbone(inputs.backbone, seed=1), batch, settings)
    model = Backbone(inputs.backbone, seed=1)
    prepare_layers(model, parallel)
    found = gradients(model, batch, replace(settings, micro_batches=parallel.micro_batches))
    assert torch.equal(found, expected) if bits else True
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_micro_batches_hold_the_whole_batch(inputs: TrainInputs, token_data: Any) -> None:
    batch = batch_of(inputs, token_data)
    model = Backbone(inputs.backbone, seed=1)
    with torch.no_grad():
        apart = torch.cat([model(part).nll for part in batch.split(STREAMS)])
        torch.testing.assert_close(apart, model(batch).nll)


def test_modalities_count_as_they_are_told(inputs: TrainInputs, token_data: Any, settings: StepSettings) -> None:
    batch = batch_of(inputs, token_data)
    every, text, image, audio = (
        gradients(Backbone(inputs.backbone, seed=1), batch, replace(settings, shares=shares))
        for shares in ((3.0, 0.5, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    )
    torch.testing.assert_close(every, 3.0 * text + 0.5 * image + audio, rtol=1e-3, atol=1e-4)


def test_the_model_learns_a_batch_by_heart(inputs: TrainInputs, token_data: Any, settings: StepSettings) -> None:
    batch = batch_of(inputs, token_data)
    model = Backbone(inputs.backbone, seed=1)
    optimizer = build_optimizer(AdafactorConfig(), model.parameters())
    clipped = replace(settings, gradient_clip=1.0)
    losses = [train_step(model, optimizer, batch, clipped, RATE).loss for _ in range(25)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_is_not_learnt(
    inputs: TrainInputs, token_data: Any, settings: StepSettings, where: str
) -> None:
    batch = batch_of(inputs, token_data)
    model = Backbone(inputs.backbone, seed=1)
    optimizer = build_optimizer(AdafactorConfig(), model.parameters())
    train_step(model, optimizer, batch, settings, RATE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    momentum = {p: state["momentum"].clone() for p, state in optimizer.state.items()}
    if where == "loss":
        assert batch.image is not None
        batch.image.patches[0, 0, 0] = torch.inf
    else:
        model.encoder_norm.scale.register_hook(lambda gradient: gradient * torch.nan)
    metrics = train_step(model, optimizer, batch, settings, RATE)
    assert metrics.skipped
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(momentum[p], state["momentum"]) for p, state in optimizer.state.items())
    assert optimizer.param_groups[0]["updates"] == 1


def test_an_unused_part_keeps_its_momentum(inputs: TrainInputs, token_data: Any, settings: StepSettings) -> None:
    """As with more workers, where another one may have used it: the update does not depend on who saw what."""
    batch = batch_of(inputs, token_data)
    model = Backbone(inputs.backbone, seed=1)
    optimizer = build_optimizer(AdafactorConfig(), model.parameters())
    projection = model.inputs.image_projection.weight
    train_step(model, optimizer, batch, settings, RATE)
    once = projection.detach().clone()
    batch.image = None
    train_step(model, optimizer, batch, settings, RATE)
    assert not torch.equal(once, projection)


def test_step_loader_and_loop_need_neither_ray_nor_mlflow() -> None:
    check = (
        "import sys, omnimill.training.engine.step, omnimill.training.loading.loader, omnimill.training.runs.loop;"
        "print(*({'ray', 'mlflow'} & {name.partition('.')[0] for name in sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
