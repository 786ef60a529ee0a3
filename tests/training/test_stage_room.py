"""The published mixtures fit the published budgets."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnimill.mixtures.loading import load_mixture
from omnimill.tokens import TokenLayout
from omnimill.training.rendering.stage_room import stage_faults
from omnimill.training.runs.config import TrainConfig

MIXTURES = Path(__file__).parents[2] / "mixtures"
# Fact sheet of the reference: budgets of a packed sequence (paper, section B.3) and kept patches (section B.4).
STAGES = {
    "pretrain": {"packing": {"budgets": {"encoder": 864, "decoder": 1280}}},
    "instruct": {
        "packing": {"budgets": {"encoder": 1024, "decoder": 1280}},
        "render": {"image_keep": 0.875, "history_keep": 0.875, "audio_keep": 0.875},
    },
}


@pytest.mark.parametrize("name", STAGES)
def test_the_reference_s_stages_hold_their_mixtures(name: str) -> None:
    mixture = load_mixture(MIXTURES / f"{name}.yaml")
    stage = {"name": name, "mixture": f"{name}.yaml", "steps": 1, "streams": 1, **STAGES[name]}
    layout = TokenLayout(tokenizers="reference", digests={})
    assert stage_faults(mixture, TrainConfig.model_validate(stage), layout) == []
    stage["packing"] = {"budgets": {"encoder": 864, "decoder": 1000}}
    found = stage_faults(mixture, TrainConfig.model_validate(stage), layout)
    needing = [number for number, task in enumerate(mixture.tasks) if task.target_modality == "image"]
    assert [fault.where[1] for fault in found if "'decoder'" in fault.message] == needing
