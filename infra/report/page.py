"""``omnimill report``: one self-contained HTML page for datasets and training runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from mlflow.entities import Run

import omnimill
from omnimill.errors import OmnimillError
from omnimill.infra import lineage, storage
from omnimill.infra.report.cards import DatasetCard, dataset_card, run_card
from omnimill.infra.report.samples import Sample, data_url, thumbnail
from omnimill.infra.trace import Catalog, Version


def write_report(root: str, path: Path, names: Sequence[str] = ()) -> list[str]:
    """Write the page.

    Args:
        root: where datasets, runs and the tracking store live.
        path: the HTML file to write.
        names: datasets (their newest version) and training runs (by name or id) to show; everything when empty.

    Returns:
        The names that the page shows.

    Raises:
        OmnimillError: nothing was recorded under the root, or a name is not known.
    """
    catalog = Catalog(root)
    datasets = {version.dataset.name: version for version in catalog.versions}
    training = _newest_training(catalog.runs)
    unknown = [name for name in names if name not in datasets and name not in training]
    if unknown:
        known = ", ".join([*datasets, *training]) or "nothing yet"
        raise OmnimillError(f"no dataset or training run named {', '.join(unknown)} under {root}; there is: {known}")
    if not datasets and not training:
        raise OmnimillError(f"nothing was ingested or trained under {root} yet, so there is nothing to report")
    # A dataset and a run may share a name: then both are meant.
    datasets = {name: version for name, version in datasets.items() if not names or name in names}
    training = {name: run for name, run in training.items() if not names or name in names}
    page = page_template(Path(__file__).with_name("page.html")).render(
        version=omnimill.__version__,
        root=root,
        datasets=[_card(version) for version in datasets.values()],
        runs=[run_card(lineage.client(root), run) for run in training.values()],
        generated=_generated(catalog.runs),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return [*datasets, *training]


def _newest_training(runs: Sequence[Run]) -> dict[str, Run]:
    return {run.info.run_name: run for run in runs if run.data.tags.get("omnimill.command") == "train"}


def _card(version: Version) -> DatasetCard:
    return dataset_card(version.dataset, version.digest, version.manifest)


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
    text = [("prompt", run.data.tags.get("omnimill.prompt", ""))]
    if suffix == ".png":
        return Sample(id=run.info.run_id, key=url, text=text, images=[(thumbnail(data), "drawn")])
    if suffix == ".wav":
        return Sample(id=run.info.run_id, key=url, text=text, audio=[(data_url(data, "audio/wav"), "sounded")])
    return Sample(id=run.info.run_id, key=url, text=[*text, ("written", data.decode(errors="replace"))])


def page_template(path: Path) -> Template:
    """A page of the house: its template may include ``style.css`` and uses the filter ``bytes``."""
    environment = Environment(
        loader=FileSystemLoader([path.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["bytes"] = _bytes
    return environment.get_template(path.name)


def _bytes(count: int) -> str:
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.1f} {unit}"
