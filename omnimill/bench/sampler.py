"""How fast the sampler decides what is drawn, and how exactly it keeps the rates, against independent random draws."""

from __future__ import annotations

import time

import numpy as np

from omnimill import rng
from omnimill.bench.metric import Metric
from omnimill.mixtures.sampler import Sampler

RATES = (0.33, 0.313, 0.25, 0.087, 0.0067, 0.0033, 0.01)  # groups of the reference's pre-training mixture (Table 10)
ROWS = 1_000_000_000
STREAMS = 512
ROUNDS = 400
SEED = 5


def run() -> list[Metric]:
    """Draw from the groups of the published mixture over a billion rows a task."""
    sampler = Sampler(RATES, [ROWS] * len(RATES), STREAMS, SEED)
    started = time.perf_counter()
    streams = [sampler.next_many(stream, sampler.start(stream), ROUNDS)[0] for stream in range(STREAMS)]
    seconds = time.perf_counter() - started
    tasks = np.stack([draws.task for draws in streams], axis=1)
    generator = rng.generator(SEED, "independent draws")
    expected = np.array(RATES) / sum(RATES)
    independent = generator.choice(len(RATES), size=tasks.shape, p=expected)
    deviation = {"omnimill": _deviation(tasks, expected), "independent_draws": _deviation(independent, expected)}
    return [
        Metric.of("draws", "draws/s", {"omnimill": tasks.size / seconds}, best="largest"),
        Metric.of("largest_deviation_of_a_batch", "sequences", deviation, best="smallest"),
    ]


def _deviation(tasks: np.ndarray, rates: np.ndarray) -> float:
    """Largest distance of any task's count in any batch of STREAMS draws from its rate."""
    counts = np.stack([(tasks == task).sum(axis=1) for task in range(len(rates))], axis=1)
    return float(np.abs(counts - rates * STREAMS).max())
