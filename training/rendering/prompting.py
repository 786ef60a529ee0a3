"""Prompts of a mixture's tasks: literals encoded once, and which one an example has."""

from __future__ import annotations

import re

from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.objectives import OBJECTIVES
from omnimill.rng import choose, subkey, unit
from omnimill.training.planning.draws import Purpose, task_key
from omnimill.training.rendering.choices import Choices
from omnimill.training.rendering.prompt_text import PromptText
from omnimill.training.rendering.settings import RenderSettings

_SLOT = re.compile(r"\{(\w+)\}")

# Ids of a literal, or the number of the row's text segment that fills a slot.
Piece = tuple[int, ...] | int
# Ids of its literals and roles of its slots, in order.
Template = list[tuple[int, ...] | str]


class Prompting:
    """The prompts of the tasks of a mixture.

    Args:
        text: encodes the prompts' literals, once.

    Attributes:
        templates: of every task. task_keys: that the keys of its examples are derived from.
        uninformative: ids of what replaces dropped prompts.
    """

    def __init__(self, mixture: Mixture, text: PromptText, settings: RenderSettings) -> None:
        self.mixture = mixture
        self.settings = settings
        self.vocabulary = text.vocabulary
        special = settings.uninformative_prompt in text.vocabulary.layout.specials
        self.uninformative = (
            (text.vocabulary.special(settings.uninformative_prompt),)
            if special
            else _ids(text, settings.uninformative_prompt)
        )
        self.templates = [[_template(text, prompt) for prompt in task.prompts] for task in mixture.tasks]
        self.task_keys = [task_key(mixture.seed, task.name) for task in mixture.tasks]

    def prompt_number(self, task_index: int, key: int) -> int | None:
        """Which of a task's prompts an example has; None when it has none, or the uninformative one in its place."""
        task = self.mixture.tasks[task_index]
        if not task.prompts or self.drops_prompt(task, key):
            return None
        return choose(subkey(key, Purpose.PROMPT), len(task.prompts))

    def prompt(self, task_index: int, choices: Choices, key: int) -> list[Piece]:
        """One of the task's templates with its slots resolved to text segments."""
        number = self.prompt_number(task_index, key)
        if number is None:
            return [self.uninformative] if self.drops_prompt(self.mixture.tasks[task_index], key) else []
        template = self.templates[task_index][number]
        return [choices.text(part) if isinstance(part, str) else part for part in template]

    def drops_prompt(self, task: Task, key: int) -> bool:
        """Whether an example's prompt is replaced by the uninformative one."""
        return may_drop_prompt(task) and unit(subkey(key, Purpose.PROMPT_DROP)) < self.settings.prompt_drop


def may_drop_prompt(task: Task) -> bool:
    """Whether some of the task's prompts are replaced, for classifier-free guidance."""
    return task.target == "image" and OBJECTIVES[task.objective].whole_target


def _ids(text: PromptText, literal: str) -> tuple[int, ...]:
    return tuple(text.encode(literal))


def _template(text: PromptText, prompt: str) -> Template:
    """A prompt as ids of its literals (spaces around slots dropped) and names of its slots."""
    parts = _SLOT.split(prompt)
    return [part if i % 2 else _ids(text, part.strip()) for i, part in enumerate(parts) if i % 2 or part.strip()]
