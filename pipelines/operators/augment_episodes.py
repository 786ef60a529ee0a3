"""New tasks from what agents do: questions about their steps, and pictures of their goals (arXiv 2312.17172, D.11)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from omnimill.pipelines.base import Operator
from omnimill.pipelines.operators.augment_items import add_texts, current, draws, free_item
from omnimill.pipelines.operators.augmentation import Augmentation
from omnimill.schema import Example, Text

Variant = Literal["plan", "affordance"]


class AugmentEpisodes(Augmentation):
    """Adds questions about the steps of a run; families episode-plan and episode-affordance.

    plan: an item of ``plan``: all steps of the run in words, numbered, the same step in a row once.
    affordance: of ``proposal`` (a step) and ``feasible``: whether it is what the agent does at the current picture, yes
        or no, as often one as the other. What is not is another step of the run.

    variants: which are made. items: of affordance. most: a run of more different steps in a row gets no plan.
    """

    reads: ClassVar[tuple[str, ...]] = ("images", "text")
    writes: ClassVar[tuple[str, ...]] = ("text",)

    op: Literal["augment_episodes"]
    variants: tuple[Variant, ...] = Field(("plan", "affordance"), min_length=1)
    items: int = Field(1, ge=1)
    most: int = Field(30, ge=2)

    def augment(self, example: Example) -> None:
        steps = [text for text in example.text if text.role == "step" and text.item is None]
        words = [name for name, _ in groupby(step.text.strip() for step in steps)]
        rng = draws(example, self.op)
        if "plan" in self.variants and 1 < len(words) <= self.most:
            plan = " ".join(f"{number}. {name}" for number, name in enumerate(words, 1))
            add_texts(example, free_item(example), plan=plan)
        if "affordance" in self.variants:
            now = [step.text.strip() for step in steps if step.image is not None and step.image == current(example)]
            others = sorted(set(words) - set(now))
            for _ in range(self.items if now and others else 0):
                true = bool(rng.integers(2))
                proposal = _one(rng, now if true else others)
                add_texts(example, free_item(example), proposal=proposal, feasible="yes" if true else "no")


class AugmentGoals(Operator):
    """Makes an episode, or a part of it, its first and its last picture; family goal-generation.

    goal: the whole run, whose ``instruction`` stays. subgoal: the pictures of one ``subgoal``, which becomes the
    ``instruction``; texts of role ``subgoal`` have to name their pictures. A run without such words is dropped as
    ``no_instruction``, one without two pictures of what is wanted as ``no_second_picture``. Pictures and words of the
    steps between are left out, so that nothing tells the goal.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("images", "text")
    writes: ClassVar[tuple[str, ...]] = ("images", "text", "trajectory", "annotations", "targets")

    op: Literal["augment_goals"]
    of: Literal["goal", "subgoal"] = "goal"

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._reduce(example) for example in examples]

    def _reduce(self, example: Example) -> str | None:
        if self.of == "goal":
            told = [text.text for text in example.text if text.role == "instruction" and text.item is None]
            stretches = [(told, 0, len(example.images) - 1)]
        else:
            stretches = _subgoals(example)
        told_of = [one for one in stretches if one[0]]
        if not told_of:
            return "no_instruction"
        long = [one for one in told_of if one[2] > one[1]]
        if not long:
            return "no_second_picture"
        words, first, last = long[int(draws(example, self.op).integers(len(long)))]
        example.images = [example.images[first], example.images[last]]
        example.text = [Text(role="instruction", text=text) for text in words]
        example.trajectory, example.annotations, example.targets = None, [], []
        return None


def _subgoals(example: Example) -> list[tuple[list[str], int, int]]:
    """For every run of pictures with the same subgoals: these, and the first and the last of the pictures."""
    told = [
        [text.text for text in example.text if text.role == "subgoal" and text.image == image]
        for image in range(len(example.images))
    ]
    found = []
    for words, group in groupby(range(len(told)), key=lambda image: told[image]):
        pictures = list(group)
        found.append((words, pictures[0], pictures[-1]))
    return found


def _one(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
