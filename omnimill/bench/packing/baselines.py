"""Other ways to pack: the reference's pairs, next-fit, and grain's first-fit. Each says how full its sequences are."""

from __future__ import annotations

from collections.abc import Sequence

Costs = tuple[int, ...]
REFERENCE_POOL = 10
# A pair's second place when nothing shares the sequence.
BLANK = -1


def reference_pairs(
    examples: Sequence[Costs], limits: Costs, pool_size: int = REFERENCE_POOL
) -> tuple[list[tuple[int, int]], list[int]]:
    """The reference's streaming pairs: at most two examples a sequence, from a pool of ten.

    Among the pending examples that fit beside the new one the largest is taken. When none fits, the new one waits where
    a place is free; otherwise the largest of all goes alone.

    Returns:
        pairs in the order in which they are emitted, by the examples' numbers, and those that are left in the pool.
    """
    pool: list[int | None] = [None] * pool_size
    pairs = []
    for number, one in enumerate(examples):
        pending = [(place, waiting) for place, waiting in enumerate(pool) if waiting is not None]
        partners = [
            (place, waiting)
            for place, waiting in pending
            if all(a + b <= most for a, b, most in zip(one, examples[waiting], limits, strict=True))
        ]
        if partners:
            place, waiting = max(partners, key=lambda item: sum(examples[item[1]]))
            pairs.append((number, waiting))
            pool[place] = None
        elif len(pending) < pool_size:
            pool[pool.index(None)] = number
        else:
            place, waiting = max(pending, key=lambda item: sum(examples[item[1]]))
            if sum(one) >= sum(examples[waiting]):
                pairs.append((number, BLANK))
            else:
                pairs.append((waiting, BLANK))
                pool[place] = number
    return pairs, [number for number in pool if number is not None]


def next_fit(examples: Sequence[Costs], limits: Costs) -> int:
    """Sequences when one is open at a time: what does not fit opens the next."""
    sequences, room = 1, limits
    for one in examples:
        if any(cost > left for cost, left in zip(one, room, strict=True)):
            sequences, room = sequences + 1, limits
        room = tuple(left - cost for left, cost in zip(room, one, strict=True))
    return sequences
