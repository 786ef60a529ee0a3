"""Plans: the same from anywhere, resumable from a small state, every draw placed, rates as asked."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.course import new_course
from omnimill.training.lengths import Budgets
from omnimill.training.packing import PackingSettings
from omnimill.training.planner import PackedSequence, VirtualStreams, plan_digest
from omnimill.training.render_settings import RenderSettings

RENDER = RenderSettings(max_text=96, max_target_text=64, image_latents=4, audio_latents=2)
PACKING = PackingSettings(budgets=Budgets(encoder=200, decoder=160, images=3, image_history=6, audio=6), pool=8)


def open_streams(data: Any, mixture: Mixture, streams: int = 4, packing: PackingSettings = PACKING) -> VirtualStreams:
    return VirtualStreams(new_course(data.root, mixture, streams), data.text, packing=packing, render=RENDER)


def plan(streams: VirtualStreams, stream: int, steps: int) -> list[PackedSequence]:
    planner = streams.planner(stream)
    return [next(planner) for _ in range(steps)]


def test_a_stream_is_the_same_alone_and_from_a_state_of_json(token_data: Any, mixture: Mixture) -> None:
    streams = open_streams(token_data, mixture)
    whole = plan(streams, 2, 30)
    planner = streams.planner(2)
    assert [next(planner) for _ in range(12)] == whole[:12]
    state = json.dumps(planner.state())
    assert len(state) < 500
    resumed = open_streams(token_data, mixture).planner(2)
    resumed.restore(json.loads(state))
    assert [next(resumed) for _ in range(18)] == whole[12:]
    assert planner.state() == json.loads(state)


def test_every_draw_is_placed_once_and_rates_hold(token_data: Any, mixture: Mixture) -> None:
    streams = open_streams(token_data, mixture)
    drawn: Counter[int] = Counter()
    for stream in range(4):
        planner = streams.planner(stream)
        placed = [item.draw for _ in range(40) for item in next(planner).items]
        pending = [entry[0] for entry in planner.state()["pool"]]
        assert sorted([*placed, *pending]) == list(range(len(placed) + len(pending)))
        drawn.update(item.task for sequence in plan(streams, stream, 40) for item in sequence.items)
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
