"""One step: how the batch is spread over workers does not matter, what is not finite is not learnt, numbers add up."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from omnimill.mixtures.config import Mixture
from omnimill.mixtures.course import new_course
from omnimill.training.backbone.model import Backbone
from omnimill.training.batch import DecoderModality, PackedBatch
from omnimill.training.inputs import TrainInputs
from omnimill.training.loader import Loader
from omnimill.training.optim import AdafactorConfig, build_optimizer
from omnimill.training.step import StepMetrics, train_step

STREAMS = 4
WORKER = """
import sys
from dataclasses import asdict
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from omnimill.training.backbone.model import Backbone
from omnimill.training.step import train_step

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
settings = torch.load(f"{folder}/settings.pt", weights_only=False)
batch = torch.load(f"{folder}/batch-{rank}.pt", weights_only=False)
model = Backbone(settings["backbone"], seed=1)
wrapped = DistributedDataParallel(model, find_unused_parameters=True)
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
metrics = train_step(wrapped, optimizer, batch, **settings["step"])
torch.save((asdict(metrics), model.state_dict()), f"{folder}/out-{rank}.pt")
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def settings(mixture: Mixture) -> dict[str, Any]:
    return {"tasks": len(mixture.tasks), "learning_rate": 0.05, "z_loss": 1e-3, "gradient_clip": 1e3}


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


def test_two_workers_learn_what_one_does(
    inputs: TrainInputs, token_data: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    whole = batch_of(inputs, token_data)
    halves = [batch_of(inputs, token_data, rank, 2) for rank in range(2)]
    # What makes this hard: the halves differ in weight per modality, and one leaves a part of the model unused.
    streams = ("image", "image_history", "audio", "audio_history")
    assert [getattr(halves[0], name) is None for name in streams] != [
        getattr(halves[1], name) is None for name in streams
    ]
    model = Backbone(inputs.backbone, seed=1)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    alone = train_step(model, optimizer, whole, **settings)

    torch.save({"backbone": inputs.backbone, "step": settings}, tmp_path / "settings.pt")
    for rank, half in enumerate(halves):
        torch.save(half, tmp_path / f"batch-{rank}.pt")
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(rank)]) for rank in range(2)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    (first, weights), (second, same) = (torch.load(tmp_path / f"out-{rank}.pt") for rank in range(2))

    assert first == second
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert StepMetrics(**first).skipped is False
    for name, value in asdict(alone).items():
        assert first[name] == pytest.approx(value, rel=1e-5), name
    moved = sum(float((weights[name] - start[name]).abs().sum()) for name in weights)
    assert moved > 1
    for name, value in model.state_dict().items():
        torch.testing.assert_close(
            weights[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_numbers_are_those_of_the_batch(inputs: TrainInputs, token_data: Any, settings: dict[str, Any]) -> None:
    batch = batch_of(inputs, token_data)
    model = Backbone(inputs.backbone, seed=1)
    with torch.no_grad():
        losses = model(batch)
    metrics = train_step(model, torch.optim.SGD(model.parameters(), lr=0.0), batch, **settings)

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


def test_the_gradient_is_clipped(inputs: TrainInputs, token_data: Any, settings: dict[str, Any]) -> None:
    batch = batch_of(inputs, token_data)
    model = Backbone(inputs.backbone, seed=1)
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    metrics = train_step(model, optimizer, batch, **{**settings, "gradient_clip": 0.5, "learning_rate": 0.01})
    after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert metrics.grad_norm > 0.5
    assert float((after - before).norm()) == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_the_model_learns_a_batch_by_heart(inputs: TrainInputs, token_data: Any, settings: dict[str, Any]) -> None:
    batch = batch_of(inputs, token_data)
    model = Backbone(inputs.backbone, seed=1)
    optimizer = build_optimizer(AdafactorConfig(), model.parameters())
    losses = [train_step(model, optimizer, batch, **{**settings, "gradient_clip": 1.0}).loss for _ in range(25)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_is_not_learnt(
    inputs: TrainInputs, token_data: Any, settings: dict[str, Any], where: str
) -> None:
    batch = batch_of(inputs, token_data)
    model = Backbone(inputs.backbone, seed=1)
    optimizer = build_optimizer(AdafactorConfig(), model.parameters())
    train_step(model, optimizer, batch, **settings)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    momentum = {p: state["momentum"].clone() for p, state in optimizer.state.items()}
    if where == "loss":
        assert batch.image is not None
        batch.image.patches[0, 0, 0] = torch.inf
    else:
        model.encoder_norm.scale.register_hook(lambda gradient: gradient * torch.nan)
    metrics = train_step(model, optimizer, batch, **settings)
    assert metrics.skipped
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(momentum[p], state["momentum"]) for p, state in optimizer.state.items())
    assert optimizer.param_groups[0]["updates"] == 1


def test_an_unused_part_keeps_its_momentum(inputs: TrainInputs, token_data: Any, settings: dict[str, Any]) -> None:
    """As with more workers, where another one may have used it: the update does not depend on who saw what."""
    batch = batch_of(inputs, token_data)
    model = Backbone(inputs.backbone, seed=1)
    optimizer = build_optimizer(AdafactorConfig(), model.parameters())
    projection = model.inputs.image_projection.weight
    train_step(model, optimizer, batch, **settings)
    once = projection.detach().clone()
    batch.image = None
    train_step(model, optimizer, batch, **settings)
    assert not torch.equal(once, projection)


def test_step_loader_and_loop_need_neither_ray_nor_mlflow() -> None:
    check = (
        "import sys, omnimill.training.step, omnimill.training.loader, omnimill.training.loop;"
        "print(*({'ray', 'mlflow'} & {name.partition('.')[0] for name in sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
