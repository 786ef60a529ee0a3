"""``omnimill mixture show`` and ``omnimill mixture diff``: what a mixture says, before and beside any data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnimill.cli import mixture_show
from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table

if TYPE_CHECKING:
    from omnimill.mixtures.config import Mixture
    from omnimill.mixtures.diff import Change, MixtureDiff

File = Annotated[Path, typer.Argument(help="The mixture, a YAML file.")]
_GROUP_COLUMNS = ["group or task", "share", "size", "datasets", "inputs", "targets"]


def show(
    file: File,
    tasks: mixture_show.Tasks = None,
    count: mixture_show.Count = None,
    html: mixture_show.Html = None,
    training: mixture_show.Stage = None,
    epoch: mixture_show.Epoch = 0,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """List groups and tasks, or show what the model would read and write for examples of some tasks or of all.

    The list: share of the draws, examples, datasets, modalities. Sizes of tasks are rows of the data where all of them
    are tokenized under the root, else what the mixture or the catalog states.

    Example: omnimill mixture show mixtures/demo.yaml photo-caption -n 5 --html runs/demo/page.html --root runs/demo
    """
    if tasks or count or html:
        mixture_show.show_examples(file, root, tasks or [], count, html, training, epoch, json)
    else:
        _list(file, root, json)


def _list(file: Path, root: str, json: bool) -> None:
    from dataclasses import asdict

    from omnimill.mixtures.loading import read_mixture
    from omnimill.mixtures.overview import group_figures, kind_shares

    source = read_mixture(file)
    mixture = source.mixture
    rows = _rows(mixture, root)
    sizes: Sequence[int | None] = rows or [task.size for task in mixture.tasks]
    tasks: list[dict[str, Any]] = [
        {
            "name": task.name,
            "group": task.group,
            "rate": rate,
            "size": size,
            "inputs": task.input_modalities,
            "targets": task.target_modalities,
            "objective": task.objective,
        }
        for task, rate, size in zip(mixture.tasks, mixture.rates, sizes, strict=True)
    ]
    groups = group_figures(source)
    kinds = kind_shares(mixture.tasks, mixture.rates)
    held_out = [task.name for task in mixture.held_out]
    if json:
        found = {"tasks": tasks, "groups": [asdict(group) for group in groups], "kinds": kinds, "held_out": held_out}
        print_json({"mixture": mixture.content_digest(), "rate_unit": mixture.rate_unit, **found})
        return
    table: list[list[Any]] = []
    for group in groups:
        depth = group.path.count("/")
        title = "  " * depth + group.title
        table.append(_row(title, group.rate, group.size, group.datasets, group.inputs, group.targets))
        for task in (task for task in tasks if task["group"] == group.path):
            name = "  " * (depth + 1) + task["name"]
            table.append(_row(name, task["rate"], task["size"], "", task["inputs"], task["targets"]))
    many = len(mixture.datasets)
    over = ", ".join(mixture.datasets) if many <= _MOST_LISTED else f"{many} token datasets"
    sizes_are = "rows of the data" if rows else f"as stated, for under {root} some data do not exist yet"
    print_table(f"{file} over {over}; sizes: {sizes_are}", _GROUP_COLUMNS, table)
    print(f"{len(tasks)} tasks; share of {mixture.rate_unit}: " + ", ".join(f"{k} {s:.2%}" for k, s in kinds.items()))
    if held_out:
        print(f"held out: {', '.join(held_out)}")
    _print_phases(mixture)


def diff(
    first: Annotated[Path, typer.Argument(help="A mixture.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    json: Json = False,
) -> None:
    """Say what the second mixture changes: tasks, rates, prompts, shares of modalities and kinds.

    Example: omnimill mixture diff mixtures/pretrain.yaml mixtures/instruct.yaml
    """
    from dataclasses import asdict

    from omnimill.mixtures.diff import diff as compare
    from omnimill.mixtures.loading import load_mixture

    found = compare(load_mixture(first), load_mixture(second))
    if json:
        print_json({"same": found.same, **asdict(found)})
    elif found.same:
        print(f"{first} and {second} sample and render alike")
    else:
        _print_diff(found, first, second)


# More datasets or phases than this are counted, not listed.
_MOST_LISTED = 8


def _rows(mixture: Mixture, root: str) -> list[int] | None:
    """Rows of the tasks; None when some dataset is not there yet."""
    from omnimill.infra import storage
    from omnimill.infra.dataset import Dataset
    from omnimill.mixtures.rows import scan
    from omnimill.mixtures.versions import current_versions, open_versions

    urls = [storage.join(Dataset(root, name).url, "manifest.json") for name in mixture.datasets]
    if not all(map(storage.exists, urls)):
        return None
    return [len(rows) for rows in scan(open_versions(root, current_versions(root, mixture)), mixture.tasks)]


def _row(
    name: str, rate: float, size: int | None, datasets: int | str, inputs: list[str], targets: list[str]
) -> list[Any]:
    return [name, f"{rate:.3%}", "?" if size is None else f"{size:,}", datasets, ", ".join(inputs), ", ".join(targets)]


def _print_phases(mixture: Mixture) -> None:
    steps = [phase.first_step for phase in mixture.phases[1:]]
    if len(steps) > _MOST_LISTED:
        print(f"shares change at {len(steps)} steps, from {steps[0]:,} to {steps[-1]:,}")
        return
    for before, phase in pairwise(mixture.phases):
        rates = zip(mixture.tasks, before.rates, phase.rates, strict=True)
        changed = [f"{task.name} {now:.3%}" for task, was, now in rates if was != now]
        print(f"from step {phase.first_step:,}: {', '.join(changed)}")


def _print_diff(found: MixtureDiff, first: Path, second: Path) -> None:
    rows: list[list[Any]] = [
        ["setting", name, _shown(name, change.was), _shown(name, change.now)] for name, change in found.settings.items()
    ]
    rows += [["task added", name, "", ""] for name in found.added]
    rows += [["task removed", name, "", ""] for name in found.removed]
    for task in found.changed:
        rows += [[f"task {task.name}", name, change.was, change.now] for name, change in task.fields.items()]
        rows += [[f"task {task.name}", "prompt", "", prompt] for prompt in task.prompts_added]
        rows += [[f"task {task.name}", "prompt", prompt, ""] for prompt in task.prompts_removed]
    shares: list[tuple[str, dict[str, Change]]] = [
        ("share", found.rates),
        ("share that reads", found.inputs),
        ("share that writes", found.targets),
        ("share of kind", found.kinds),
    ]
    for what, changes in shares:
        rows += [[what, name, _percent(change.was), _percent(change.now)] for name, change in changes.items()]
    print_table(f"{first} -> {second}", ["what", "which", "was", "is"], rows)


def _shown(setting: str, value: Any) -> str:
    if setting != "schedule":
        return str(value)
    return f"shares change at steps {', '.join(map(str, value))}" if value else "shares do not change"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.3%}"
