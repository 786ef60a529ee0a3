"""Rates that are shares of tokens."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from omnimill.mixtures.config import Mixture
from omnimill.mixtures.course import new_course
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.planning.lengths import Budgets
from omnimill.training.planning.planner import VirtualStreams
from omnimill.training.planning.task_tokens import shares_of_draws
from omnimill.training.rendering.recipe import Recipes
from omnimill.training.rendering.settings import RenderSettings

RENDER = RenderSettings(max_text=96, max_target_text=64, image_latents=4, audio_latents=2)
PACKING = PackingSettings(budgets=Budgets(encoder=200, decoder=160, images=3, image_history=6, audio=6), pool=8)


def test_tasks_get_the_tokens_that_their_rates_say(token_data: Any, mixture: Mixture) -> None:
    asked = mixture.model_copy(update={"rate_unit": "tokens"})
    course = new_course(token_data.root, mixture, 4)
    recipes = Recipes(asked, token_data.layout, token_data.text, RENDER, PACKING.budgets)
    drawn = shares_of_draws(asked, course.rows, recipes)
    assert drawn.rate_unit == "examples"
    streams = VirtualStreams(new_course(token_data.root, drawn, 4), token_data.text, packing=PACKING, render=RENDER)
    tokens = [0] * len(mixture.tasks)
    for sequences in islice(streams.planner(range(4)), 250):
        for sequence in sequences:
            for item in sequence.items:
                tokens[item.task] += item.lengths.encoder + item.lengths.decoder
    assert [one / sum(tokens) for one in tokens] == pytest.approx(mixture.rates, rel=0.03)
    # It is not what shares of examples give.
    assert drawn.rates != pytest.approx(mixture.rates, rel=0.2)
