"""The optimizer against its published formulas written out in numpy, and the schedule against the published rates."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from omnimill.training.engine.optim import AdafactorConfig, AdamWConfig, build_optimizer
from omnimill.training.engine.schedules import Constant, Cosine, WarmupStableDecay, learning_rate

Array = NDArray[np.float64]


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))


def reference_updates(start: Array, gradients: list[Array], rate: float, factored: bool) -> list[Array]:
    """Adafactor's algorithms 4 and 5 with momentum over the scaled update, in float64, one parameter."""
    parameter, momentum = start.copy(), np.zeros_like(start)
    rows = columns = second = np.zeros(())
    seen = []
    for k, gradient in enumerate(gradients, 1):
        beta2 = 1 - k**-0.8
        squares = gradient**2 + 1e-30
        if factored:
            rows = beta2 * rows + (1 - beta2) * squares.mean(axis=1)
            columns = beta2 * columns + (1 - beta2) * squares.mean(axis=0)
            estimate = np.outer(rows, columns) / rows.mean()
        else:
            second = beta2 * second + (1 - beta2) * squares
            estimate = second
        update = gradient / np.sqrt(estimate)
        update /= max(1.0, rms(update) / 1.0)
        update *= rate * max(1e-3, rms(parameter))
        momentum = 0.9 * momentum + 0.1 * update
        parameter = parameter - momentum
        seen.append(parameter.copy())
    return seen


@pytest.mark.parametrize(
    ("shape", "factored"), [((130, 140), True), ((200, 128), True), ((200, 127), False), ((64,), False)]
)
def test_adafactor_follows_its_formulas(shape: tuple[int, ...], factored: bool) -> None:
    generator = np.random.default_rng(3)
    start = generator.normal(size=shape) * 0.3
    # The third gradient is far larger, so that update clipping acts; the fourth is nothing at all.
    gradients = [generator.normal(size=shape) * scale for scale in (1.0, 0.01, 50.0, 0.0, 1e-4)]
    parameter = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    optimizer = build_optimizer(AdafactorConfig(), [parameter])
    expected = reference_updates(start, gradients, rate=0.05, factored=factored)
    for gradient, wanted in zip(gradients, expected, strict=True):
        parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.param_groups[0]["lr"] = 0.05
        optimizer.step()
        np.testing.assert_allclose(parameter.detach().numpy(), wanted, rtol=2e-4, atol=2e-6)


def test_factored_state_is_small() -> None:
    parameter = torch.nn.Parameter(torch.ones(256, 512))
    optimizer = build_optimizer(AdafactorConfig(momentum=0.0), [parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert sum(value.numel() for value in optimizer.state[parameter].values()) == 256 + 512


def test_a_zero_parameter_can_leave_zero() -> None:
    parameter = torch.nn.Parameter(torch.zeros(10))
    optimizer = build_optimizer(AdafactorConfig(momentum=0.0), [parameter])
    optimizer.param_groups[0]["lr"] = 0.5
    parameter.grad = torch.ones(10)
    optimizer.step()
    # Update of size one, times the least parameter scale, times the rate.
    torch.testing.assert_close(parameter.detach(), torch.full((10,), -0.5e-3))


@pytest.mark.parametrize("config", [AdafactorConfig(), AdamWConfig(name="adamw")])
def test_saved_state_goes_on_bit_for_bit(config: AdafactorConfig | AdamWConfig) -> None:
    def run(break_at: int | None) -> torch.Tensor:
        parameters = [
            torch.nn.Parameter(torch.linspace(-1, 1, 150 * 130).reshape(150, 130)),
            torch.nn.Parameter(torch.ones(7)),
        ]
        optimizer = build_optimizer(config, parameters)
        for step in range(6):
            if step == break_at:
                file = io.BytesIO()
                torch.save(optimizer.state_dict(), file)
                file.seek(0)
                optimizer = build_optimizer(config, parameters)
                optimizer.load_state_dict(torch.load(file, weights_only=True))
            generator = torch.Generator().manual_seed(step)
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.param_groups[0]["lr"] = learning_rate(config, step)
            optimizer.step()
        return torch.cat([parameter.detach().flatten() for parameter in parameters])

    assert torch.equal(run(None), run(3))


def test_schedule_gives_the_published_rates() -> None:
    config = AdafactorConfig()
    assert learning_rate(config, 0) == pytest.approx(0.01414 / 5000, rel=1e-3)
    assert learning_rate(config, 2499) == pytest.approx(0.01414 / 2, rel=1e-3)
    assert learning_rate(config, 4999) == pytest.approx(0.01414, rel=1e-3)
    assert learning_rate(config, 1_500_000 - 1) == pytest.approx(8.16e-4, rel=1e-3)
    assert learning_rate(config, 3_000_000 - 1) == pytest.approx(5.77e-4, rel=1e-3)


def test_other_ways_down_from_the_peak() -> None:
    def rates(schedule: Cosine | WarmupStableDecay | Constant, *updates: int) -> list[float]:
        config = AdamWConfig(name="adamw", peak_learning_rate=2.0, warmup_steps=10, schedule=schedule)
        return [learning_rate(config, update - 1) for update in updates]

    cosine = Cosine(name="cosine", until=110, end=0.2)
    assert rates(cosine, 5, 10, 60, 110, 500) == pytest.approx([1.0, 2.0, 1.2, 0.4, 0.4])
    stable = WarmupStableDecay(name="wsd", decay_from=100, until=200, end=0.1)
    assert rates(stable, 5, 10, 100, 150, 200, 900) == pytest.approx([1.0, 2.0, 2.0, 1.1, 0.2, 0.2])
    assert rates(Constant(name="constant"), 1, 10, 10_000) == pytest.approx([0.2, 2.0, 2.0])
    with pytest.raises(ValueError, match=r"schedule.until \(10\) must come after warmup_steps \(10\)"):
        rates(Cosine(name="cosine", until=10), 1)
