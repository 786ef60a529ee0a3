"""Episodes of robots and agents, cut into runs of steps: one example each, with the pictures and words that belong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from omnimill.config import Config
from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Source
from omnimill.pipelines.sources.examples import make_example
from omnimill.schema import Example, Image, Meta, Provenance, Text, Trajectory

Matrix = npt.NDArray[np.float64]


class RunSettings(Config):
    """How episodes are cut.

    steps_per_example: an episode is cut into runs of so many steps, the last may be shorter.
    stride: every so-manieth step of the episode is taken; steps are counted and timed after that.
    frames_per_example: steps of a run that have a picture, evenly spaced; the last step, the current one, always has.
    """

    steps_per_example: int = Field(5, ge=1)
    stride: int = Field(1, ge=1)
    frames_per_example: int = Field(5, ge=1)

    def runs(self, length: int) -> list[range]:
        """The runs of an episode of so many steps, as step numbers."""
        kept = range(0, length, self.stride)
        size = self.steps_per_example
        return [kept[begin : begin + size] for begin in range(0, len(kept), size)]

    def seen(self, run: Sequence[int]) -> list[int]:
        """The steps of a run that have a picture: evenly spaced, counted back from the last."""
        count = min(self.frames_per_example, len(run))
        return [run[len(run) - 1 - len(run) * back // count] for back in range(count)][::-1]

    def pictured(self, length: int) -> list[int]:
        """The steps of an episode whose pictures are needed, in order."""
        return sorted({step for run in self.runs(length) for step in self.seen(run)})


@dataclass(frozen=True)
class Episode:
    """What is known of an episode, row per step.

    texts: the texts in force at a step. words: what is done at every step, in words.
    states, actions: [steps, numbers], None where there are none. steps_per_second: before any stride.
    tags: facts for `Meta.tags`.
    """

    name: str
    length: int
    texts: Callable[[int], Sequence[Text]]
    words: Sequence[str] = ()
    states: Matrix | None = None
    actions: Matrix | None = None
    state_names: Sequence[str] = ()
    action_names: Sequence[str] = ()
    steps_per_second: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def run_examples(
    source: Source,
    unit: Unit,
    key: str,
    provenance: Provenance,
    settings: RunSettings,
    episode: Episode,
    pictures: Mapping[int, Image],
) -> list[Example]:
    """One example per run; its key is the episode's with the number of the run's first step.

    Args:
        pictures: by step; steps without one are kept without one.
    """
    examples = []
    for number, run in enumerate(settings.runs(episode.length)):
        first = number * settings.steps_per_example
        seen = [step for step in settings.seen(run) if step in pictures]
        index = {step: place for place, step in enumerate(seen)}
        words = [Text(role="step", text=episode.words[step], image=index.get(step)) for step in run if episode.words]
        columns: dict[str, Any] = {
            "text": [*episode.texts(run[-1]), *words],
            "images": [pictures[step] for step in seen],
            "trajectory": Trajectory(
                episode=episode.name,
                first_step=first,
                steps_per_second=episode.steps_per_second and episode.steps_per_second / settings.stride,
                state_names=list(episode.state_names),
                action_names=list(episode.action_names),
                states=_rows(episode.states, run),
                actions=_rows(episode.actions, run),
                step_images=[index.get(step) for step in run],
            ),
            "meta": Meta(tags=dict(episode.tags)),
        }
        examples.append(make_example(source, unit, f"{key}#{first}", provenance, **columns))
    return examples


def _rows(matrix: Matrix | None, run: Sequence[int]) -> list[list[float]]:
    return [] if matrix is None else matrix[np.array(run)].tolist()
