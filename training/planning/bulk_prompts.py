"""Tokens of many examples' texts at once: of their prompts, and of all their texts of a role."""

from __future__ import annotations

import numpy as np

from omnimill.rng import Int64s, UInt64s, choose_many, subkey_many, unit_many
from omnimill.training.planning.bulk_choices import BulkChoices
from omnimill.training.planning.draws import Purpose
from omnimill.training.planning.row_batch import RowBatch, role_code
from omnimill.training.rendering.prompting import Prompting, may_drop_prompt


def prompt_tokens(prompting: Prompting, task_index: int, choices: BulkChoices, keys: UInt64s) -> Int64s:
    """Tokens of every example's prompt: int64 [n]; what `Prompting.prompt` makes of one."""
    task, templates = prompting.mixture.tasks[task_index], prompting.templates[task_index]
    asked = np.zeros(len(keys), np.int64)
    if templates:
        drawn = choose_many(subkey_many(keys, Purpose.PROMPT), np.full(len(keys), len(templates)))
        literals = [sum(len(part) for part in parts if not isinstance(part, str)) for parts in templates]
        asked = np.array(literals)[drawn]
        for role in sorted(task.prompt_roles):
            uses = [sum(part == role for part in parts if isinstance(part, str)) for parts in templates]
            asked += np.array(uses)[drawn] * choices.text(role)
    drop = prompting.settings.prompt_drop
    if drop and may_drop_prompt(task):
        dropped = unit_many(subkey_many(keys, Purpose.PROMPT_DROP)) < drop
        asked = np.where(dropped, len(prompting.uninformative), asked)
    return asked


def tokens_of_role(batch: RowBatch, role: str) -> Int64s:
    """Tokens of all of a row's texts of a role: int64 [n]."""
    texts = batch.texts
    own = texts.columns["roles"] == role_code(role)
    return np.bincount(texts.rows[own], weights=texts.columns["lengths"][own], minlength=len(batch)).astype(np.int64)
