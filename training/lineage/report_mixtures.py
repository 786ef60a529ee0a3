"""The report's card of the mixture that a training run drew from: rates, epochs, tokens, and examples as rendered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup
from mlflow.entities import Run

from omnimill.errors import OmnimillError
from omnimill.infra.report import charts
from omnimill.infra.report.charts import Chart
from omnimill.infra.report.mixtures import MixtureCard, MixtureSource, MixtureTask
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.versions import current_versions
from omnimill.training.checkpoints.checkpoint import CheckpointRecord, newest, read_record
from omnimill.training.planning.simulate import Setting, Simulation, simulate
from omnimill.training.showing.page import rendered
from omnimill.training.showing.rows import show_tasks

# Packed sequences that are planned again to see what their examples are like.
_SEQUENCES = 2000
# Tasks of which an example is shown.
_RENDERED = 40


def mixture_card(root: str, run: Run) -> MixtureCard | None:
    """The mixture of a training run, from its newest checkpoint; None: that is not to be found any more.

    Args:
        root: where the run's data lie.
    """
    folder = run.data.tags.get("omnimill.run_folder")
    checkpoint = newest(Path(folder)) if folder else None
    if checkpoint is None:
        return None
    name, digest = run.info.run_name or run.info.run_id, run.data.tags.get("omnimill.mixture", "")
    try:
        record = read_record(checkpoint)
        found = _simulated(root, record)
    except OmnimillError as error:
        return MixtureCard(name, digest, missing=[f"What it drew cannot be said any more: {error}"])
    seen = _tasks(record, found)
    shown, missing = _rendered(root, record)
    return MixtureCard(
        name=name,
        digest=digest,
        facts=list(_facts(record).items()),
        basis=_basis(root, record, found),
        tasks=seen,
        sources=[MixtureSource(*one) for one in _sources(record, found)],
        charts=list(_charts(found, seen)),
        rendered=shown,
        missing=missing,
    )


def _simulated(root: str, record: CheckpointRecord) -> Simulation:
    config = record.config
    setting = Setting(
        mixture=record.mixture,
        root=root,
        sequences=min(record.step, -(-_SEQUENCES // config.streams)) * config.streams,
        streams=config.streams,
        packing=config.packing,
        render=config.render,
        backbone=config.backbone,
    )
    return simulate(setting)


def _basis(root: str, record: CheckpointRecord, found: Simulation) -> str:
    told = (
        f"Examples are those of all {record.step:,} steps up to the newest checkpoint; lengths and draws those of the "
        f"first {found.steps:,} steps, planned again."
    )
    if current_versions(root, record.mixture) != record.versions:
        told += " The data have changed since the run: lengths and numbers of rows are those of today."
    return told


def _facts(record: CheckpointRecord) -> dict[str, str]:
    mixture = record.mixture
    facts = {"datasets": ", ".join(mixture.datasets), "seed": str(mixture.seed), "tasks drawn": str(len(mixture.tasks))}
    if mixture.selections:
        facts["selections"] = ", ".join(mixture.selections)
    if mixture.held_out:
        facts["held out"] = ", ".join(task.name for task in mixture.held_out)
    if mixture.schedule:
        facts["rates change at steps"] = _listed(mixture)
    return facts


def _listed(mixture: Mixture) -> str:
    steps = [phase.first_step for phase in mixture.schedule]
    more = f" and {len(steps) - 12} more" if len(steps) > 12 else ""
    return ", ".join(f"{step:,}" for step in steps[:12]) + more


def _tasks(record: CheckpointRecord, found: Simulation) -> list[MixtureTask]:
    """Tasks in the mixture's order: examples as the checkpoint counted them, lengths as simulated."""
    examples = record.examples
    whole = max(1, sum(examples.values()))
    tokens = {one.name: examples.get(one.name, 0) * one.tokens for one in found.tasks}
    return [
        MixtureTask(
            name=one.name,
            group=one.group,
            reads=", ".join(task.input_modalities).replace("_", " "),
            writes=", ".join(task.target_modalities),
            asked=one.planned,
            drawn=one.realised,
            packed=examples.get(one.name, 0) / whole,
            rows=one.rows,
            epochs=examples.get(one.name, 0) / max(1, one.rows),
            most=one.max_epochs,
            tokens=one.tokens,
            token_share=tokens[one.name] / max(1.0, sum(tokens.values())),
        )
        for task, one in zip(record.mixture.tasks, found.tasks, strict=True)
    ]


def _sources(record: CheckpointRecord, found: Simulation) -> list[tuple[str, int, int, float]]:
    """(name, rows, examples, epochs): a task's examples shared out to its sources as in the simulated steps."""
    sums: dict[str, float] = {}
    rows: dict[str, int] = {}
    for task in found.tasks:
        simulated = sum(source.examples for source in task.sources)
        for source in task.sources:
            share = source.examples / simulated if simulated else source.rows / task.rows
            sums[source.name] = sums.get(source.name, 0.0) + share * record.examples.get(task.name, 0)
            rows[source.name] = max(rows.get(source.name, 0), source.rows)
    return [(name, rows[name], round(count), count / max(1, rows[name])) for name, count in sums.items()]


def _charts(found: Simulation, seen: list[MixtureTask]) -> list[Chart]:
    drawn = [
        charts.stacked_bars(
            "Tokens by modality",
            {"reads": _named(found.input_tokens), "writes": _named(found.target_tokens)},
            f"tokens in the first {found.steps:,} steps",
        )
    ]
    groups: dict[str, tuple[float, float]] = {}
    for one in seen:
        group = one.group.split("/")[0]
        examples, tokens = groups.get(group, (0.0, 0.0))
        groups[group] = (examples + one.packed, tokens + one.token_share)
    drawn.append(charts.paired_bars("What groups of tasks have of all", groups, ("examples", "tokens"), "share"))
    packed = {str(number): float(count) for number, count in sorted(found.packed.items())}
    drawn.append(charts.bars("Examples packed into a sequence", packed, "sequences"))
    return drawn


def _named(tokens: Mapping[str, int]) -> dict[str, float]:
    return {name.replace("_", " "): float(count) for name, count in tokens.items() if count}


def _rendered(root: str, record: CheckpointRecord) -> tuple[Markup, list[str]]:
    """One example of each of the tasks that are drawn most, and what is missing."""
    rated = sorted(zip(record.mixture.rates, record.mixture.tasks, strict=True), key=lambda pair: -pair[0])
    names = {task.name for _, task in rated[:_RENDERED]}
    tasks = [task.name for task in record.mixture.tasks if task.name in names]
    missing = (
        [f"Examples are shown of the {_RENDERED} tasks with the largest rates."] if len(rated) > len(tasks) else []
    )
    try:
        found = show_tasks(record.mixture, root, tasks, 1, training=record.config)
    except OmnimillError as error:
        return Markup(""), [*missing, f"Examples cannot be shown: {error}"]
    return rendered(found.examples), [*missing, *found.missing]
