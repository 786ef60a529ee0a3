"""The published mixtures, row by row against the reference's tables."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from omnimill.cli.main import main
from omnimill.mixtures.catalog_entries import catalog
from omnimill.mixtures.language import GroupSpec, Size
from omnimill.mixtures.loading import MixtureSource, read_mixture
from omnimill.mixtures.overview import kind_shares

REPOSITORY = Path(__file__).parents[2]
VENDORED = REPOSITORY / "mixtures" / "published"
PARITY = Path(os.environ.get("OMNIMILL_PARITY", REPOSITORY.parent / "shared" / "reference" / "parity"))
REFERENCE = PARITY.parent

# Where the tasks read or write other modalities than the table says, and why; see the head of each mixture.
PRETRAIN_DIFFERS = {
    "ACAV": "it has no text that could be a target",
    "ProcTHOR": "the next position is written in location tokens",
    "Habitat": "the next position is written in location tokens",
    "Objaverse": "a camera's pose is asked for and given in location tokens",
    "Laion Aesthetics Patches": "the number of shapes is text",
    "RedCaps Patches": "the number of shapes is text",
}
# Modalities of inputs and targets that a family has more or less than in the table.
INSTRUCT_DIFFERS = {
    "Controllable Image Editing": ("-dense", ""),
    "View Synthesis": ("+sparse", "-text"),
    "Audio from Video": ("-audio", ""),
    "Image Instruction Following": ("+image_history", ""),
    "3D": ("", "-image"),
    "Surface Normal Estimation": ("+sparse", "+sparse"),
    "Video Sound Localization": ("+audio", ""),
    "Action Prediction": ("+sparse", "+sparse"),
    "Next Frame/State Prediction": ("", "+sparse -text"),
    "Goal Generation": ("-image", ""),
    "Embodied QA": ("", "-sparse"),
}


@dataclass(frozen=True)
class Row:
    """A row of a table; name "" for the total of a group."""

    group: str
    name: str
    slug: str
    size: int | None
    rate: str
    datasets: int | None
    inputs: frozenset[str]
    outputs: frozenset[str]


def size_of(text: str) -> int | None:
    return TypeAdapter(Size).validate_python(text) if text else None


def vendored(name: str) -> list[Row]:
    with (VENDORED / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        assert "arXiv 2312.17172" in next(stream)
        return [
            Row(
                row["group"],
                row["name"],
                row["slug"],
                size_of(row["size"]),
                row["rate"],
                int(row["datasets"]) if row["datasets"] else None,
                frozenset(row["inputs"].split()),
                frozenset(row["outputs"].split()),
            )
            for row in csv.DictReader(stream)
        ]


def groups_of(groups: tuple[GroupSpec, ...]) -> Iterator[GroupSpec]:
    for group in groups:
        yield group
        yield from groups_of(group.groups)


def tasks_in(source: MixtureSource, group: str) -> list[tuple[frozenset[str], frozenset[str], float]]:
    return [
        (frozenset(task.input_modalities), frozenset(task.target_modalities), rate)
        for task, rate in zip(source.mixture.tasks, source.mixture.rates, strict=True)
        if f"/{group}/" in f"/{task.group}/"
    ]


@pytest.mark.parametrize("name", ["pretrain", "instruct"])
def test_the_vendored_tables_are_the_reference_s(name: str) -> None:
    """Where the reference's own tables lie beside the parity vectors."""
    published = REFERENCE / f"{name}_mixture.csv"
    if not published.exists():
        assert not PARITY.exists(), f"{PARITY} is there, but not {published}"
        return
    with published.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(vendored(name))
    for row, ours in zip(rows, vendored(name), strict=True):
        assert (row["group"], row["name"]) == (ours.group, ours.name or "(group total)")
        assert (row["rate"], size_of(row["size"])) == (ours.rate, ours.size)
        assert row["datasets"] == ("" if ours.datasets is None else str(ours.datasets))
        assert {key[3:] for key, flag in row.items() if key.startswith("in_") and flag == "1"} == ours.inputs
        assert {key[4:] for key, flag in row.items() if key.startswith("out_") and flag == "1"} == ours.outputs


def test_every_source_of_the_pretraining_table_is_in_its_mixture() -> None:
    source = read_mixture(REPOSITORY / "mixtures" / "pretrain.yaml")
    groups = {group.name: group for group in groups_of(source.spec.groups)}
    rows = [row for row in vendored("pretrain") if row.name]
    assert len(rows) == 30
    whole = sum(Fraction(row.rate) for row in rows)
    assert whole == Fraction("99.94")
    for row in rows:
        group = groups[row.slug]
        assert (group.title, group.rate, group.size) == (row.name, float(row.rate), row.size)
        tasks = tasks_in(source, row.slug)
        assert sum(rate for *_, rate in tasks) == pytest.approx(float(Fraction(row.rate) / whole), abs=1e-12)
        read = frozenset[str]().union(*(inputs for inputs, *_ in tasks))
        written = frozenset[str]().union(*(outputs for _, outputs, _ in tasks))
        assert ((read, written) != (row.inputs, row.outputs)) == (row.name in PRETRAIN_DIFFERS), (
            row.name,
            read,
            written,
        )


def test_groups_of_the_pretraining_mixture_are_the_table_s() -> None:
    source = read_mixture(REPOSITORY / "mixtures" / "pretrain.yaml")
    totals = [row for row in vendored("pretrain") if not row.name and row.group != "All"]
    assert [(group.name, group.title, group.size) for group in source.spec.groups] == [
        (row.slug, row.group, row.size) for row in totals
    ]
    for row in totals:
        share = sum(rate for *_, rate in tasks_in(source, row.slug))
        # Rounding: the table's groups and their sources differ by up to 0.06 points, and so does the whole.
        assert 100 * share == pytest.approx(float(row.rate), abs=0.07)


def test_the_pretraining_mixture_reads_what_its_pipelines_make() -> None:
    mixture = read_mixture(REPOSITORY / "mixtures" / "pretrain.yaml").mixture
    dags = sorted(path.stem for path in (REPOSITORY / "pipelines" / "dags" / "pretrain").glob("*.yaml"))
    assert sorted(name.removesuffix("-tokens") for name in mixture.datasets) == dags


def test_every_family_of_the_instruction_table_is_in_its_mixture() -> None:
    source = read_mixture(REPOSITORY / "mixtures" / "instruct.yaml")
    groups = {group.name: group for group in groups_of(source.spec.groups)}
    rows = [row for row in vendored("instruct") if row.name]
    assert len(rows) == 43
    whole = sum(Fraction(row.rate) for row in rows)
    assert whole == Fraction("99.98")
    for row in rows:
        group = groups[row.slug]
        assert (group.title, group.rate) == (row.name, float(row.rate))
        assert (group.size, group.datasets) == (row.size, row.datasets)
        tasks = tasks_in(source, row.slug)
        assert sum(rate for *_, rate in tasks) == pytest.approx(float(Fraction(row.rate) / whole), abs=1e-12)
        read = frozenset[str]().union(*(inputs for inputs, *_ in tasks))
        written = frozenset[str]().union(*(outputs for _, outputs, _ in tasks))
        expected = INSTRUCT_DIFFERS.get(row.name, ("", ""))
        assert (_apart(read, row.inputs), _apart(written, row.outputs)) == expected, row.name


def _apart(found: frozenset[str], published: frozenset[str]) -> str:
    return " ".join(
        [*(f"+{name}" for name in sorted(found - published)), *(f"-{n}" for n in sorted(published - found))]
    )


def test_groups_of_the_instruction_mixture_are_the_table_s() -> None:
    source = read_mixture(REPOSITORY / "mixtures" / "instruct.yaml")
    totals = [row for row in vendored("instruct") if not row.name and row.group != "All Tasks"]
    assert [(group.name, group.title, group.size, group.datasets) for group in source.spec.groups] == [
        (row.slug, row.group, row.size, row.datasets) for row in totals
    ]
    for row in totals:
        share = sum(rate for *_, rate in tasks_in(source, row.slug))
        assert 100 * share == pytest.approx(float(row.rate), abs=0.08)


def test_the_instruction_mixture_has_the_published_shares_by_kind() -> None:
    mixture = read_mixture(REPOSITORY / "mixtures" / "instruct.yaml").mixture
    shares = kind_shares(mixture.tasks, mixture.rates)
    assert shares == pytest.approx(
        {"prompted": 0.60, "pretraining": 0.30, "augmentation": 0.06, "free_form": 0.04}, abs=1e-12
    )


def test_datasets_of_a_family_are_drawn_by_the_root_of_their_size() -> None:
    mixture = read_mixture(REPOSITORY / "mixtures" / "instruct.yaml").mixture
    rates = {task.name: (rate, task.size) for task, rate in zip(mixture.tasks, mixture.rates, strict=True)}
    (large, large_size), (small, small_size) = rates["vqa-vqa-v2"], rates["vqa-a-okvqa"]
    assert large_size is not None and small_size is not None
    assert large / small == pytest.approx((large_size / small_size) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("name", ["pretrain", "instruct"])
def test_published_mixtures_are_shown_without_data(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(REPOSITORY / "mixtures" / f"{name}.yaml")
    assert main(["mixture", "show", path, "--root", str(tmp_path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert sum(task["rate"] for task in shown["tasks"]) == pytest.approx(1)
    rows = [row for row in vendored(name) if row.name]
    by_path = {group["path"].rpartition("/")[2]: group for group in shown["groups"]}
    for row in rows:
        group = by_path[row.slug]
        assert (group["title"], 100 * group["rate"]) == (row.name, pytest.approx(float(row.rate), abs=0.011))
        assert row.datasets is None or group["datasets"] == row.datasets
        assert row.size is None or group["size"] == row.size


def test_what_augmented_tasks_read_is_made_by_the_catalog_s_sources() -> None:
    mixture = read_mixture(REPOSITORY / "mixtures" / "instruct.yaml").mixture
    operators = {
        source["name"]: {operator["op"] for operator in source.get("operators", ())}
        for entry in catalog().values()
        for source in entry.sources
    }
    augmented = [task for task in mixture.tasks if task.kind == "augmentation"]
    assert len(augmented) > 30
    for task in augmented:
        made = {name for source in task.sources for name in operators[source] if name.startswith("augment_")}
        assert made, task.name
