"""Tokens of a task's examples, for mixtures whose rates are shares of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture, in_examples
from omnimill.mixtures.rows import TaskRows
from omnimill.training.planning.block_planner import Measure
from omnimill.training.planning.bulk_lengths import costs_of
from omnimill.training.planning.row_measure import RowMeasure
from omnimill.training.rendering.forms import AnyRecipes, bulk_lengths

# Rows of a task that are measured: all of a small one, evenly spread ones of a large one. The mean of lengths that
# spread as widely as they are long on average is then off by 0.2 %.
_MOST = 1 << 18


def mean_tokens(mixture: Mixture, measure: Measure, sizes: Sequence[int]) -> list[float]:
    """Tokens of an example of each task, encoder and decoder together, on average; 1 when rates are of examples.

    Args:
        sizes: rows of each task.
    """
    if mixture.rate_unit == "examples":
        return [1.0] * len(sizes)
    found = []
    for task, size in enumerate(sizes):
        count = min(size, _MOST)
        rows = np.arange(count) * size // count if size * count < 1 << 63 else np.arange(count) * (size // count)
        _, lengths = measure(task, rows, np.zeros(count, np.int64))
        found.append(float(costs_of(lengths)[:2].sum()) / count)
    return found


def shares_of_draws(mixture: Mixture, rows: Sequence[TaskRows], recipes: AnyRecipes) -> Mixture:
    """The mixture with rates of examples, by the tokens that its rows have as `recipes` render them.

    Raises:
        ConfigError: a task has no rows.
    """
    if mixture.rate_unit == "examples":
        return mixture
    for one in rows:
        if not len(one):
            raise ConfigError(one.describe_empty())
    measure = RowMeasure(rows, bulk_lengths(recipes))
    return in_examples(mixture, mean_tokens(mixture, measure, [len(one) for one in rows]))
