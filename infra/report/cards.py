"""What the page says about each dataset version and each training run: plain values for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
from markupsafe import Markup
from mlflow import MlflowClient
from mlflow.entities import Run

from omnimill.infra import lineage
from omnimill.infra.dataset import Counts, Dataset, Manifest, total
from omnimill.infra.report import charts
from omnimill.infra.report.findings import Findings, findings
from omnimill.infra.report.samples import Sample, samples
from omnimill.tokens import LENGTH_COLUMNS

SAMPLES_PER_SOURCE = 4


@dataclass(frozen=True)
class Rejected:
    """How many records or examples of a source were turned down for a reason, with the first few."""

    source: str
    verdict: str
    operator: str
    reason: str
    count: int
    keys: list[str]


@dataclass(frozen=True)
class DatasetCard:
    """One dataset version. by_source: account, units and bytes of every source, and of all under ``""``."""

    name: str
    kind: str
    digest: str
    parents: Mapping[str, str]
    by_source: dict[str, tuple[Counts, int, int]]
    rejected: list[Rejected]
    findings: Findings = field(default_factory=Findings)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    lengths: Markup | None = None


@dataclass(frozen=True)
class RunCard:
    """One training run: its facts, its charts and its checkpoints."""

    name: str
    id: str
    status: str
    facts: list[tuple[str, str]]
    charts: list[Markup]
    checkpoints: list[lineage.Reference]


def dataset_card(dataset: Dataset, digest: str, manifest: Manifest) -> DatasetCard:
    """Everything the page says about one version."""
    sources: dict[str, list[Any]] = {}
    for commit in manifest.commits:
        sources.setdefault(commit.source, []).append(commit)
    sources = {**dict(sorted(sources.items())), "": list(manifest.commits)}
    by_source = {
        name: (
            total(commit.counts for commit in commits),
            len(commits),
            sum(ref.bytes for commit in commits for ref in commit.shards),
        )
        for name, commits in sources.items()
    }
    examples = manifest.kind == "examples"
    return DatasetCard(
        name=dataset.name,
        kind=manifest.kind,
        digest=digest,
        parents=manifest.parents,
        by_source=by_source,
        rejected=_rejected(dataset, manifest),
        findings=findings(dataset, digest, manifest) if examples else Findings(),
        samples=samples(dataset, manifest, SAMPLES_PER_SOURCE) if examples else {},
        lengths=None if examples else _length_chart(dataset, manifest),
    )


def _rejected(dataset: Dataset, manifest: Manifest) -> list[Rejected]:
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for commit in manifest.commits:
        for verdict, table in dataset.rejected(commit):
            for row in table.select(["key", "operator", "reason"]).to_pylist():
                groups.setdefault((commit.source, verdict, row["operator"], row["reason"]), []).append(row["key"])
    rejected = [Rejected(*group, len(keys), sorted(keys)[:3]) for group, keys in groups.items()]
    return sorted(rejected, key=lambda one: (one.source, one.verdict, -one.count))


def _length_chart(dataset: Dataset, manifest: Manifest) -> Markup:
    """Mean length of every stream per example, by source."""
    columns = [name for name in LENGTH_COLUMNS if name.endswith(("lengths", "patches"))]
    sums: dict[str, dict[str, float]] = {}
    rows: dict[str, int] = {}
    for commit in manifest.commits:
        for ref in commit.shards:
            table = dataset.read(ref).select(["source", *columns])
            rows[commit.source] = rows.get(commit.source, 0) + table.num_rows
            part = sums.setdefault(commit.source, dict.fromkeys(columns, 0.0))
            for name in columns:
                part[name] += pc.sum(pc.list_flatten(table.column(name))).as_py() or 0
    means = {
        source: {name.removesuffix("_lengths"): value / rows[source] for name, value in part.items()}
        for source, part in sorted(sums.items())
        if rows[source]
    }
    return charts.stacked_bars("Mean tokens an example has, by stream", means, "tokens and patches")


def run_card(client: MlflowClient, run: Run) -> RunCard:
    """Everything the page says about one training run, from MLflow alone."""
    keys = sorted(run.data.metrics)
    drawn = []
    losses = {key.removeprefix("loss/"): _history(client, run, key) for key in keys if _is_modality_loss(key)}
    if "loss" in keys:
        losses = {"all": _history(client, run, "loss"), **losses}
    if losses:
        drawn.append(charts.curves("Loss per modality", losses, "step", "nats a token"))
    tasks = {key.removeprefix("loss/task/"): _history(client, run, key) for key in keys if key.startswith("loss/task/")}
    if tasks:
        drawn.append(charts.curves("Loss per task", tasks, "step", "nats a token"))
    rates = _rates(run.data.metrics)
    if rates:
        names = ("planned", "realised")
        drawn.append(charts.paired_bars("Share of drawn examples", rates, names, "share"))
    padding = {key.removeprefix("padding_share/"): _history(client, run, key) for key in keys if "padding_share" in key}
    if padding:
        drawn.append(charts.curves("Padding", padding, "step", "share of slots"))
    if "tokens_per_second" in keys:
        speed = {"tokens/s": _history(client, run, "tokens_per_second")}
        drawn.append(charts.curves("Speed", speed, "step", "tokens a second"))
    return RunCard(
        name=run.info.run_name or run.info.run_id,
        id=run.info.run_id,
        status=run.info.status,
        facts=_facts(run),
        charts=drawn,
        checkpoints=[ref for ref in lineage.references(run, "output") if "step-" in ref.name],
    )


def _is_modality_loss(key: str) -> bool:
    return key.startswith("loss/") and not key.startswith("loss/task/")


def _history(client: MlflowClient, run: Run, key: str) -> Sequence[tuple[float, float]]:
    points = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, key)}
    return sorted(points.items())


def _rates(metrics: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    prefix = "realised_rate/"
    return {
        name: (metrics.get(f"planned_rate/{name}", 0.0), value)
        for key, value in sorted(metrics.items())
        if key.startswith(prefix) and (name := key.removeprefix(prefix))
    }


def _facts(run: Run) -> list[tuple[str, str]]:
    metrics = run.data.metrics
    shown = {
        "loss": "final loss",
        "tokens_per_second": "tokens a second",
        "padding_share/encoder": "encoder padding",
        "padding_share/decoder": "decoder padding",
        "data_wait_share": "time waiting for data",
    }
    facts = [("status", run.info.status.lower()), ("MLflow run", run.info.run_id)]
    facts += [(f"read {ref.name}", ref.digest[:16]) for ref in lineage.references(run, "input")]
    return facts + [(label, f"{metrics[key]:.4g}") for key, label in shown.items() if key in metrics]
