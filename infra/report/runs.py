"""What the page says about a training run, from MLflow alone: plain values for the template."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException

from omnimill.infra import lineage
from omnimill.infra.report import charts
from omnimill.infra.report.charts import Chart, Curve, number

# Points of a curve that are drawn.
_POINTS = 240
# Curves that can be told apart in one chart.
_LINES = 8
# Charts of the losses of tasks, one for each group.
_GROUPS = 24
# Histories that are asked for at once; a tracking server takes its time for each.
_THREADS = 8

_MINE = "omnimill.command"


@dataclass(frozen=True)
class TaskRow:
    """A task of a run. asked, realised: shares of its draws. first, last, least: losses; None: none was logged."""

    name: str
    group: str
    asked: float | None
    realised: float | None
    first: float | None
    last: float | None
    least: float | None


@dataclass(frozen=True)
class Scores:
    """What was measured on what the run does not train on. title: when; rows: (task, metric, value)."""

    title: str
    rows: list[tuple[str, str, str]]


@dataclass(frozen=True)
class RunCard:
    """One training run: facts, charts by what they are about, tasks, held-out scores and checkpoints.

    figures: the numbers of the index: steps, loss, tokens a second, as text.
    """

    name: str
    id: str
    status: str
    facts: list[tuple[str, str]]
    figures: dict[str, str]
    charts: dict[str, list[Chart]] = field(default_factory=dict)
    tasks: list[TaskRow] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    checkpoints: list[lineage.Reference] = field(default_factory=list)


def run_card(client: MlflowClient, run: Run, runs: Sequence[Run]) -> RunCard:
    """Everything the page says about one training run.

    Args:
        runs: all of the root; those among them that evaluated its checkpoints have a part.
    """
    metrics = run.data.metrics
    wanted = [key for key in sorted(metrics) if key.split("/")[0] in _DRAWN]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda key: client.get_metric_history(run.info.run_id, key), wanted)
        histories = {
            key: sorted({metric.step: metric.value for metric in points}.items())
            for key, points in zip(wanted, found, strict=True)
        }
    logged = _Logged(histories, metrics, _groups(client, run))
    return RunCard(
        name=run.info.run_name or run.info.run_id,
        id=run.info.run_id,
        status=run.info.status.lower(),
        facts=_facts(run),
        figures=_figures(metrics, histories),
        charts={title: drawn for title, draw in _PARTS.items() if (drawn := draw(logged))},
        tasks=_tasks(logged),
        scores=_scores(run, histories, runs),
        checkpoints=[ref for ref in lineage.references(run, "output") if "step-" in ref.name],
    )


# First parts of the names of metrics whose course is drawn.
_DRAWN = {
    "loss",
    "grad_norm",
    "learning_rate",
    "padding_share",
    "tokens_per_second",
    "data_wait_share",
    "flops_per_second",
    "mfu",
    "attention_logit",
    "evaluation",
    "realised_rate",
}
_TASK, _HELD_OUT, _HELD_OUT_TASK = "loss/task/", "evaluation/loss/", "evaluation/loss/task/"

_Histories = Mapping[str, Curve]


@dataclass(frozen=True)
class _Logged:
    """histories: of metrics that are drawn. metrics: last values. groups: outermost ones of the tasks."""

    histories: _Histories
    metrics: Mapping[str, float]
    groups: Mapping[str, str]

    def rate(self, task: str) -> float:
        return self.metrics.get(f"planned_rate/{task}", 0.0)

    def group(self, task: str) -> str:
        return self.groups.get(task, "tasks")

    def below(self, prefix: str, but: str = "\0") -> dict[str, Curve]:
        """Histories whose names begin so, by the rest of the name."""
        return {
            key.removeprefix(prefix): points
            for key, points in self.histories.items()
            if key.startswith(prefix) and not key.startswith(but) and points
        }


_Draw = Callable[[_Logged], list[Chart]]


def _losses(logged: _Logged) -> list[Chart]:
    histories = logged.histories
    by_modality = {"all": histories["loss"]} if "loss" in histories else {}
    by_modality |= logged.below("loss/", but=_TASK)
    drawn = [_curves("Loss by modality", by_modality, "nats a token")] if by_modality else []
    tasks = logged.below(_TASK)
    by_group: dict[str, dict[str, Curve]] = {}
    for name, points in tasks.items():
        by_group.setdefault(logged.group(name), {})[name] = points
    drawn_most = sorted(by_group, key=lambda group: -sum(logged.rate(name) for name in by_group[group]))[:_GROUPS]
    for group in (group for group in by_group if group in drawn_most):
        lines = by_group[group]
        most = sorted(lines, key=lambda name: (-logged.rate(name), name))[:_LINES]
        shown = {name: lines[name] for name in lines if name in most}
        less = f"The {len(shown)} of {len(lines)} tasks with the largest rates." if len(shown) < len(lines) else ""
        drawn.append(_curves(f"Loss by task: {group}", shown, "nats a token", less))
    return drawn


def _rates(logged: _Logged) -> list[Chart]:
    metrics = logged.metrics
    rates = {
        name: (metrics.get(f"planned_rate/{name}", 0.0), metrics[f"realised_rate/{name}"]) for name in _named(metrics)
    }
    if not rates:
        return []
    largest = dict(sorted(rates.items(), key=lambda item: (-item[1][0], item[0]))[:30])
    title = "Share of drawn examples"
    if len(largest) < len(rates):
        title += f", the {len(largest)} largest of {len(rates)}"
    drawn = [charts.paired_bars(title, largest, ("asked", "realised"), "share")]
    off: dict[str, dict[float, float]] = {}
    for name, points in logged.below("realised_rate/").items():
        for step, share in points:
            off.setdefault(logged.group(name), {}).setdefault(step, 0.0)
            here = off[logged.group(name)]
            here[step] = max(here[step], 100 * abs(share - rates[name][0]))
    if off:
        lines = {group: sorted(points.items()) for group, points in list(off.items())[:_LINES]}
        note = "Of the task that is furthest off in each group; what waits to be packed counts as not drawn yet."
        drawn.append(_curves("Distance of realised rates from those asked", lines, "percentage points", note))
    return drawn


def _speed(logged: _Logged) -> list[Chart]:
    histories = logged.histories
    drawn = []
    if "tokens_per_second" in histories:
        drawn.append(_curves("Throughput", {"tokens": histories["tokens_per_second"]}, "tokens a second"))
    if "data_wait_share" in histories:
        drawn.append(_curves("Time spent waiting for data", {"share": histories["data_wait_share"]}, "share of a step"))
    if padding := logged.below("padding_share/"):
        drawn.append(_curves("Padding", padding, "share of slots"))
    if use := {name: histories[name] for name in ("mfu", "mfu_transformer") if name in histories}:
        drawn.append(_curves("Use of the devices", use, "share of their peak"))
    elif "flops_per_second" in histories:
        drawn.append(_curves("Operations", {"all": histories["flops_per_second"]}, "operations a second and device"))
    return drawn


def _monitors(logged: _Logged) -> list[Chart]:
    histories = logged.histories
    drawn = []
    if logits := logged.below("attention_logit/"):
        lines = dict(list(logits.items())[:_LINES])
        drawn.append(_curves("Largest attention logit", lines, "logit"))
    if "grad_norm" in histories:
        drawn.append(_curves("Norm of the gradient, before clipping", {"norm": histories["grad_norm"]}, "norm"))
    if "learning_rate" in histories:
        drawn.append(_curves("Learning rate", {"rate": histories["learning_rate"]}, "rate"))
    return drawn


def _held_out(logged: _Logged) -> list[Chart]:
    histories = logged.histories
    by_modality = {"all": histories["evaluation/loss"]} if "evaluation/loss" in histories else {}
    by_modality |= logged.below(_HELD_OUT, but=_HELD_OUT_TASK)
    drawn = [_curves("Held-out loss by modality", by_modality, "nats a token")] if by_modality else []
    if tasks := logged.below(_HELD_OUT_TASK):
        last = sorted(tasks, key=lambda name: (-tasks[name][-1][1], name))[:_LINES]
        less = f"The {_LINES} of {len(tasks)} tasks with the largest losses." if len(tasks) > _LINES else ""
        drawn.append(_curves("Held-out loss by task", {name: tasks[name] for name in last}, "nats a token", less))
    return drawn


_PARTS: dict[str, _Draw] = {
    "Losses": _losses,
    "Rates": _rates,
    "Throughput, data and padding": _speed,
    "Monitors": _monitors,
    "Held-out losses": _held_out,
}


def _curves(title: str, lines: Mapping[str, Curve], unit: str, note: str = "") -> Chart:
    """A chart over steps; of long histories means of consecutive points."""
    longest = max(map(len, lines.values()))
    if longest > _POINTS:
        each = -(-longest // _POINTS)
        note = f"{note} Every point is the mean of {each} logged steps.".strip()
        lines = {name: _thinned(points, each) for name, points in lines.items()}
    return charts.curves(title, lines, "step", unit, note)


def _thinned(points: Curve, each: int) -> Curve:
    parts = [points[start : start + each] for start in range(0, len(points), each)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _named(metrics: Mapping[str, float]) -> list[str]:
    """Tasks that something was drawn of."""
    return [key.removeprefix("realised_rate/") for key in sorted(metrics) if key.startswith("realised_rate/")]


def _tasks(logged: _Logged) -> list[TaskRow]:
    metrics, groups = logged.metrics, logged.groups
    asked = {
        key.removeprefix("planned_rate/"): value for key, value in metrics.items() if key.startswith("planned_rate/")
    }
    losses = logged.below(_TASK)
    rows = []
    for name in sorted({*asked, *_named(metrics), *losses}, key=lambda name: (groups.get(name, ""), name)):
        values = [value for _, value in losses.get(name, ())]
        ends = (values[0], values[-1], min(values)) if values else (None, None, None)
        rows.append(TaskRow(name, groups.get(name, ""), asked.get(name), metrics.get(f"realised_rate/{name}"), *ends))
    return rows


def _scores(run: Run, histories: _Histories, runs: Sequence[Run]) -> list[Scores]:
    """The last evaluation of the run itself, then those of its checkpoints by ``omnimill evaluate``."""
    found = []
    within = {
        key.removeprefix("evaluation/"): points[-1]
        for key, points in histories.items()
        if key.startswith("evaluation/") and not key.startswith(_HELD_OUT) and key.count("/") > 1 and points
    }
    if within:
        step = max(step for step, _ in within.values())
        rows = [(*_task_and_metric(name), number(value)) for name, (_, value) in within.items()]
        found.append(Scores(f"In the run, after step {number(step)}", rows))
    mine = {ref.name: ref.digest for ref in lineage.references(run, "output")}
    for other in runs:
        if other.data.tags.get(_MINE) != "evaluate":
            continue
        of = next((ref for ref in lineage.references(other, "input") if mine.get(ref.name) == ref.digest), None)
        scores = {
            key.removeprefix("evaluate/"): value
            for key, value in other.data.metrics.items()
            if key.startswith("evaluate/")
        }
        if of and scores:
            rows = [(*_task_and_metric(name), number(value)) for name, value in sorted(scores.items())]
            found.append(Scores(f"Evaluation of {of.name}", rows))
    return found


def _task_and_metric(name: str) -> tuple[str, str]:
    task, _, metric = name.rpartition("/")
    return task, metric.replace("_", " ")


def _groups(client: MlflowClient, run: Run) -> dict[str, str]:
    """Outermost groups of the tasks, as far as the run's mixture is stored with it."""
    mixture = artifact(client, run, "mixture.json")
    return {task["name"]: str(task.get("group", "")).split("/")[0] for task in mixture.get("tasks", ())}


def artifact(client: MlflowClient, run: Run, name: str) -> dict[str, Any]:
    """A JSON document that a run stored; empty when it is not there."""
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)  # type: ignore[no-untyped-call]
    with TemporaryDirectory() as folder:
        try:
            path = client.download_artifacts(run.info.run_id, name, folder)
            found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        except (MlflowException, OSError, ValueError):
            return {}
    return found


def _facts(run: Run) -> list[tuple[str, str]]:
    metrics, tags = run.data.metrics, run.data.tags
    shown = {
        "loss": ("last loss", number),
        "tokens_per_second": ("tokens a second", "{:,.0f}".format),
        "padding_share/encoder": ("encoder padding", "{:.2%}".format),
        "padding_share/decoder": ("decoder padding", "{:.2%}".format),
        "data_wait_share": ("time waiting for data", "{:.2%}".format),
    }
    facts = [("status", run.info.status.lower()), ("MLflow run", run.info.run_id)]
    facts += [
        (label, tags[tag])
        for tag, label in (("mlflow.parentRunId", "part of run"), ("omnimill.error", "error"))
        if tag in tags
    ]
    facts += [(f"read {ref.name}", ref.digest[:16]) for ref in lineage.references(run, "input")]
    return facts + [(label, said(metrics[key])) for key, (label, said) in shown.items() if key in metrics]


def _figures(metrics: Mapping[str, float], histories: _Histories) -> dict[str, str]:
    steps = histories.get("learning_rate") or histories.get("loss") or ()
    return {
        "steps": number(steps[-1][0] + 1) if steps else "",
        "loss": number(metrics["loss"]) if "loss" in metrics else "",
        "tokens a second": number(round(metrics["tokens_per_second"])) if "tokens_per_second" in metrics else "",
    }
