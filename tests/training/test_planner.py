"""Plans: the same from anywhere, resumable from a small state, every draw placed, rates as asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from plain_packing import PlainPacker

from omnimill.errors import ConfigError, OmnimillError
from omnimill.mixtures.config import Mixture, Phase, Task
from omnimill.mixtures.course import new_course
from omnimill.mixtures.sampler import Draw, Sampler
from omnimill.mixtures.timeline import Era, Timeline
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.planning.block_planner import BlockPlanner
from omnimill.training.planning.bulk_lengths import FIELDS
from omnimill.training.planning.lengths import Budgets, Lengths
from omnimill.training.planning.planner import PackedSequence, Planner, VirtualStreams, plan_digest
from omnimill.training.rendering.settings import RenderSettings

RENDER = RenderSettings(max_text=96, max_target_text=64, image_latents=4, audio_latents=2)
PACKING = PackingSettings(budgets=Budgets(encoder=200, decoder=160, images=3, image_history=6, audio=6), pool=8)


def open_streams(data: Any, mixture: Mixture, streams: int = 4, packing: PackingSettings = PACKING) -> VirtualStreams:
    return VirtualStreams(new_course(data.root, mixture, streams), data.text, packing=packing, render=RENDER)


def plan(streams: VirtualStreams, stream: int, steps: int) -> list[PackedSequence]:
    return [sequences[0] for sequences in islice(streams.planner([stream]), steps)]


def plainly(
    timeline: Timeline, stream: int, packing: PackingSettings, plan_one: Callable[[Draw], Any]
) -> Iterator[list[tuple[Draw, Any]]]:
    """One stream's sequences, draw by draw and example by example."""
    state, step = timeline.start(stream), 0

    def draw() -> Any:
        nonlocal state
        while True:
            drawn, state = timeline.sampler(step).next(stream, state)
            if not timeline.is_void(step, drawn.task, drawn.row):
                lengths = plan_one(drawn)
                return SimpleNamespace(draw=drawn, drawn=drawn.index, lengths=lengths, costs=lengths.costs)

    packer = PlainPacker(draw, packing)
    for step in count():
        if timeline.begins_era(step):
            state = timeline.carry(stream, state, step)
            packer.pool = [item for item in packer.pool if not timeline.is_void(step, item.draw.task, item.draw.row)]
        yield [(item.draw, item.lengths) for item in packer.next_sequence()]


def test_a_plan_is_what_draws_lengths_and_packing_say(token_data: Any, mixture: Mixture) -> None:
    """Whatever is planned together, and while rates change."""
    shifted = mixture.model_copy(
        update={"schedule": tuple(Phase(first_step=step, rates=(step, *range(1, 9))) for step in (3, 4, 11))}
    )
    streams = open_streams(token_data, shifted)
    plan_one = partial(plan_alone, streams)
    planner = streams.planner([3, 0, 2])
    wanted = [plainly(streams.course.timeline, stream, PACKING, plan_one) for stream in (3, 0, 2)]
    for sequences in islice(planner, 25):
        for sequence, plain in zip(sequences, map(next, wanted), strict=True):
            assert [(item.draw, item.task, item.row, item.epoch, item.lengths) for item in sequence.items] == [
                (drawn.index, drawn.task, drawn.row, drawn.epoch, lengths) for drawn, lengths in plain
            ]
            assert [item.example_id for item in sequence.items] == [
                streams.rows[drawn.task].id(drawn.row) for drawn, _ in plain
            ]


def plan_alone(streams: VirtualStreams, drawn: Draw) -> Lengths:
    rows = streams.rows[drawn.task]
    return streams.renderer.plan(drawn.task, rows.lengths(drawn.row), rows.id(drawn.row), drawn.epoch)


def test_rows_that_come_and_go_are_planned_as_each_stream_draws_them() -> None:
    rates = ((0, (1.0, 2.0)),)
    eras = [
        Era(0, Sampler([1, 2], [60, 25], 4, 3), rates),
        Era(
            9, Sampler([1, 2], [(60, 30), 25], 4, 3), ((0, (1.0, 2.0)), (15, (5.0, 1.0))), (np.arange(40), np.arange(0))
        ),
    ]
    timeline, packing = Timeline(eras), PackingSettings(budgets=Budgets(encoder=100, decoder=80), pool=5)

    def measure(task: int, rows: Any, epochs: Any) -> tuple[Any, Any]:
        lengths = np.zeros((len(FIELDS), len(rows)), np.int64)
        lengths[FIELDS.index("text")] = 5 + (rows * 7 + epochs * 3) % 60
        lengths[FIELDS.index("target_text")] = 3 + (rows * 5 + task) % 40
        return np.zeros((len(rows), 2), np.uint64), lengths

    def plan_one(drawn: Draw) -> Lengths:
        lengths = measure(drawn.task, np.array([drawn.row]), np.array([drawn.epoch]))[1][:, 0]
        return Lengths(**dict(zip(FIELDS, lengths.tolist(), strict=True)))

    planner = Planner(BlockPlanner(timeline, measure, packing, range(4)))
    wanted = [plainly(timeline, stream, packing, plan_one) for stream in range(4)]
    states = []
    for sequences in islice(planner, 30):
        found = [[(item.task, item.row, item.epoch) for item in sequence.items] for sequence in sequences]
        assert found == [[(drawn.task, drawn.row, drawn.epoch) for drawn, _ in next(plain)] for plain in wanted]
        states.append((planner.snapshot()(), found))
    for step, (state, _) in enumerate(states[:-1]):
        resumed = Planner(BlockPlanner(timeline, measure, packing, [1]))
        resumed.restore(json.loads(json.dumps(state)))
        assert [(item.task, item.row, item.epoch) for item in next(resumed)[0].items] == states[step + 1][1][1]


def test_a_stream_that_has_nothing_left_to_draw_is_an_error() -> None:
    """One stream's share of the rows is void; the others could go on for ever."""
    sampler = Sampler([1], [40], 4, 3)
    mine = sorted({sampler.next(2, sampler.advance(2, sampler.start(2), k))[0].row for k in range(10)})
    timeline = Timeline([Era(0, sampler, ((0, (1.0,)),), (np.array(mine),))])

    def measure(task: int, rows: Any, epochs: Any) -> tuple[Any, Any]:
        return np.zeros((len(rows), 2), np.uint64), np.full((len(FIELDS), len(rows)), 1)

    with pytest.raises(OmnimillError, match="step 0: selections leave out everything"):
        next(Planner(BlockPlanner(timeline, measure, PackingSettings(pool=4), range(4))))


def test_a_stream_goes_on_from_a_state_of_json(token_data: Any, mixture: Mixture) -> None:
    streams = open_streams(token_data, mixture)
    whole = plan(streams, 2, 30)
    planner = streams.planner([2])
    assert [next(planner)[0] for _ in range(12)] == whole[:12]
    state = json.dumps(planner.snapshot()())
    assert len(state) < 500
    resumed = open_streams(token_data, mixture).planner([2])
    resumed.restore(json.loads(state))
    assert resumed.snapshot()() == json.loads(state)
    assert [next(resumed)[0] for _ in range(18)] == whole[12:]
    assert planner.snapshot()() == json.loads(state)


def test_every_draw_is_placed_once_and_rates_hold(token_data: Any, mixture: Mixture) -> None:
    planner = open_streams(token_data, mixture).planner(range(4))
    sequences = list(islice(planner, 40))
    states = planner.snapshot()()
    drawn: Counter[int] = Counter()
    for stream in range(4):
        items = [item for step in sequences for item in step[stream].items]
        pending = [entry[0] for entry in states[str(stream)]["pool"]]
        assert sorted([*(item.draw for item in items), *pending]) == list(range(len(items) + len(pending)))
        assert sum(states[str(stream)]["taken"]) == states[str(stream)]["draws"] == len(items) + len(pending)
        drawn.update(item.task for item in items)
    whole = sum(drawn.values())
    for task, rate in enumerate(mixture.rates):
        assert drawn[task] / whole == pytest.approx(rate, abs=0.03)


def test_budgets_hold_in_every_step(token_data: Any, mixture: Mixture) -> None:
    for sequence in plan(open_streams(token_data, mixture), 0, 60):
        for used, limit in zip(
            zip(*(item.costs for item in sequence.items), strict=True), PACKING.budgets.limits, strict=True
        ):
            assert sum(used) <= limit


def test_digests_tell_plans_apart(token_data: Any, mixture: Mixture) -> None:
    streams = open_streams(token_data, mixture)
    one, other = plan(streams, 0, 5), plan(streams, 1, 5)
    assert plan_digest(one) == plan_digest(plan(streams, 0, 5))
    first = one[0]
    swapped = PackedSequence(first.step, first.stream, first.items[::-1])
    assert len(first.items) > 1
    assert len({plan_digest(one), plan_digest(other), plan_digest([swapped, *one[1:]]), plan_digest(one[:4])}) == 4


def test_the_order_is_named_by_all_that_decides_it(token_data: Any, mixture: Mixture) -> None:
    seeded = mixture.model_copy(update={"seed": 8})
    larger = PACKING.model_copy(update={"pool": 9})
    orders = [
        open_streams(token_data, mixture).order(0),
        open_streams(token_data, mixture).order(0),
        open_streams(token_data, seeded).order(0),
        open_streams(token_data, mixture, streams=8).order(0),
        open_streams(token_data, mixture, packing=larger).order(0),
    ]
    assert len(set(orders)) == 4


def test_a_task_without_rows_is_refused(token_data: Any) -> None:
    task = Task(name="nothing", rate=1, sources=("pages",), target="text:caption")
    with pytest.raises(ConfigError, match="task 'nothing': no eligible row: pages: no_text:caption 40"):
        open_streams(token_data, Mixture(datasets=("tokens",), tasks=(task,)))
