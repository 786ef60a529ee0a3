"""The catalog's own settings read each dataset as it is published, into rows that its families can use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from adapters import fixtures_clip, fixtures_map, fixtures_picture
from adapters.round_trip import lengths_of

from omnimill.config import load_config
from omnimill.infra.dataset import Dataset
from omnimill.mixtures.catalog_dags import dag_text
from omnimill.mixtures.catalog_entries import find
from omnimill.mixtures.catalog_tasks import from_dataset
from omnimill.mixtures.config import Task
from omnimill.mixtures.eligibility import reasons
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.process import process_unit
from omnimill.schema import Example, from_row

FORMATS: dict[str, Callable[[Path], Any]] = {
    **fixtures_clip.FORMATS,
    **fixtures_map.FORMATS,
    **fixtures_picture.FORMATS,
}
# Entries whose layout has another name, and the folder below ${DATA} if it is not that of the entry.
LAYOUTS = {
    **{
        name: (name, name)
        for name in (
            *("a_okvqa", "alpaca", "audiocaps", "clevr", "clotho", "coco", "coco_text", "cub_200", "dolly"),
            *("flying_chairs", "got10k", "gqa", "imagenet", "instruct_pix2pix", "lasot", "ljspeech", "llava", "lvis"),
            *("macs", "magicbrush", "mbpp", "msrvtt_qa", "musiccaps", "nlvr2", "ocr_vqa", "ok_vqa", "omni3d"),
            *("open_images", "places365", "refcoco", "science_qa", "st_vqa", "star", "sun397", "tally_qa", "text_vqa"),
            *("ucf101", "vatex", "vcr", "vima", "visual_dialog", "visual_genome", "visual_mrc", "vizwiz_captions"),
            *("vqa_v2", "vsr"),
        )
    },
    "blended_mvs": ("taskonomy_normals", "blended_mvs"),
    "epic_kitchens_100": ("epic_kitchens", "epic_kitchens_100"),
    "flan_2021": ("flan", "flan_2021"),
    "framenet": ("frame_net", "framenet"),
    "image_paragraphs": ("paragraphs", "image_paragraphs"),
    "kinetics_sounds": ("kinetics", "kinetics_sounds"),
    "m3it_captioning": ("m3it", "m3it"),
    "mimic_it_sd": ("mimic_it", "mimic_it"),
    "mpi_sintel": ("sintel", "mpi_sintel"),
    "msr_vtt": ("msrvtt", "msr_vtt"),
    "multigen": ("multi_gen", "multigen"),
    "natural_instructions_v2": ("natural_instructions", "natural_instructions_v2"),
    "nyu_depth_v2": ("nyu_h5", "nyu_depth_v2"),
    "open_assistant": ("open_assistant_trees", "open_assistant"),
    "scicap": ("sci_cap", "scicap"),
    "something_something_v2": ("ssv2", "something_something_v2"),
    "soundnet_flickr": ("flickr_soundnet", "soundnet_flickr"),
    "textcaps": ("text_caps", "textcaps"),
    "vgg_sound": ("vggsound", "vgg_sound"),
    "visual_storytelling": ("visual_stories", "visual_storytelling"),
    "vite_vqa": ("m4_vitevqa", "vite_vqa"),
    "vizwiz_vqa": ("vizwiz", "vizwiz_vqa"),
    "youtube_bb": ("youtube_bb", "youtube_bb"),
}
# Folders of pictures that several datasets share, and the dataset that they lie with.
SHARED = {
    **dict.fromkeys(("train2014", "train2017", "val2014"), "coco"),
    **dict.fromkeys(("VG_100K", "VG_100K_2"), "visual_genome"),
    "train_images": "text_vqa",
}


# Where a copy lies otherwise than an entry wants it: M3IT is read as its loading script writes it, by dataset.
MOVED = {"m3it": ("data/captioning/coco", "coco")}
# Uses that a small copy is too small for.
TOO_SMALL = {("coco", "caption-with-words")}


def ingested(name: str, folder: Path) -> dict[str, list[Example]]:
    """What each source of an entry makes of what lies below ``${DATA}``."""
    path = folder / "dag.yaml"
    path.write_text(dag_text([find(name)], name))
    found = {}
    for pipeline in load_config(path, Dag).sources:
        dataset = Dataset(str(folder / "root"), pipeline.name)
        commits = [process_unit(pipeline.source, pipeline.operators, unit, dataset) for unit in pipeline.source.units()]
        refs = [ref for commit in commits for ref in commit.shards]
        found[pipeline.name] = [from_row(row) for ref in refs for row in dataset.read(ref).to_pylist()]
    return found


def without_rows(name: str, found: Mapping[str, Sequence[Example]]) -> list[str]:
    """Families and forms that the entry says it serves, and in which its examples have no row."""
    empty = []
    for family, use in find(name).families.items():
        forms = {family: use.sources} | {one.form: one.sources for one in use.variants.values() if one.form}
        for served, sources in forms.items():
            settings = from_dataset(name, served)
            task = Task.model_validate({**settings, "name": "a", "rate": 1, "sources": sources or settings["sources"]})
            examples = [example for source in task.sources for example in found[source]]
            if reasons(lengths_of(examples), task).null_count() == 0 and (name, served) not in TOO_SMALL:
                empty.append(served)
    return empty


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def lay_out(data: Path, layout: str, folder: str, files: Iterable[str] = ()) -> None:
    """A small copy of a published dataset; pictures that `files` say lie with another one are put there."""
    home = data / folder
    home.mkdir(parents=True, exist_ok=True)
    FORMATS[layout](home)
    if layout in MOVED:
        (home / MOVED[layout][0]).rename(home / MOVED[layout][1])
    for name, owner in SHARED.items():
        if (home / name).exists() and any(fnmatch(f"../{owner}/{name}/1.jpg", path) for path in files):
            shutil.copytree(home / name, data / owner / name, dirs_exist_ok=True)
            shutil.rmtree(home / name)


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"lvis"}))
def test_an_entry_reads_its_dataset_as_it_is_published_and_its_families_find_rows(
    name: str, data: Path, tmp_path: Path
) -> None:
    lay_out(data, *LAYOUTS[name], find(name).files)
    found = ingested(name, tmp_path)
    assert all(found.values())
    assert without_rows(name, found) == []


def test_lvis_takes_captions_from_coco(data: Path, tmp_path: Path) -> None:
    lay_out(data, "coco", "coco")
    lay_out(data, "lvis", "lvis", find("lvis").files)
    said = json.loads((data / "lvis" / "lvis_v1_train.json").read_text())
    captioned = json.loads((data / "coco" / "annotations" / "captions_train2017.json").read_text())
    ours, theirs = said["images"][0]["id"], captioned["annotations"][0]["image_id"]
    captioned["annotations"][0]["image_id"] = ours
    captioned["images"] = [
        {**image, "id": ours} if image["id"] == theirs else image
        for image in captioned["images"]
        if image["id"] != ours
    ]
    (data / "coco" / "annotations" / "captions_train2017.json").write_text(json.dumps(captioned))
    found = ingested("lvis", tmp_path)
    assert without_rows("lvis", found) == []
