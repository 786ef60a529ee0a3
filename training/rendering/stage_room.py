"""Can a stage of training hold what a mixture asks for? Answered before anything is tokenized or planned."""

from __future__ import annotations

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.faults import Fault
from omnimill.tokens import TokenLayout
from omnimill.training.rendering.frames import streams_read
from omnimill.training.rendering.room import check_room, most_patches
from omnimill.training.rendering.sequence_room import check_sequence
from omnimill.training.runs.backbones import render_for, resolve_backbone
from omnimill.training.runs.config import TrainConfig


def stage_faults(mixture: Mixture, config: TrainConfig, layout: TokenLayout) -> list[Fault]:
    """Tasks whose modalities the stage's budgets cannot hold.

    Args:
        layout: of the token datasets.
    """
    found = []
    render = render_for(config.render, resolve_backbone(config, layout))
    patches = most_patches(layout, render)
    for kind, tasks in (("tasks", mixture.tasks), ("held_out", mixture.held_out)):
        for number, task in enumerate(tasks):
            try:
                if render.form == "sequence":
                    check_sequence(task, layout, render, config.packing.budgets)
                else:
                    check_room(task, streams_read(task), patches, layout, render, config.packing.budgets)
            except ConfigError as error:
                found.append(Fault((kind, number), str(error)))
    return found
