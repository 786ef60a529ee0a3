"""Can a stage of training hold what a mixture asks for? Answered before anything is tokenized or planned."""

from __future__ import annotations

from itertools import islice

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.resolve import Fault
from omnimill.tokens import TokenLayout
from omnimill.training.config import TrainConfig
from omnimill.training.inputs import open_streams, resolve, with_latents
from omnimill.training.recipe import streams_read
from omnimill.training.room import check_room, most_patches

# Streams and steps of the short simulation that counts examples in a sequence.
_STREAMS, _STEPS = 4, 32


def stage_faults(mixture: Mixture, config: TrainConfig, layout: TokenLayout) -> list[Fault]:
    """Tasks whose modalities the stage's budgets cannot hold.

    Args:
        layout: of the token datasets.
    """
    found = []
    render = with_latents(config.render, config.backbone.resolve(layout))
    patches = most_patches(layout, render)
    for kind, tasks in (("tasks", mixture.tasks), ("held_out", mixture.held_out)):
        for number, task in enumerate(tasks):
            try:
                check_room(task, streams_read(task), patches, layout, render, config.packing.budgets)
            except ConfigError as error:
                found.append(Fault((kind, number), str(error)))
    return found


def examples_per_sequence(config: TrainConfig, root: str) -> float:
    """Examples in a packed sequence, on average, of some streams' first sequences; reads lengths only.

    Raises:
        ConfigError, OmnimillError: as :func:`resolve`.
    """
    inputs = resolve(config, root)
    streams = open_streams(inputs, root, [inputs.change(0)])
    planner = streams.planner(range(min(_STREAMS, config.streams)))
    counts = [len(sequence.items) for sequences in islice(planner, _STEPS) for sequence in sequences]
    return sum(counts) / len(counts)
