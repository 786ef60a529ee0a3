"""Examples of a mixture's tasks from its token datasets, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omnimill.config import allowed
from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra import storage
from omnimill.infra.dataset import Dataset
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.rows import TaskRows, scan
from omnimill.mixtures.versions import current_versions, open_versions
from omnimill.rng import generator
from omnimill.tokenizers.store import SET, load_tokenizers
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.forms import make_renderer
from omnimill.training.rendering.pairs import Renderer
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.runs.backbones import render_for, resolve_backbone
from omnimill.training.runs.config import TrainConfig
from omnimill.training.showing.example import ShownExample
from omnimill.training.showing.sequences import SequenceViewer
from omnimill.training.showing.show import Viewer

# Datasets that a message names.
_MOST_NAMED = 5


@dataclass(frozen=True)
class ShownTasks:
    """examples: task by task. missing: why tasks have none."""

    examples: list[ShownExample]
    missing: list[str]


def show_tasks(
    mixture: Mixture,
    root: str,
    names: Sequence[str],
    count: int,
    epoch: int = 0,
    training: TrainConfig | None = None,
) -> ShownTasks:
    """Some examples of tasks, drawn from all their rows, the same ones every time.

    Of the mixture's datasets those are read that are there.

    Args:
        root: holds datasets and tokenizers.
        names: of tasks, held out ones too; all that are drawn when empty.
        count: of a task at most.
        epoch: of the draws of prompts, items, patches and noise.
        training: whose render settings and budgets hold; the defaults when None.

    Raises:
        ConfigError: there is no such task, or one that no sequence could hold.
        OmnimillError: none of the datasets is there.
    """
    tasks = _chosen(mixture, names)
    there = [
        name for name in mixture.datasets if storage.exists(storage.join(Dataset(root, name).url, "manifest.json"))
    ]
    if not there:
        more = len(mixture.datasets) - _MOST_NAMED
        listed = ", ".join(mixture.datasets[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        raise OmnimillError(f"none of the token datasets {listed} is under {root}; omnimill tokenize makes them")
    shown = mixture.model_copy(update={"tasks": tuple(tasks), "datasets": tuple(there), "schedule": (), "held_out": ()})
    data = open_versions(root, current_versions(root, shown))
    tokenizers = load_tokenizers(root, data.layout.tokenizers, data.layout.digests.get(SET), batch=1)
    settings, budgets = RenderSettings(), Budgets()
    if training is not None:
        settings = render_for(training.render, resolve_backbone(training, data.layout))
        budgets = training.packing.budgets
    renderer = make_renderer(shown, data.layout, tokenizers.text, settings, budgets)
    viewer = Viewer(renderer, tokenizers) if isinstance(renderer, Renderer) else SequenceViewer(renderer, tokenizers)
    found = scan(data, tasks)
    examples = [
        viewer.show(number, rows.fetch(row), epoch) for number, rows in enumerate(found) for row in _drawn(rows, count)
    ]
    return ShownTasks(examples, _missing([rows for rows in found if not len(rows)], root))


def _missing(empty: Sequence[TaskRows], root: str) -> list[str]:
    """Why tasks have no rows; those without any data, of which there may be hundreds, in one line."""
    without = [rows.task.name for rows in empty if not any(rows.reasons.values())]
    why = [rows.describe_empty() for rows in empty if any(rows.reasons.values())]
    return [*why, *([f"no data under {root}: {', '.join(without)}"] if without else [])]


def _chosen(mixture: Mixture, names: Sequence[str]) -> list[Task]:
    tasks = {task.name: task for task in (*mixture.tasks, *mixture.held_out)}
    for name in names:
        if name not in tasks:
            raise ConfigError(f"the mixture has no such task; found {name!r}; {allowed(name, sorted(tasks))}")
    return [tasks[name] for name in dict.fromkeys(names)] or list(mixture.tasks)


def _drawn(rows: TaskRows, count: int) -> list[int]:
    """Different rows, in random order."""
    rng = generator("show", rows.task.name)
    # Of many rows the first draws differ; of few all are put in order.
    if len(rows) > 1000 * count:
        return list(dict.fromkeys(rng.integers(0, len(rows), count).tolist()))
    return [int(row) for row in rng.permutation(len(rows))[:count]]
