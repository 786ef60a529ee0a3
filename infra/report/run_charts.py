"""What the charts of a training run show, by what they are about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omnimill.infra.report import charts
from omnimill.infra.report.charts import Chart, Curve

# Points of a curve that are drawn.
_POINTS = 240
# Curves that can be told apart in one chart.
_LINES = 8
# Charts of the losses of tasks, one for each group.
_GROUPS = 24

# First parts of the names of metrics whose course is drawn.
DRAWN = {
    "loss",
    "grad_norm",
    "learning_rate",
    "padding_share",
    "tokens_per_second",
    "data_wait_share",
    "flops_per_second",
    "mfu",
    "mfu_transformer",
    "attention_logit",
    "evaluation",
    "realised_rate",
}
TASK, HELD_OUT, HELD_OUT_TASK = "loss/task/", "evaluation/loss/", "evaluation/loss/task/"

Histories = Mapping[str, Curve]


@dataclass(frozen=True)
class Logged:
    """histories: of metrics that are drawn. metrics: last values. groups: outermost ones of the tasks."""

    histories: Histories
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


_Draw = Callable[[Logged], list[Chart]]


def _losses(logged: Logged) -> list[Chart]:
    histories = logged.histories
    by_modality = {"all": histories["loss"]} if "loss" in histories else {}
    by_modality |= logged.below("loss/", but=TASK)
    drawn = [_curves("Loss by modality", by_modality, "nats a token")] if by_modality else []
    tasks = logged.below(TASK)
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


def _rates(logged: Logged) -> list[Chart]:
    metrics = logged.metrics
    rates = {
        name: (metrics.get(f"planned_rate/{name}", 0.0), metrics[f"realised_rate/{name}"])
        for name in drawn_tasks(metrics)
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


def _speed(logged: Logged) -> list[Chart]:
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


def _monitors(logged: Logged) -> list[Chart]:
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


def _held_out(logged: Logged) -> list[Chart]:
    histories = logged.histories
    by_modality = {"all": histories["evaluation/loss"]} if "evaluation/loss" in histories else {}
    by_modality |= logged.below(HELD_OUT, but=HELD_OUT_TASK)
    drawn = [_curves("Held-out loss by modality", by_modality, "nats a token")] if by_modality else []
    if tasks := logged.below(HELD_OUT_TASK):
        last = sorted(tasks, key=lambda name: (-tasks[name][-1][1], name))[:_LINES]
        less = f"The {_LINES} of {len(tasks)} tasks with the largest losses." if len(tasks) > _LINES else ""
        drawn.append(_curves("Held-out loss by task", {name: tasks[name] for name in last}, "nats a token", less))
    return drawn


PARTS: dict[str, _Draw] = {
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


def drawn_tasks(metrics: Mapping[str, float]) -> list[str]:
    """Tasks that something was drawn of."""
    return [key.removeprefix("realised_rate/") for key in sorted(metrics) if key.startswith("realised_rate/")]
