"""``omnimill report``: datasets, mixtures and training runs as one self-contained page, or as a folder of pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from mlflow.entities import Run

import omnimill
from omnimill.errors import OmnimillError
from omnimill.infra import lineage, storage
from omnimill.infra.dataset import Dataset
from omnimill.infra.lineage import COMMAND_TAG
from omnimill.infra.report.datasets import DatasetCard, dataset_card
from omnimill.infra.report.generated import generated
from omnimill.infra.report.mixtures import MixtureCard
from omnimill.infra.report.runs import RunCard, run_card
from omnimill.infra.report.template import fragment
from omnimill.infra.trace import PUBLISHING
from omnimill.progress import console, progress

_NOT_IN_NAMES = r"[^\w.-]"

# What a training run drew; None: that is not known any more.
MixtureOf = Callable[[Run], MixtureCard | None]


@dataclass(frozen=True)
class Section:
    """One card of the report. anchor: its id in the page, and its file's name in a folder."""

    kind: str
    title: str
    anchor: str
    html: Markup


def write_report(
    root: str, target: str | Path, names: Sequence[str] = (), mixture_of: MixtureOf | None = None
) -> list[str]:
    """Write the report.

    Args:
        root: where datasets, runs and the tracking store live.
        target: URL or path of the HTML file to write; without the ending ``.html``, a folder of pages.
        names: datasets (their newest version) and training runs (by name) to show; everything when empty.
        mixture_of: makes the cards of mixtures; there are none when it is not given.

    Returns:
        The names that the report shows.

    Raises:
        OmnimillError: nothing was recorded under the root, or a name is not known.
    """
    runs = lineage.runs(root)
    datasets, training = _chosen(runs, root, names)
    cards: list[DatasetCard | MixtureCard | RunCard] = []
    with progress("report", len(datasets) + len(training), "cards") as advance:
        for name, reference in datasets.items():
            dataset = Dataset(*reference.url.rstrip("/").rsplit("/", 1))
            try:
                cards.append(dataset_card(dataset, *dataset.manifest(reference.digest)))
            except (OmnimillError, FileNotFoundError) as error:
                if name in names:
                    raise
                # What is gone does not keep the rest from being shown.
                console.print(f"dataset {name} is not shown: {error}")
            advance(1)
        for run in training.values():
            if mixture_of and (mixture := mixture_of(run)):
                cards.append(mixture)
            cards.append(run_card(lineage.client(root), run, runs))
            advance(1)
    sections = [_section(card) for card in cards]
    if found := generated(runs):
        sections.append(Section("generated", "Generated", "generated", _html("generated.html", samples=found)))
    _write(str(target), root, cards, sections)
    return [card.name for card in cards if not isinstance(card, MixtureCard)]


def _chosen(
    runs: Sequence[Run], root: str, names: Sequence[str]
) -> tuple[dict[str, lineage.Reference], dict[str, Run]]:
    """Newest versions and training runs by name."""
    datasets = {
        reference.name: reference
        for run in runs
        if run.data.tags.get(COMMAND_TAG) in PUBLISHING
        for reference in lineage.references(run, "output")
    }
    training = {run.info.run_name: run for run in runs if run.data.tags.get(COMMAND_TAG) == "train"}
    unknown = [name for name in names if name not in datasets and name not in training]
    if unknown:
        known = ", ".join([*datasets, *training]) or "nothing yet"
        raise OmnimillError(f"no dataset or training run named {', '.join(unknown)} under {root}; there is: {known}")
    if not datasets and not training:
        raise OmnimillError(f"nothing was ingested or trained under {root} yet, so there is nothing to report")
    # A dataset and a run may share a name: then both are meant.
    return (
        {name: version for name, version in datasets.items() if not names or name in names},
        {name: run for name, run in training.items() if not names or name in names},
    )


def _section(card: DatasetCard | MixtureCard | RunCard) -> Section:
    kind = {DatasetCard: "dataset", MixtureCard: "mixture", RunCard: "run"}[type(card)]
    anchor = f"{kind}-{re.sub(_NOT_IN_NAMES, '-', card.name)}"
    return Section(kind, card.name, anchor, _html(f"{kind}.html", card=card, id=anchor))


def _html(template: str, **values: object) -> Markup:
    # The templates escape what they are given.
    return Markup(fragment(template, **values))  # noqa: S704


def _write(target: str, root: str, cards: Sequence[object], sections: Sequence[Section]) -> None:
    """One page with all sections, or a folder with one page each."""
    one_page = target.endswith(".html")
    link = {section.anchor: f"#{section.anchor}" if one_page else f"{section.anchor}.html" for section in sections}
    title = f"omnimill report: {root}"
    overview = _html("index.html", pairs=list(zip(cards, sections, strict=False)), link=link)

    def write(url: str, title: str, *body: Markup) -> None:
        home = "#top" if one_page else "index.html"
        page = fragment(
            "page.html",
            title=title,
            root=root,
            version=omnimill.__version__,
            home=home,
            sections=sections,
            link=link,
            body=body,
        )
        storage.publish_bytes(url, page.encode())

    if one_page:
        write(target, title, overview, *(section.html for section in sections))
        return
    write(storage.join(target, "index.html"), title, overview)
    for section in sections:
        name = f"{section.title}, {section.kind}: omnimill report"
        write(storage.join(target, f"{section.anchor}.html"), name, section.html)
