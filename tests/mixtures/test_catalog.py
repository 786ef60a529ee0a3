"""The catalog: every entry ingests and serves what it says, and what the reference's tables count is there."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

from omnimill.cli.main import main
from omnimill.config import load_config
from omnimill.errors import ConfigError
from omnimill.mixtures.catalog_dags import dag_sources, dag_text
from omnimill.mixtures.catalog_entries import NOT_STATED, Entry, by_family, catalog, find, load_entry
from omnimill.mixtures.catalog_page import UNNAMED, markdown
from omnimill.mixtures.catalog_tasks import from_dataset
from omnimill.mixtures.config import Task
from omnimill.mixtures.task_families import families
from omnimill.pipelines.dag import Dag

PROJECT = Path(__file__).parents[2]
ENTRIES = catalog()
OWN = """\
name: shop_photos
title: Photographs of our shop
kind: pictures
licence: CC0-1.0
format: JSON lines of image and caption
files: {photos/*.jpg: pictures, captions.jsonl: captions}
families: {image-captioning: {gives: a caption of each picture}}
sources:
  - {name: shop_photos, type: image_folder, path: "${DATA}/shop_photos", captions: captions.jsonl}
"""


def table(name: str) -> list[dict[str, str]]:
    """Rows of a published table that are no totals."""
    lines = (PROJECT / "mixtures" / "published" / f"{name}.csv").read_text().splitlines()
    return [row for row in csv.DictReader(line for line in lines if not line.startswith("#")) if row["name"]]


def parsed(entry: Entry, folder: Path) -> Dag:
    path = folder / f"{entry.name}.yaml"
    path.write_text(dag_text([entry], entry.name))
    return load_config(path, Dag)


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ROOT", str(tmp_path / "root"))


@pytest.mark.parametrize("name", ENTRIES)
def test_what_an_entry_says_of_ingestion_is_a_dag(name: str, tmp_path: Path) -> None:
    entry = find(name)
    dag = parsed(entry, tmp_path)
    assert dag.dataset == name
    assert tuple(pipeline.name for pipeline in dag.sources) == entry.source_names
    fetched = [pipeline for pipeline in dag.sources if pipeline.source.model_dump().get("licence")]
    assert len(fetched) == (0 if entry.licence == NOT_STATED else len(dag.sources))


@pytest.mark.parametrize("name", ENTRIES)
def test_every_use_of_an_entry_is_a_task(name: str) -> None:
    entry = find(name)
    for family, use in entry.families.items():
        forms = {use.form, *(variant.form for variant in use.variants.values())} - {None}
        assert all(families()[str(form)].part_of == family for form in forms), family
        for served in (family, *sorted(map(str, forms))):
            settings = from_dataset(name, served)
            task = Task.model_validate({**settings, "name": "a", "rate": 1})
            assert set(task.sources) <= set(entry.source_names)


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_whole(name: str) -> None:
    entry = find(name)
    assert entry.home
    assert entry.inputs
    assert entry.outputs
    assert entry.lengths


def test_every_family_has_as_many_datasets_as_the_published_table_counts_or_it_is_said_why_not() -> None:
    differ = set()
    for row in table("instruct"):
        uses = [entry.families[row["slug"]] for entry in by_family(row["slug"]).values()]
        if sum(use.count for use in uses) != int(row["datasets"]):
            differ.add(row["slug"])
            assert f"The table counts {row['datasets']}" in UNNAMED[row["slug"]]
    assert differ == set(UNNAMED)
    assert len(ENTRIES) > 120


def test_every_row_of_the_published_pretraining_table_has_its_entry_and_its_modalities() -> None:
    found = {entry.pretrain: entry for entry in ENTRIES.values() if entry.pretrain}
    rows = {row["name"]: row for row in table("pretrain")}
    assert found.keys() == rows.keys()
    dags = {path.stem for path in (PROJECT / "pipelines" / "dags" / "pretrain").glob("*.yaml")}
    assert {entry.dag for entry in found.values()} == dags
    for name, entry in found.items():
        row = rows[str(name)]
        assert set(row["inputs"].split()) <= set(entry.inputs), name
        assert set(row["outputs"].split()) <= set(entry.outputs), name


def test_lengths_of_pretraining_examples_are_distributions_that_say_where_they_are_from() -> None:
    for entry in ENTRIES.values():
        if entry.pretrain:
            assert entry.lengths is not None
            values = [*entry.lengths.text.values(), entry.lengths.images, entry.lengths.clips]
            assert all({0, 100} <= value.keys() for value in values)
            assert any(number > 0 for value in values for number in value.values()), entry.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licence: CC0-1.0": "license: CC0-1.0"}, r"shop_photos.yaml:4: license: unknown key; allowed: .*licence"),
        ({"name: shop_photos\n": "name: shop\n"}, r"shop_photos.yaml:1: name: found 'shop', allowed: 'shop_photos'"),
        ({"kind: pictures": "kind: paintings"}, r"shop_photos.yaml:3: kind: .*found 'paintings'"),
        ({"gives: a": "sources: [shop], gives: a"}, r"unknown sources shop; allowed: shop_photos"),
        ({"gives: a": "examples: 3, gives: a"}, r"shop_photos.yaml:7: .*examples and figure go together"),
        ({"kind: pictures": "kind: pictures\npublished: false"}, r"needs a note"),
        ({"kind: pictures": "kind: pictures\ndag: c4"}, r"either a dag or sources"),
        (
            {"kind: pictures": "kind: pictures\nlengths: {text: {caption: {0: 5, 100: 2}}, figure: none}"},
            r"shop_photos.yaml:4: lengths.text.caption: the values of a distribution are not negative and do not fall",
        ),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place(change: dict[str, str], message: str, tmp_path: Path) -> None:
    ((old, new),) = change.items()
    path = tmp_path / "shop_photos.yaml"
    path.write_text(OWN.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        load_entry(path)


def test_two_entries_cannot_claim_one_source(tmp_path: Path) -> None:
    (tmp_path / "shop_photos.yaml").write_text(OWN)
    (tmp_path / "other.yaml").write_text(OWN.replace("name: shop_photos\n", "name: other\n", 1))
    with pytest.raises(ConfigError, match=r"shop_photos.yaml:1: shop_photos belongs to other already"):
        catalog(tmp_path)


def test_a_name_that_is_not_in_the_catalog_gets_the_nearest_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "show", "refcocoo"]) == 2
    assert "did you mean: refcoco" in capsys.readouterr().err


def test_list_and_show_say_the_same_as_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "list", "--family", "audio-tagging", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["datasets"]
    assert [entry["name"] for entry in listed] == list(by_family("audio-tagging"))
    assert main(["catalog", "show", "audiocaps"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["licence"] == find("audiocaps").licence
    assert main(["catalog", "list", "--family", "audio-taging"]) == 2


def test_a_dag_of_several_datasets_has_the_sources_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "dag", "c4", "coco"]) == 2
    capsys.readouterr()
    assert main(["catalog", "dag", "c4", "coco", "--dataset", "both"]) == 0
    (tmp_path / "both.yaml").write_text(capsys.readouterr().out)
    dag = load_config(tmp_path / "both.yaml", Dag)
    assert dag.dataset == "both"
    assert [pipeline.name for pipeline in dag.sources] == ["c4", *find("coco").source_names]


def test_files_are_said_for_every_folder_that_a_source_reads() -> None:
    for entry in ENTRIES.values():
        elsewhere = {path.split("/")[1] for path in entry.files if path.startswith("../")}
        read = {source["path"].partition("}/")[2].split("/")[0] for source in dag_sources(entry)} - {""}
        assert read <= {entry.name, *elsewhere}, entry.name


def test_the_page_of_the_catalog_is_up_to_date() -> None:
    assert (PROJECT / "docs" / "catalog.md").read_text() == markdown()


@pytest.mark.ray
def test_a_dataset_is_added_in_ten_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str], ray_local: None) -> None:
    page = (PROJECT / "docs" / "mixtures.md").read_text()
    (example,) = re.findall(r"```yaml\n(name: shop_photos\n.*?)```", page, re.DOTALL)
    assert example == OWN
    assert len(example.splitlines()) <= 10
    folder = tmp_path / "data" / "shop_photos"
    (folder / "photos").mkdir(parents=True)
    lines = []
    for number, colour in enumerate(("red", "blue")):
        Image.new("RGB", (64, 48), colour).save(folder / "photos" / f"{number}.jpg")
        lines.append(json.dumps({"image": f"photos/{number}.jpg", "caption": f"A {colour} thing."}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    (tmp_path / "shop_photos.yaml").write_text(example)

    assert main(["catalog", "dag", str(tmp_path / "shop_photos.yaml")]) == 0
    (tmp_path / "dag.yaml").write_text(capsys.readouterr().out)
    assert main(["ingest", str(tmp_path / "dag.yaml"), "--root", str(tmp_path / "root"), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["records"] == {"in": 2, "kept": 2, "dropped": {}, "quarantined": {}}
    assert counts["examples"]["written"] == 2
