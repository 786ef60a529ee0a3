"""What the page says about a dataset version: plain values for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from omnimill.infra.dataset import Commit, Counts, Dataset, Manifest, total
from omnimill.infra.erasures import REASON, rejected
from omnimill.infra.report import charts
from omnimill.infra.report.charts import Chart
from omnimill.infra.report.duplicates import SelectionCard, selection_cards
from omnimill.infra.report.findings import Finder, Findings
from omnimill.infra.report.measures import Measures, TokenMeasures
from omnimill.infra.report.sampled import Sampled, sampled, some_commits
from omnimill.infra.report.samples import Chosen, Sample

_EXAMPLES = 3


@dataclass(frozen=True)
class SourceAccount:
    """What a source (or all, named ``all``) gave: its account, units, inputs read and stored bytes."""

    name: str
    counts: Counts
    units: int
    read: int
    stored: int


@dataclass(frozen=True)
class Funnel:
    """One step of what became of the records or examples.

    step: what the number says. reason: why, of a loss. share: of all records, or of all examples made of them.
    """

    step: str
    reason: str
    count: int
    share: float
    of: str


@dataclass(frozen=True)
class Rejected:
    """How many records or examples of a source were turned down for a reason.

    operators, keys, message: of some of them; nobody is told the keys of what was erased.
    """

    source: str
    verdict: str
    reason: str
    count: int
    operators: list[str]
    keys: list[str]
    message: str


@dataclass(frozen=True)
class DatasetCard:
    """One dataset version. looked_at: on how many of its rows charts, findings and samples rest.

    erased: rows that requests take out of it for good.
    """

    name: str
    kind: str
    digest: str
    parents: Mapping[str, str]
    rows: int
    stored: int
    sources: list[SourceAccount]
    funnel: list[Funnel]
    rejected: list[Rejected]
    looked_at: str
    erased: int
    charts: list[Chart] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    selections: list[SelectionCard] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)


def dataset_card(dataset: Dataset, digest: str, manifest: Manifest) -> DatasetCard:
    """Everything the page says about one version."""
    seen = sampled(dataset, digest, manifest)
    sources = _accounts(manifest)
    card = DatasetCard(
        name=dataset.name,
        kind=manifest.kind,
        digest=digest,
        parents=manifest.parents,
        rows=manifest.rows,
        stored=sources[-1].stored,
        sources=sources,
        funnel=list(_funnel(sources[-1].counts)),
        rejected=_rejected(dataset, manifest),
        looked_at=seen.describe(),
        erased=sum(len(seen.erased.rows(ref.digest)) for commit in manifest.commits for ref in commit.shards),
    )
    if manifest.kind != "examples":
        return replace(card, charts=_token_charts(seen))
    finder, measures, chosen = Finder(), Measures(), Chosen(len(sources) - 1)
    for piece in seen.pieces():
        finder.look(piece)
        measures.look(piece)
        chosen.look(piece)
    drawn = measures.charts()
    if any((shares := measures.modalities()).values()):
        drawn = [charts.shares("Share of examples that have", shares), *drawn]
    return replace(
        card,
        charts=drawn,
        findings=finder.findings(),
        selections=selection_cards(dataset, digest, manifest, seen.erased),
        samples=chosen.samples(dataset),
    )


def _token_charts(seen: Sampled) -> list[Chart]:
    measures = TokenMeasures()
    for piece in seen.pieces():
        measures.look(piece)
    return measures.charts()


def _accounts(manifest: Manifest) -> list[SourceAccount]:
    """Of every source, and last of all together."""
    by_source: dict[str, list[Commit]] = {}
    for commit in manifest.commits:
        by_source.setdefault(commit.source, []).append(commit)
    return [*(_account(*item) for item in sorted(by_source.items())), _account("all", manifest.commits)]


def _account(name: str, commits: Iterable[Commit]) -> SourceAccount:
    found = list(commits)
    return SourceAccount(
        name=name,
        counts=total(commit.counts for commit in found),
        units=len(found),
        # A file of which several units read a part counts once.
        read=sum({ref.digest: ref.bytes for commit in found for ref in commit.inputs}.values()),
        stored=sum(ref.bytes for commit in found for ref in commit.shards),
    )


def _funnel(counts: Counts) -> Iterable[Funnel]:
    """From the records that came in to the examples that were written, with what was lost on the way and why."""

    def records(step: str, reason: str, count: int) -> Funnel:
        return Funnel(step, reason, count, count / max(1, counts.records_in), "records")

    made = counts.examples_written + sum(counts.examples_dropped.values())

    def examples(step: str, reason: str, count: int) -> Funnel:
        return Funnel(step, reason, count, count / max(1, made), "examples")

    yield records("records read", "", counts.records_in)
    yield from (records("quarantined", *loss) for loss in _largest_first(counts.quarantined))
    yield from (records("dropped", *loss) for loss in _largest_first(counts.records_dropped))
    yield records("records kept", "", counts.kept)
    yield examples("examples made of them", "", made)
    yield from (examples("dropped", *loss) for loss in _largest_first(counts.examples_dropped))
    yield examples("examples written", "", counts.examples_written)


def _largest_first(reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(reasons.items(), key=lambda item: (-item[1], item[0]))


def _rejected(dataset: Dataset, manifest: Manifest) -> list[Rejected]:
    """Every (source, verdict, reason) with its whole count; keys and messages from some units."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for commit in manifest.commits:
        for verdict, reasons in (
            ("record quarantined", commit.counts.quarantined),
            ("record dropped", commit.counts.records_dropped),
            ("example dropped", commit.counts.examples_dropped),
        ):
            counts.update({(commit.source, verdict, reason): count for reason, count in reasons.items()})
    seen: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for commit in some_commits(commit for commit in manifest.commits if commit.quarantine or commit.drops):
        for verdict, table in rejected(dataset, commit):
            told = ["key", "operator", "reason", "message" if verdict == "quarantined" else "level"]
            for row in table.select(told).to_pylist():
                which = (commit.source, f"{row.get('level', 'record')} {verdict}", row["reason"])
                seen.setdefault(which, []).append(row)
    found = [
        Rejected(
            *which,
            count,
            sorted({row["operator"] for row in seen.get(which, ())}),
            [] if which[2] == REASON else sorted(row["key"] for row in seen.get(which, ()))[:_EXAMPLES],
            next((row["message"] for row in seen.get(which, ()) if row.get("message")), ""),
        )
        for which, count in counts.items()
    ]
    return sorted(found, key=lambda one: (one.source, one.verdict, -one.count, one.reason))
