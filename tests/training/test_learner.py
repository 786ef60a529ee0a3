"""Two workers learn what one does, whichever way the model lies with them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from omnimill.mixtures.course import new_course
from omnimill.training.backbone import blocks
from omnimill.training.backbone.build import build
from omnimill.training.backbone.model import Backbone
from omnimill.training.backbone.towers_config import TowersConfig
from omnimill.training.backbone.watch import watch_attention
from omnimill.training.engine.learner import Learner
from omnimill.training.engine.optim import AdafactorConfig, AdamWConfig, build_optimizer
from omnimill.training.engine.parallel import distribute, prepare_layers
from omnimill.training.engine.settings import ParallelSettings, PrecisionSettings
from omnimill.training.engine.step import StepSettings, train_step
from omnimill.training.loading.batch import PackedBatch
from omnimill.training.loading.loader import Loader
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.inputs import TrainInputs
from tests.sequence_batches import TINY, batch_of, example

WORKERS, STREAMS, STEPS = 2, 4, 2
CPU = torch.device("cpu")
LAYOUTS = {
    "ddp": ParallelSettings(),
    "ddp in parts": ParallelSettings(micro_batches=2),
    "fsdp": ParallelSettings(strategy="fsdp"),
    "fsdp in parts": ParallelSettings(strategy="fsdp", micro_batches=2, checkpoint_activations=True),
}
WHOLE = ("ddp", "fsdp")
HALF = PrecisionSettings(activations="bfloat16")
ADAMW, THAW = AdamWConfig(name="adamw", warmup_steps=1), {"train_encoders_from": 1}
# Matrices that are factored and not, vectors, and rows that two workers cannot share equally.
SHAPES = ((130, 140), (129, 300), (200, 127), (7,), (1, 9))


def batches_of(inputs: TrainInputs, token_data: Any) -> list[PackedBatch]:
    """Of the first steps, whole."""
    course = new_course(token_data.root, inputs.mixture, STREAMS)
    config = inputs.config
    with Loader(course, token_data.text, packing=config.packing, render=config.render) as loader:
        return [next(loader)[1] for _ in range(STEPS)]


def whole(value: Tensor) -> Tensor:
    return value.detach().full_tensor() if isinstance(value, DTensor) else value.detach().clone()


def learner_of(inputs: TrainInputs, parallel: ParallelSettings, resumed: bool = False, **changes: Any) -> Learner:
    config = inputs.config.model_copy(
        update={"workers": WORKERS, "parallel": parallel, "watch_attention": 2, **changes}
    )
    return Learner(inputs.model_copy(update={"config": config}), len(inputs.mixture.tasks), CPU, resumed=resumed)


def gradient_of(inputs: TrainInputs, parallel: ParallelSettings, batch: PackedBatch) -> dict[str, Tensor]:
    """What plain descent at rate one leaves of the weights."""
    model = build(inputs.backbone, seed=1)
    prepare_layers(model, parallel)
    trained = distribute(model, parallel, CPU)
    settings = StepSettings(len(inputs.mixture.tasks), 1e-3, 1e3, (1.0, 0.5, 2.0), parallel.micro_batches)
    train_step(trained, torch.optim.SGD(model.parameters(), lr=1.0), batch, settings, 1.0)
    return {name: whole(value) for name, value in model.state_dict().items()}


def frozen(inputs: TrainInputs) -> TrainInputs:
    return inputs.model_copy(update={"backbone": inputs.backbone.model_copy(update={"frozen_encoders": True})})


def sequences(inputs: TrainInputs) -> tuple[TrainInputs, PackedBatch]:
    """Of two towers with links between them, over ids alone."""
    towers = TowersConfig(towers=(TINY, TINY), to_first=1, to_second=2)
    batch = batch_of([[example(9, "a"), example(12, "b")], *([example(16, name)] for name in "cde")], 24)
    return inputs.model_copy(update={"backbone": towers}), batch


def learn(learner: Learner, batches: list[PackedBatch]) -> list[Any]:
    return [learner.update(batch, step) for step, batch in enumerate(batches)]


def adafactor_updates(sharded: bool) -> list[Tensor]:
    """Parameters and state after three updates by made gradients."""
    random = torch.Generator().manual_seed(5)

    def laid_out(value: Tensor) -> Tensor:
        return distribute_tensor(value, init_device_mesh("cpu", (WORKERS,)), [Shard(0)]) if sharded else value

    parameters = [torch.nn.Parameter(laid_out(torch.randn(shape, generator=random))) for shape in SHAPES]
    optimizer = build_optimizer(AdafactorConfig(), parameters)
    optimizer.param_groups[0]["lr"] = 0.05
    for scale in (1.0, 40.0, 0.01):
        for parameter, shape in zip(parameters, SHAPES, strict=True):
            parameter.grad = laid_out(scale * torch.randn(shape, generator=random))
        optimizer.step()
    state = [value for parameter in parameters for _, value in sorted(optimizer.state[parameter].items())]
    return [whole(value) for value in (*parameters, *state)]


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", WORKERS), rank=rank, world_size=WORKERS)
    inputs, batches = torch.load(f"{folder}/inputs.pt", weights_only=False)
    batches = [batch.split(WORKERS)[rank] for batch in batches]
    found: dict[str, Any] = {"adafactor": adafactor_updates(sharded=True)}
    for name, parallel in LAYOUTS.items():
        found[f"gradient, {name}"] = gradient_of(inputs, parallel, batches[0])
    of_towers, batch = sequences(inputs)
    for name, parallel in LAYOUTS.items():
        found[f"towers, {name}"] = gradient_of(of_towers, parallel, batch.split(WORKERS)[rank])
    for name in WHOLE:
        found[f"losses, {name}"] = learn(learner_of(inputs, LAYOUTS[name]), batches)
    found["bfloat16"] = learn(learner_of(inputs, LAYOUTS["fsdp"], precision=HALF), batches)
    found["adamw"] = learn(learner_of(inputs, LAYOUTS["fsdp"], optimizer=ADAMW), batches)
    found["thawed"] = [learn(learner_of(frozen(inputs), LAYOUTS[name], **THAW), batches) for name in ("ddp", "fsdp")]
    found["resumed"] = _resumed(inputs, batches)
    found["whole"] = _evaluated(inputs, batches[0], rank)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def _resumed(inputs: TrainInputs, batches: list[PackedBatch]) -> list[list[float]]:
    """Losses of the last updates: without a break, and by another learner that takes the state over."""
    first, second = (learner_of(frozen(inputs), LAYOUTS["fsdp"], resumed) for resumed in (False, True))
    first.update(batches[0], 0)
    held = {
        "model": {name: value.clone() for name, value in first.state()["model"].items()},
        "optimizer": {
            **first.state()["optimizer"],
            "state": {
                parameter: {name: value.clone() for name, value in state.items()}
                for parameter, state in first.state()["optimizer"]["state"].items()
            },
        },
    }
    second.load(held)
    return [
        [learner.update(batch, step).loss for step, batch in enumerate(batches[1:], 1)] for learner in (first, second)
    ]


def _evaluated(inputs: TrainInputs, batch: PackedBatch, rank: int) -> tuple[Tensor, Tensor | None, list[float]]:
    """Losses through all workers, those that worker 1 alone computes, and the losses of two updates after that, of
    which the first is spoilt on one worker."""
    learner = learner_of(frozen(inputs), LAYOUTS["fsdp"])
    together = learner.losses(batch).nll
    with learner.whole() as backbone, torch.no_grad():
        alone = backbone(batch).nll if rank == 1 else None
    spoilt = replace(batch, encoder_position=batch.encoder_position * (torch.inf if rank == 1 else 1.0))
    return together, alone, [learner.update(one, 0).loss for one in (spoilt, batch)]


@pytest.fixture(scope="module")
def workers(
    inputs: TrainInputs, token_data: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[PackedBatch]]]:
    """What each of two workers found, and the whole batches."""
    folder, batches = tmp_path_factory.mktemp("workers"), batches_of(inputs, token_data)
    torch.save((inputs, batches), folder / "inputs.pt")
    torch.multiprocessing.spawn(_worker, (str(folder),), nprocs=WORKERS)  # type: ignore[no-untyped-call]
    first, second = (torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(WORKERS))
    yield first, second, batches


def test_workers_use_different_parts_of_the_model(workers: Any) -> None:
    """What makes it hard: halves differ in weight per modality, and one leaves a part of the model unused."""
    halves = [batch.split(WORKERS) for batch in workers[2]]
    streams = ("image", "image_history", "audio", "audio_history")
    assert any(len({tuple(getattr(half, s) is None for s in streams) for half in pair}) == 2 for pair in halves)


@pytest.mark.parametrize("way", LAYOUTS)
def test_two_workers_find_the_gradient_that_one_does(inputs: TrainInputs, workers: Any, way: str) -> None:
    first, second, batches = workers
    expected = gradient_of(inputs, ParallelSettings(), batches[0])
    start = Backbone(inputs.backbone, seed=1).state_dict()
    assert sum(float((value - start[name]).abs().sum()) for name, value in expected.items()) > 1
    found = first[f"gradient, {way}"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], second[f"gradient, {way}"][name])
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("way", WHOLE)
def test_two_workers_learn_what_one_does(inputs: TrainInputs, workers: Any, way: str) -> None:
    first, second, batches = workers
    alone = learn(learner_of(inputs, ParallelSettings()), batches)
    assert first[f"losses, {way}"] == second[f"losses, {way}"]
    for one, other in zip(first[f"losses, {way}"], alone, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)
        assert one.flops == pytest.approx(other.flops)
        assert (one.modality_loss, one.task_loss) == (
            pytest.approx(other.modality_loss, rel=1e-3),
            pytest.approx(other.task_loss, rel=1e-3),
        )
    # Looked at on every second update.
    looks = [metrics.attention_logit for metrics in first[f"losses, {way}"]]
    assert [set(look) >= {"encoder", "decoder", "cross"} for look in looks] == [True, False]


@pytest.mark.parametrize("name", LAYOUTS)
def test_towers_have_the_gradient_of_one_worker_however_they_are_laid_out(
    name: str, inputs: TrainInputs, workers: Any
) -> None:
    of_towers, batch = sequences(inputs)
    alone = gradient_of(of_towers, ParallelSettings(), batch)
    for found in workers[:2]:
        for key, expected in alone.items():
            torch.testing.assert_close(found[f"towers, {name}"][key], expected, rtol=1e-3, atol=1e-4)


def test_encoders_can_be_trained_from_some_step_on(inputs: TrainInputs, workers: Any) -> None:
    learner = learner_of(inputs, ParallelSettings(), train_encoders_from=1)
    encoders = [parameter for one in learner.backbone.inputs.encoders for parameter in one.parameters()]
    other = learner.backbone.inputs.image_projection.weight
    changed = []
    for step, batch in enumerate(workers[2]):
        before = [whole(parameter) for parameter in (*encoders, other)]
        learner.update(batch, step)
        *same, own = [torch.equal(old, new) for old, new in zip(before, (*encoders, other), strict=True)]
        assert not own
        changed.append(sum(not one for one in same) / len(same))
    # All but the biases of keys, which the softmax cancels, and what this batch's media do not need.
    assert changed[0] == 0
    assert changed[1] > 0.5


def test_the_largest_attention_logit_is_found(
    inputs: TrainInputs, workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, batch = Backbone(inputs.backbone, seed=1), workers[2][0]
    expected = []

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
        logits = torch.einsum("bhsk,bhtk->bhst", q.double(), k.double()) * scale
        expected.append(float(logits[mask.expand_as(logits)].max()))
        return plain(q, k, v, mask, scale)

    plain = blocks.attend
    with torch.no_grad(), watch_attention(backbone) as maxima:
        monkeypatch.setattr(blocks, "attend", attend)
        backbone(batch)
    assert max(map(float, maxima.values())) == pytest.approx(max(expected), rel=1e-4)
    assert len(expected) >= sum(isinstance(module, blocks.Attention) for module in backbone.modules()) - 4
    assert not any("combine" in vars(module) for module in backbone.modules())


def test_sharded_adafactor_equals_the_whole_one(workers: Any) -> None:
    for found, expected in zip(workers[0]["adafactor"], adafactor_updates(sharded=False), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_bfloat16_learns_nearly_the_same(inputs: TrainInputs, workers: Any) -> None:
    alone = [metrics.loss for metrics in learn(learner_of(inputs, ParallelSettings(), precision=HALF), workers[2])]
    sharded = [metrics.loss for metrics in workers[0]["bfloat16"]]
    exact = [metrics.loss for metrics in workers[0]["losses, ddp"]]
    assert alone != exact
    assert alone == pytest.approx(exact, rel=0.02)
    assert sharded == pytest.approx(alone, rel=0.01)


def test_sharded_state_is_taken_over_bit_for_bit(workers: Any) -> None:
    for found in workers[:2]:
        without_break, resumed = found["resumed"]
        assert without_break == resumed


def test_sharded_weights_come_together_for_evaluation(workers: Any) -> None:
    together, alone, losses = workers[1]["whole"]
    torch.testing.assert_close(alone, together)
    # What one worker could not compute, none has learnt.
    assert not math.isfinite(losses[0])
    assert losses[1] == workers[0]["losses, fsdp"][0].loss


def test_sharded_adamw_learns_what_the_whole_one_does(inputs: TrainInputs, workers: Any) -> None:
    alone = learn(learner_of(inputs, ParallelSettings(), optimizer=ADAMW), workers[2])
    assert [one.loss for one in workers[0]["adamw"]] == pytest.approx([one.loss for one in alone], rel=1e-4)


def test_frozen_encoders_are_trained_later_by_sharded_workers_too(inputs: TrainInputs, workers: Any) -> None:
    alone = learn(learner_of(frozen(inputs), ParallelSettings(), **THAW), workers[2])
    never = learn(learner_of(frozen(inputs), ParallelSettings()), workers[2])
    assert alone[0].grad_norm == never[0].grad_norm
    assert alone[1].grad_norm > never[1].grad_norm
    for run in workers[0]["thawed"]:
        assert [one.grad_norm for one in run] == pytest.approx([one.grad_norm for one in alone], rel=1e-3)


def test_micro_batches_share_out_a_workers_sequences(inputs: TrainInputs) -> None:
    settings = inputs.config.model_dump() | {"streams": 8, "workers": 2, "parallel": {"micro_batches": 3}}
    with pytest.raises(ValueError, match=r"streams \(4\) must be a multiple of parallel.micro_batches \(3\)"):
        TrainConfig.model_validate(settings)


@pytest.mark.fault
def test_compiled_layers_learn_the_same(inputs: TrainInputs, workers: Any) -> None:
    small = inputs.backbone.model_copy(update={"encoder_layers": 1, "decoder_layers": 1})
    inputs = inputs.model_copy(update={"backbone": small})
    plain, compiled = (
        learn(learner_of(inputs, ParallelSettings(checkpoint_activations=True, compile=one)), workers[2])
        for one in (False, True)
    )
    assert [one.loss for one in compiled] == pytest.approx([one.loss for one in plain], rel=1e-4)
    assert [one.grad_norm for one in compiled] == pytest.approx([one.grad_norm for one in plain], rel=1e-3)
