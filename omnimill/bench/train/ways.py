"""The same examples as batches of sequences: packed, in pairs, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from omnimill.bench.metric import OURS
from omnimill.training.loading.batch import PackedBatch
from omnimill.training.loading.collate import collate
from omnimill.training.planning.lengths import Budgets
from omnimill.training.planning.planner import VirtualStreams
from omnimill.training.rendering.pairs import Rendered

# The reference's pool of examples that wait for a partner.
_POOL = 10

# By then what comes out of the pools is what goes in, and not the examples that are packed first.
_FIRST = 300

Sequences = Sequence[Sequence[Rendered]]


def batches(streams: VirtualStreams, steps: int) -> Mapping[str, list[PackedBatch]]:
    """What is planned for some steps of all streams, by way; a batch has as many sequences as there are streams.

    Padded to the budgets, but for the last way: to the longest of its batch.
    """
    count, budgets = streams.course.streams, streams.packing.budgets
    planned = [sequence for step in islice(streams.planner(range(count)), _FIRST, _FIRST + steps) for sequence in step]
    packed = [
        [
            streams.renderer.render(item.task, streams.rows[item.task].fetch(item.row), item.epoch)
            for item in sequence.items
        ]
        for sequence in planned
    ]
    alone = [[example] for sequence in packed for example in sequence]
    ways: dict[str, Sequences] = {
        OURS: packed,
        "pairs_from_a_pool_of_ten": pairs([example for sequence in packed for example in sequence], budgets),
        "unpacked": alone,
    }
    found = {name: [collate(part, budgets) for part in _parts(made, count)] for name, made in ways.items()}
    found["unpacked_to_the_longest"] = [collate(part, _longest(part, budgets)) for part in _parts(alone, count)]
    return found


def pairs(examples: Sequence[Rendered], budgets: Budgets) -> list[list[Rendered]]:
    """The reference's streaming pairs: at most two examples that fit, the largest partner first, from a pool of ten.

    Where no partner fits and the pool is full, the largest of all goes alone. The pool is emptied at the end.
    """
    pool: list[Rendered] = []
    made = []
    for one in examples:
        partners = [place for place, other in enumerate(pool) if _fit(one, other, budgets)]
        if partners:
            made.append([pool.pop(max(partners, key=lambda place: _tokens(pool[place]))), one])
            continue
        pool.append(one)
        if len(pool) > _POOL:
            made.append([pool.pop(max(range(len(pool)), key=lambda place: _tokens(pool[place])))])
    return made + [[one] for one in pool]


def real_share(made: Sequence[PackedBatch]) -> float:
    """Share of slots, of encoder and decoder together, that hold a token."""
    segments = [segment for batch in made for segment in (batch.encoder_segment, batch.decoder_segment)]
    return sum(int((segment > 0).sum()) for segment in segments) / sum(segment.numel() for segment in segments)


def _parts(sequences: Sequences, count: int) -> list[Sequences]:
    return [sequences[first : first + count] for first in range(0, len(sequences), count)]


def _longest(sequences: Sequences, budgets: Budgets) -> Budgets:
    lengths = [example.lengths for sequence in sequences for example in sequence]
    longest = {"encoder": max(one.encoder for one in lengths), "decoder": max(one.decoder for one in lengths)}
    return budgets.model_copy(update=longest)


def _fit(one: Rendered, other: Rendered, budgets: Budgets) -> bool:
    costs = zip(one.lengths.costs, other.lengths.costs, budgets.limits, strict=True)
    return all(a + b <= most for a, b, most in costs)


def _tokens(example: Rendered) -> int:
    return example.lengths.encoder + example.lengths.decoder
