"""Cases to evaluate a model on: examples of tasks that its training does not draw, with what is right for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from omnimill.config import allowed
from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.permutation import Permutation
from omnimill.mixtures.row_columns import RowContent
from omnimill.mixtures.rows import TaskRows, scan
from omnimill.mixtures.versions import Versions, current_versions, less_erased, open_versions
from omnimill.rng import digest64
from omnimill.schema import Example
from omnimill.tokenizers.store import Tokenizers
from omnimill.training.evaluation.example_shards import ExampleShards
from omnimill.training.evaluation.references import needs_example, right_texts, shown
from omnimill.training.metrics.reading import Shown
from omnimill.training.rendering.forms import AnyRecipe
from omnimill.training.rendering.pairs import Rendered, Renderer
from omnimill.training.rendering.prompt import Asked, Opening, uninformative, whole_renderer, whole_sequence_renderer
from omnimill.training.rendering.sequences import SequenceRenderer
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.runs.inputs import TrainInputs


@dataclass(frozen=True)
class Place:
    """Where a case is: the number of its task among `HeldOut.tasks`, and of its row among the task's."""

    task: int
    row: int


@dataclass(frozen=True)
class HeldOutCase:
    """An example of a task, to be asked and judged.

    key: ``<task>/<example id>``, also of the answer's draws. seen: whether the training draws the
    example's row, for this or another task.
    example: as training renders it, but with every patch and no prompt dropped; its target is the right one.
    asked: what is to be answered, in the form that the backbone reads; None where a loss is all there is: in denoising
    tasks, and of documents. wanted: text ids without EOS, or codes from 0, of the right answer.
    texts, shown: see `metrics.evaluate.Case`.
    """

    task: Task
    key: str
    seen: bool
    example: Rendered
    asked: Asked | Opening | None = None
    wanted: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    shown: Shown = field(default_factory=Shown)


class HeldOut:
    """Tasks and their rows; rendered cases are made when they are asked for.

    Args:
        tasks: with their rows.
        drawn: rows of the training's tasks.
        unseen: names of tasks of which only rows that the training does not draw are used.
        trained: what the model was trained with.
        tokenizers: those that the rows were made with.
        versions: of the data that the rows are in. examples: that the rows were made from.
        seed: of the evaluated mixture: decides prompts and items.
    """

    def __init__(
        self,
        tasks: Sequence[TaskRows],
        drawn: Sequence[TaskRows],
        unseen: frozenset[str],
        trained: TrainInputs,
        tokenizers: Tokenizers,
        versions: Versions,
        examples: ExampleShards,
        seed: int,
    ) -> None:
        self._rows = list(tasks)
        self._drawn = drawn
        self._unseen = unseen
        self._trained = trained
        self._tokenizers = tokenizers
        self.versions = versions
        self._examples = examples
        self.seed = seed
        self._renderer, self._uninformed = self._renderers()

    @property
    def tasks(self) -> list[Task]:
        return [rows.task for rows in self._rows]

    def places(self, count: int) -> list[Place]:
        """Where the first `count` cases of every task are, task by task; fewer where a task has fewer.

        A task's rows have one random order for good: more cases are those that there were and others.

        Raises:
            ConfigError: a task has no row that the training does not draw.
        """
        return [Place(task, row) for task in range(len(self._rows)) for row in self._first(task, count)]

    def case(self, place: Place) -> HeldOutCase:
        """The case at a place.

        Raises:
            IntegrityError, BadRecord: its row cannot be rendered.
        """
        rows, content = self._rows[place.task], self.content(place)
        key = f"{rows.task.name}/{content.id}"
        example = self._renderer.render(place.task, content, epoch=0)
        seen = self._seen(place.task, place.row)
        if rows.task.objective != "generate" or rows.task.reads_document:
            return HeldOutCase(rows.task, key, seen, example)
        recipe = self._renderer.recipes.make(place.task, content, content.id, epoch=0)
        return HeldOutCase(
            task=rows.task,
            key=key,
            seen=seen,
            example=example,
            asked=self._asked(place.task, key, content, example),
            wanted=_right(recipe, content),
            texts=right_texts(recipe, content, self._tokenizers),
            shown=shown(recipe, content, self._tokenizers, self._example(rows, place.row, content.id)),
        )

    def content(self, place: Place) -> RowContent:
        """The row at a place."""
        return self._rows[place.task].fetch(place.row)

    def cases(self, count: int) -> list[HeldOutCase]:
        """The cases at :meth:`places`."""
        return [self.case(place) for place in self.places(count)]

    def _first(self, task: int, count: int) -> list[int]:
        rows = self._rows[task]
        found: list[int] = []
        for row in row_order(rows):
            if len(found) == count:
                break
            if rows.task.name not in self._unseen or not self._seen(task, row):
                found.append(row)
        if not found:
            raise ConfigError(
                f"task {rows.task.name!r}: the training draws all of its {len(rows):,} rows, so nothing is left to "
                "evaluate on; hold a source out (a task with `held_out: true` over it), evaluate with another mixture, "
                "or say that rows may have been seen"
            )
        return found

    def _example(self, rows: TaskRows, row: int, example_id: str) -> Example | None:
        return self._examples.example(rows.shard(row), example_id) if needs_example(rows.task) else None

    def _seen(self, task: int, row: int) -> bool:
        ((url, _, shard_rows),) = self._rows[task].by_shard(np.array([row]))
        return any(rows.holds(url, int(shard_rows[0])) for rows in self._drawn)

    def _asked(self, task: int, key: str, content: RowContent, example: Rendered) -> Asked | Opening:
        if isinstance(self._renderer, SequenceRenderer):
            before = self._renderer.opening(task, content, epoch=0)
            start = self._renderer.vocabulary.BOS
            return Opening(key, self.tasks[task].target_modality, [start, *before.tolist()])
        negative = None
        if self._uninformed is not None and self.tasks[task].target_role is None:
            negative = self._uninformed.render(task, content, epoch=0)
        return Asked(key, example, negative)

    def _renderers(self) -> tuple[Renderer | SequenceRenderer, Renderer | None]:
        """Of the tasks, and for guidance of the same without what their prompts say; a decoder-only backbone's
        generator sees to that itself."""
        trained, text = self._trained, self._tokenizers.text
        if trained.render.form == "sequence":
            room = trained.config.packing.budgets
            renderer = whole_sequence_renderer(self.tasks, trained.layout, text, trained.render, room, self.seed)
            return renderer, None
        both = (self.tasks, [_uninformed(task, trained.render) for task in self.tasks])
        informed, uninformed = (
            whole_renderer(tasks, trained.layout, text, trained.render, self.seed) for tasks in both
        )
        return informed, uninformed


def _right(recipe: AnyRecipe, content: RowContent) -> tuple[int, ...]:
    """The answer that a task itself asks for: text ids without EOS, or codes from 0."""
    if recipe.task.target_role:
        return tuple(int(token) for i in recipe.target_segments for token in content.text_ids[i])
    if recipe.target_picture is not None:
        return tuple(map(int, content.target_codes[recipe.target_picture]))
    codes = content.image_codes if recipe.task.target_modality == "image" else content.audio_codes
    return tuple(map(int, codes[-1]))


def row_order(rows: TaskRows) -> Iterator[int]:
    """A task's rows in the one random order that they have for good."""
    order, key = Permutation(len(rows)), digest64("held_out", rows.task.name)
    return (order.forward(place, key) for place in range(len(rows)))


def open_held_out(
    root: str,
    trained: TrainInputs,
    tokenizers: Tokenizers,
    mixture: Mixture | None = None,
    names: Sequence[str] = (),
    *,
    versions: Versions | None = None,
    seen_too: bool = False,
) -> HeldOut:
    """The cases of some tasks of a mixture, for a model that was trained with `trained`.

    Of a task that the mixture holds out all rows are used, and which of them the training draws for other tasks is
    counted; of any other task only rows that the training draws for none.

    Args:
        root: holds the token datasets.
        trained: what the model was trained with.
        tokenizers: of the training's token datasets.
        mixture: the training's own when None.
        names: of tasks; all held-out ones when empty, or all there are when the given mixture holds none out.
        versions: of the mixture's datasets; when None the current ones, or the training's for its own mixture less
            what is erased by now.
        seen_too: use rows that the training draws, too.

    Raises:
        ConfigError: there is no such task, or one without rows; the mixture's tokens have another layout than those of
            the training; or the training's own mixture holds no task out and none is named.
        OmnimillError: a dataset does not exist.
    """
    own = mixture is None
    asked = trained.mixture if mixture is None else mixture
    if versions is None:
        versions = less_erased(root, trained.versions) if mixture is None else current_versions(root, mixture)
    tasks = _chosen(asked, names, own)
    data = open_versions(root, versions)
    if data.layout != trained.layout:
        raise ConfigError(
            f"datasets {', '.join(asked.datasets)} were tokenized in another way than what the model was trained on "
            f"(tokenizers {trained.layout.tokenizers!r}): what their numbers mean differs"
        )
    found = scan(data, tasks)
    if empty := [rows.describe_empty() for rows in found if not len(rows)]:
        raise ConfigError("\n".join(empty))
    drawn = scan(open_versions(root, trained.versions), trained.mixture.tasks)
    held = {task.name for task in asked.held_out}
    unseen = frozenset() if seen_too else frozenset(task.name for task in tasks if task.name not in held)
    return HeldOut(found, drawn, unseen, trained, tokenizers, versions, ExampleShards(data), asked.seed)


def _uninformed(task: Task, settings: RenderSettings) -> Task:
    """The task with a prompt that says nothing of its examples, which guidance moves away from."""
    prompt = uninformative(task.target_modality, settings)
    return task.model_copy(update={"prompts": (prompt,) if prompt else ()})


def _chosen(mixture: Mixture, names: Sequence[str], own: bool) -> list[Task]:
    tasks = {task.name: task for task in (*mixture.held_out, *mixture.tasks)}
    for name in names:
        if name not in tasks:
            raise ConfigError(f"the mixture has no such task; found {name!r}; {allowed(name, sorted(tasks))}")
    if names:
        return [tasks[name] for name in dict.fromkeys(names)]
    if own and not mixture.held_out:
        raise ConfigError(
            "the training's mixture holds no task out; hold some out (`held_out: true`), name tasks, or give another "
            "mixture"
        )
    return list(mixture.held_out or mixture.tasks)
