"""``omnimill report``: datasets, mixtures and training runs as one self-contained page, or as a folder of pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from markupsafe import Markup
from mlflow.entities import Run

import omnimill
from omnimill.errors import OmnimillError
from omnimill.infra import lineage, storage
from omnimill.infra.report.datasets import DatasetCard, dataset_card
from omnimill.infra.report.media import data_url, thumbnail
from omnimill.infra.report.mixtures import MixtureCard
from omnimill.infra.report.runs import RunCard, run_card
from omnimill.infra.report.samples import Picture, Sample
from omnimill.infra.report.template import fragment
from omnimill.infra.trace import Catalog, Version
from omnimill.progress import progress

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


def write_report(root: str, path: Path, names: Sequence[str] = (), mixture_of: MixtureOf | None = None) -> list[str]:
    """Write the report.

    Args:
        root: where datasets, runs and the tracking store live.
        path: the HTML file to write; without the ending ``.html``, a folder of pages with an ``index.html``.
        names: datasets (their newest version) and training runs (by name) to show; everything when empty.
        mixture_of: makes the cards of mixtures; there are none when it is not given.

    Returns:
        The names that the report shows.

    Raises:
        OmnimillError: nothing was recorded under the root, or a name is not known.
    """
    catalog = Catalog(root)
    datasets, training = _chosen(catalog, root, names)
    with progress("report", len(datasets) + 2 * len(training), "cards") as advance:
        cards: list[DatasetCard | MixtureCard | RunCard] = []
        for version in datasets.values():
            cards.append(dataset_card(version.dataset, version.digest, version.manifest))
            advance(1)
        for run in training.values():
            if mixture_of and (mixture := mixture_of(run)):
                cards.append(mixture)
            advance(1)
            cards.append(run_card(lineage.client(root), run, catalog.runs))
            advance(1)
    sections = [_section(card) for card in cards]
    if generated := _generated(catalog.runs):
        sections.append(Section("generated", "Generated", "generated", _html("generated.html", samples=generated)))
    _write(path, root, cards, sections)
    return [*datasets, *training]


def _chosen(catalog: Catalog, root: str, names: Sequence[str]) -> tuple[dict[str, Version], dict[str, Run]]:
    """Newest versions and training runs by name."""
    datasets = {version.dataset.name: version for version in catalog.versions}
    training = {run.info.run_name: run for run in catalog.runs if run.data.tags.get("omnimill.command") == "train"}
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
    # Runs may share a name.
    anchor = f"{kind}-{re.sub(_NOT_IN_NAMES, '-', card.name)}" + (
        f"-{card.id[:8]}" if isinstance(card, RunCard) else ""
    )
    return Section(kind, card.name, anchor, _html(f"{kind}.html", card=card, id=anchor))


def _html(template: str, **values: object) -> Markup:
    # The templates escape what they are given.
    return Markup(fragment(template, **values))  # noqa: S704


def _write(path: Path, root: str, cards: Sequence[object], sections: Sequence[Section]) -> None:
    """One page with all sections, or a folder with one page each."""
    one_page = path.suffix == ".html"
    link = {section.anchor: f"#{section.anchor}" if one_page else f"{section.anchor}.html" for section in sections}
    page = partial(fragment, "page.html", version=omnimill.__version__, root=root, sections=sections, link=link)
    pairs = list(zip(cards, sections, strict=False))
    index = _html("index.html", pairs=pairs, link=link)
    if one_page:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            page(title=f"omnimill report: {root}", home="#top", body=[index, *(one.html for one in sections)]), "utf-8"
        )
        return
    path.mkdir(parents=True, exist_ok=True)
    (path / "index.html").write_text(page(title=f"omnimill report: {root}", home="index.html", body=[index]), "utf-8")
    for section in sections:
        text = page(title=f"{section.title}, {section.kind}: omnimill report", home="index.html", body=[section.html])
        (path / f"{section.anchor}.html").write_text(text, "utf-8")


def _generated(runs: Sequence[Run]) -> list[Sample]:
    """What ``omnimill generate`` wrote, as far as the files are still there."""
    return [
        _generated_sample(run, reference.url)
        for run in runs
        if run.data.tags.get("omnimill.command") == "generate"
        for reference in lineage.references(run, "output")
        if storage.exists(reference.url)
    ]


def _generated_sample(run: Run, url: str) -> Sample:
    data, suffix = storage.read_bytes(url), Path(url).suffix
    prompt = run.data.tags.get("omnimill.prompt", "")
    text = [("prompt", prompt)]
    if suffix == ".png":
        picture = Picture(thumbnail(data), f"drawn by the model for: {prompt}", "drawn")
        return Sample(id=run.info.run_id, key=url, text=text, images=[picture])
    if suffix == ".wav":
        return Sample(id=run.info.run_id, key=url, text=text, audio=[(data_url(data, "audio/wav"), "sounded")])
    return Sample(id=run.info.run_id, key=url, text=[*text, ("written", data.decode(errors="replace"))])
