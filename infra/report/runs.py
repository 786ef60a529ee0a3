"""What the page says about a training run, from MLflow alone: plain values for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from omnimill.infra import lineage
from omnimill.infra.lineage import COMMAND_TAG, ERROR_TAG
from omnimill.infra.report.charts import Chart, number
from omnimill.infra.report.run_charts import DRAWN, HELD_OUT, PARTS, TASK, Histories, Logged, drawn_tasks

# Histories that are asked for at once; a tracking server takes its time for each.
_THREADS = 8


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
    wanted = [key for key in sorted(metrics) if key.split("/")[0] in DRAWN]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda key: client.get_metric_history(run.info.run_id, key), wanted)
        histories = {
            key: sorted({metric.step: metric.value for metric in points}.items())
            for key, points in zip(wanted, found, strict=True)
        }
    logged = Logged(histories, metrics, _groups(client, run))
    return RunCard(
        name=run.info.run_name or run.info.run_id,
        id=run.info.run_id,
        status=run.info.status.lower(),
        facts=_facts(run),
        figures=_figures(metrics, histories),
        charts={title: drawn for title, draw in PARTS.items() if (drawn := draw(logged))},
        tasks=_tasks(logged),
        scores=_scores(run, histories, runs),
        checkpoints=[ref for ref in lineage.references(run, "output") if "step-" in ref.name],
    )


def _tasks(logged: Logged) -> list[TaskRow]:
    metrics, groups = logged.metrics, logged.groups
    asked = {
        key.removeprefix("planned_rate/"): value for key, value in metrics.items() if key.startswith("planned_rate/")
    }
    losses = logged.below(TASK)
    rows = []
    for name in sorted({*asked, *drawn_tasks(metrics), *losses}, key=lambda name: (groups.get(name, ""), name)):
        values = [value for _, value in losses.get(name, ())]
        ends = (values[0], values[-1], min(values)) if values else (None, None, None)
        rows.append(TaskRow(name, groups.get(name, ""), asked.get(name), metrics.get(f"realised_rate/{name}"), *ends))
    return rows


def _scores(run: Run, histories: Histories, runs: Sequence[Run]) -> list[Scores]:
    """The last evaluation of the run itself, then those of its checkpoints by ``omnimill evaluate``."""
    found = []
    within = {
        key.removeprefix("evaluation/"): points[-1]
        for key, points in histories.items()
        if key.startswith("evaluation/") and not key.startswith(HELD_OUT) and key.count("/") > 1 and points
    }
    if within:
        step = max(step for step, _ in within.values())
        rows = [(*_task_and_metric(name), number(value)) for name, (_, value) in within.items()]
        found.append(Scores(f"In the run, after step {number(step)}", rows))
    mine = {ref.name: ref.digest for ref in lineage.references(run, "output")}
    for other in runs:
        if other.data.tags.get(COMMAND_TAG) != "evaluate":
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
    try:
        mixture = lineage.artifact_json(client, run, "mixture.json")
    except ValueError:
        return {}
    return {task["name"]: str(task.get("group", "")).split("/")[0] for task in mixture.get("tasks", ())}


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
        for tag, label in ((MLFLOW_PARENT_RUN_ID, "part of run"), (ERROR_TAG, "error"))
        if tag in tags
    ]
    facts += [(f"read {ref.name}", ref.digest[:16]) for ref in lineage.references(run, "input")]
    return facts + [(label, said(metrics[key])) for key, (label, said) in shown.items() if key in metrics]


def _figures(metrics: Mapping[str, float], histories: Histories) -> dict[str, str]:
    steps = histories.get("learning_rate") or histories.get("loss") or ()
    return {
        "steps": number(steps[-1][0] + 1) if steps else "",
        "loss": number(metrics["loss"]) if "loss" in metrics else "",
        "tokens a second": number(round(metrics["tokens_per_second"])) if "tokens_per_second" in metrics else "",
    }
