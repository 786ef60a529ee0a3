"""How well examples fill packed sequences, against the reference's pairs and next-fit, on the same lengths."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from omnimill import rng
from omnimill.bench.metric import Metric
from omnimill.training.lengths import Budgets
from omnimill.training.packing import PackingSettings, pack

EXAMPLES = 20_000
SEED = 3
REFERENCE_POOL = 10

Costs = tuple[int, int]


def run() -> list[Metric]:
    """Pack the same stream of examples three ways under the reference's pre-training budgets (864 and 1280 tokens)."""
    examples = lengths(EXAMPLES)
    budgets = Budgets()
    limits = (budgets.encoder, budgets.decoder)
    bound = lower_bound(examples, limits)
    packers: dict[str, Callable[[], float]] = {
        "omnimill": lambda: ours(examples, PackingSettings(budgets=budgets)),
        "pairs_from_a_pool_of_ten": lambda: reference_pairs(examples, limits),
        "next_fit": lambda: next_fit(examples, limits),
    }
    fill, cost = {}, {}
    for name, packer in packers.items():
        started = time.perf_counter()
        fill[name] = bound / packer()
        cost[name] = (time.perf_counter() - started) / len(examples) * 1e6
    return [
        Metric.of("sequences_bound_over_used", "share", fill, best="largest", ceiling=1.0),
        Metric.of("time_per_example", "us", cost, best="smallest"),
    ]


def lengths(count: int) -> list[Costs]:
    """A stream like the reference's pre-training mixture: a third text, a third pictures, a quarter film (Table 10)."""
    draw = rng.generator(SEED, "packing lengths")
    result = []
    for kind in draw.choice(4, size=count, p=[0.34, 0.2, 0.2, 0.26]):
        text = int(min(512, max(8, draw.lognormal(4.6, 0.9))))
        target = int(min(512, max(4, draw.lognormal(4.2, 0.9))))
        caption = int(draw.integers(8, 40))
        result.append(
            [
                (text, target),
                (288 + caption, caption),
                (caption, 1024),
                (int(min(864, 288 + 64 + 128 + text)), int(draw.choice([target, 512, 1024]))),
            ][kind]
        )
    return result


def lower_bound(examples: Sequence[Costs], limits: Costs) -> int:
    """Sequences that no packing can do without: by volume, or since examples over half a budget exclude each other."""
    by_volume = [math.ceil(sum(one[i] for one in examples) / limits[i]) for i in range(2)]
    alone = [sum(2 * one[i] > limits[i] for one in examples) for i in range(2)]
    return max(*by_volume, *alone)


def ours(examples: Sequence[Costs], settings: PackingSettings) -> float:
    """Sequences that the streaming packer needs, scaled to all examples from those placed when the stream ends."""
    costs = np.zeros((len(settings.budgets.limits), 1, len(examples)), np.int64)
    costs[:2, 0] = np.array(examples).T
    packed = pack(costs, np.array([len(examples)]), settings, len(examples))
    sequences = int(packed.sequences[0])
    return sequences * len(examples) / int(packed.ends[0, sequences - 1])


def reference_pairs(examples: Sequence[Costs], limits: Costs) -> int:
    """The reference's streaming pairs (at most two examples, a pool of ten), with the pool emptied at the end."""
    pool: list[Costs] = []
    sequences = 0
    for one in examples:
        partners = [other for other in pool if all(a + b <= m for a, b, m in zip(one, other, limits, strict=True))]
        if partners:
            pool.remove(max(partners, key=sum))
            sequences += 1
        elif len(pool) < REFERENCE_POOL:
            pool.append(one)
        else:
            largest = max(pool, key=sum)
            sequences += 1
            if sum(one) < sum(largest):
                pool[pool.index(largest)] = one
    return sequences + len(pool)


def next_fit(examples: Sequence[Costs], limits: Costs) -> int:
    """One open sequence; what does not fit opens the next."""
    sequences, room = 1, limits
    for one in examples:
        if any(cost > left for cost, left in zip(one, room, strict=True)):
            sequences, room = sequences + 1, limits
        room = (room[0] - one[0], room[1] - one[1])
    return sequences
