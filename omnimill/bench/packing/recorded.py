"""Recorded lengths of examples, and how they were recorded: ``python -m omnimill.bench.packing.recorded``.

Each file is a histogram: one line for every combination of costs (encoder and decoder tokens, pictures, earlier
pictures, clips) with the number of examples that have it, 10,000 in all. They were planned by the simulator over rows
as the catalog describes them, with the reference's rendering: `pretrain` and `instruct` are the mixtures of these
names; `text_heavy` is the pre-training mixture with four fifths of its examples from the group of text.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from omnimill import rng
from omnimill.mixtures.loading import load_mixture
from omnimill.rng import Int64s
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.planning.block_planner import LENGTHS, TASK, BlockPlanner
from omnimill.training.planning.bulk_lengths import costs_of
from omnimill.training.planning.lengths import Budgets
from omnimill.training.planning.simulated_corpus import RenderFor, open_corpus
from omnimill.training.rendering.settings import RenderSettings

NAMES = ("text_heavy", "pretrain", "instruct")
EXAMPLES = 10_000
_FOLDER = Path(__file__).parent
_MIXTURES = Path(__file__).parents[3] / "mixtures"
_KEPT, _DROPPED = 0.875, 0.1
# The reference's two stages (paper, sections B.3 and B.4).
_STAGES = {
    "pretrain": (Budgets(), RenderSettings()),
    "instruct": (
        Budgets(encoder=1024),
        RenderSettings(image_keep=_KEPT, history_keep=_KEPT, audio_keep=_KEPT, prompt_drop=_DROPPED),
    ),
}
_STREAMS, _STEPS, _TEXT = 64, 32, 0.8


def stage_of(name: str) -> str:
    """The stage that a histogram was recorded in."""
    return "instruct" if name == "instruct" else "pretrain"


def budgets_of(name: str) -> Budgets:
    """The reference's budgets for a recorded mixture."""
    return _STAGES[stage_of(name)][0]


def load(name: str) -> Int64s:
    """The recorded examples, shuffled: int64 [budgets, 10,000]."""
    table = np.loadtxt(_FOLDER / f"{name}.csv", np.int64, delimiter=",", skiprows=1).T
    every = np.repeat(table[:-1], table[-1], axis=1)
    return every[:, rng.generator("recorded lengths", name).permutation(every.shape[1])]


def stream(name: str, count: int) -> Int64s:
    """Examples drawn from the histogram: int64 [budgets, count]."""
    recorded = load(name)
    return recorded[:, rng.generator("stream of recorded lengths", name).integers(recorded.shape[1], size=count)]


def record(name: str) -> None:
    """Write a histogram."""
    mixture = load_mixture(_MIXTURES / f"{stage_of(name)}.yaml")
    budgets, render = _STAGES[stage_of(name)]
    corpus = open_corpus(mixture, tempfile.gettempdir(), _STREAMS, budgets, RenderFor(render, None))
    planner = BlockPlanner(corpus.timeline, corpus.measure, PackingSettings(budgets=budgets), range(_STREAMS))
    wanted: dict[bool | None, int] = {None: EXAMPLES}
    if name == "text_heavy":
        wanted = {True: round(_TEXT * EXAMPLES), False: EXAMPLES - round(_TEXT * EXAMPLES)}
    kept: dict[bool | None, list[Int64s]] = {kind: [] for kind in wanted}
    text = np.array([task.group.split("/")[0] == "text" for task in corpus.mixture.tasks])
    while any(sum(one.shape[1] for one in kept[kind]) < count for kind, count in wanted.items()):
        seen = planner.next_block(_STEPS).examples()
        costs = costs_of(seen[LENGTHS:])
        for kind in wanted:
            kept[kind].append(costs if kind is None else costs[:, text[seen[TASK]] == kind])
    chosen = [np.concatenate(kept[kind], axis=1)[:, :count] for kind, count in wanted.items()]
    different, counts = np.unique(np.concatenate(chosen, axis=1).T, axis=0, return_counts=True)
    header = ",".join([*Budgets.model_fields, "examples"])
    np.savetxt(_FOLDER / f"{name}.csv", np.column_stack([different, counts]), "%d", ",", header=header, comments="")


if __name__ == "__main__":
    for recorded in NAMES:
        record(recorded)
