"""What a running command tells about its units and steps: metrics for Prometheus, and structured logs.

Metrics go through Ray, whose agent on each node serves them to Prometheus under the names of `METRICS` with ``ray_``
before them, and ``_total`` after those of counters. Labels are the run, the command and a source or kind, never a unit,
so that their number does not grow with the data. The driver tells all of them: it hears of every unit and step.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from omnimill import logs
from omnimill.infra.done import Done

_ALWAYS = ("run", "command")


@dataclass(frozen=True)
class Spec:
    """A metric. labels: besides run and command."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> tuple[str, ...]:
        """The names under which Prometheus finds it."""
        name = f"ray_{self.name}"
        if self.kind == "counter":
            return (f"{name}_total",)
        return (f"{name}_bucket", f"{name}_sum", f"{name}_count") if self.kind == "histogram" else (name,)


UNITS = Spec("omnimill_units", "counter", "Units that came back, by outcome", ("source", "outcome"))
UNITS_LEFT = Spec("omnimill_units_left", "gauge", "Units that have not come back yet", ("source",))
UNIT_SECONDS = Spec("omnimill_unit_seconds", "histogram", "What a unit took on its worker", ("source",))
RECORDS = Spec("omnimill_records", "counter", "Records, by verdict", ("source", "verdict"))
ROWS = Spec("omnimill_rows", "counter", "Rows written", ("source",))
BYTES = Spec("omnimill_bytes", "counter", "Bytes read from sources and written to shards", ("source", "direction"))
STEPS = Spec("omnimill_steps", "counter", "Updates of the weights; skipped ones changed nothing", ("outcome",))
TOKENS = Spec("omnimill_tokens", "counter", "Tokens trained on", ("side",))
LOSS = Spec("omnimill_loss", "gauge", "Loss of the last step, over all and by target modality", ("modality",))
TOKENS_PER_SECOND = Spec("omnimill_tokens_per_second", "gauge", "Tokens a second of the last step")
DATA_WAIT = Spec("omnimill_data_wait_share", "gauge", "Share of the last step that waited for data")
PADDING = Spec("omnimill_padding_share", "gauge", "Share of the last step's slots that hold nothing", ("side",))
GRAD_NORM = Spec("omnimill_grad_norm", "gauge", "Norm of the last step's gradient")
METRICS = (
    UNITS,
    UNITS_LEFT,
    UNIT_SECONDS,
    RECORDS,
    ROWS,
    BYTES,
    STEPS,
    TOKENS,
    LOSS,
    TOKENS_PER_SECOND,
    DATA_WAIT,
    PADDING,
    GRAD_NORM,
)
# Seconds of a unit: from a picture or two to a film.
_BOUNDARIES = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0]


@contextmanager
def logged_run(run: str, command: str) -> Iterator[None]:
    """Log that a run starts and how it ends; all that is logged in the ``with`` block names it."""
    with logs.context(run=run, command=command):
        logs.event("run_started")
        try:
            yield
        except BaseException as error:
            logs.event("run_failed", error=f"{type(error).__name__}: {error}")
            raise
        logs.event("run_finished")


class Observer:
    """Tells about the units and steps of a run.

    Args:
        run: of MLflow.
        command: ingest, tokenize, train, …
    """

    def __init__(self, run: str, command: str) -> None:
        self._run, self._command = run, command
        self._made: dict[str, Any] = {}

    def unit(self, done: Done, left: int) -> None:
        """A unit came back, as whatever; so many are still to come."""
        unit, commit = done.unit, done.commit
        outcome = "committed" if commit is not None else "crashed" if done.crashed else "failed"
        source = {"source": unit.source}
        facts: dict[str, Any] = {}
        self._count(UNITS, 1, **source, outcome=outcome)
        self._set(UNITS_LEFT, left, **source)
        if commit is not None:
            counts = commit.counts
            verdicts = {
                "kept": counts.kept,
                "dropped": sum(counts.records_dropped.values()),
                "quarantined": sum(counts.quarantined.values()),
            }
            for verdict, count in verdicts.items():
                self._count(RECORDS, count, **source, verdict=verdict)
            self._count(ROWS, counts.examples_written, **source)
            self._count(BYTES, sum(ref.bytes for ref in commit.inputs), **source, direction="read")
            self._count(BYTES, sum(shard.bytes for shard in commit.shards), **source, direction="written")
            facts = {**verdicts, "rows": counts.examples_written}
        if (seconds := done.observed.get("seconds")) is not None:
            self._count(UNIT_SECONDS, seconds, **source)
        seen = {name: done.observed[name] for name in ("seconds", "host", "process") if name in done.observed}
        error = {} if done.error is None else {"error": done.error}
        about = {"run": self._run, "stage": self._command, **source, "unit": unit.id}
        logs.event(f"unit_{outcome}", **about, **facts, **seen, **error)

    def step(self, line: Mapping[str, Any]) -> None:
        """An update was made.

        Args:
            line: of the run's history.
        """
        timing = line["timing"]
        self._count(STEPS, 1, outcome="skipped" if line["skipped"] or line.get("left_out") else "done")
        for side, tokens in line["tokens"].items():
            self._count(TOKENS, tokens, side=side)
            self._set(PADDING, line["padding_share"][side], side=side)
        for modality, loss in {"all": line["loss"], **line["loss_by_modality"]}.items():
            self._set(LOSS, loss, modality=modality)
        self._set(GRAD_NORM, line["grad_norm"])
        self._set(TOKENS_PER_SECOND, timing["tokens_per_second"])
        self._set(DATA_WAIT, timing["data_wait_share"])
        told = {name: line[name] for name in ("step", "loss", "skipped")}
        waited = {name: timing[name] for name in ("seconds", "tokens_per_second", "data_wait_share")}
        logs.event("step", run=self._run, stage=self._command, **told, **waited)

    def _count(self, spec: Spec, value: float, **labels: str) -> None:
        metric = self._metric(spec)
        if metric is None or (value <= 0 and spec.kind == "counter"):
            return
        tags = {**self._tags, **labels}
        if spec.kind == "histogram":
            metric.observe(value, tags)
        else:
            metric.inc(value, tags)

    def _set(self, spec: Spec, value: float | None, **labels: str) -> None:
        metric = self._metric(spec)
        if metric is not None and value is not None:
            metric.set(value, {**self._tags, **labels})

    @property
    def _tags(self) -> dict[str, str]:
        return {"run": self._run, "command": self._command}

    def _metric(self, spec: Spec) -> Any:
        """Ray's metric; None where there is no Ray to tell."""
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return None
        if spec.name not in self._made:
            from ray.util import metrics  # noqa: PLC0415

            kinds = {"counter": metrics.Counter, "gauge": metrics.Gauge, "histogram": metrics.Histogram}
            more = {"boundaries": _BOUNDARIES} if spec.kind == "histogram" else {}
            keys = (*_ALWAYS, *spec.labels)
            self._made[spec.name] = kinds[spec.kind](spec.name, spec.description, tag_keys=keys, **more)
        return self._made[spec.name]
