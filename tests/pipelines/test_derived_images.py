"""Datasets made from ingested ones: groups of image-caption pairs, pictures with shapes on them, other operators."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_server import picture
from layouts.images import ingested

from omnimill.errors import ConfigError, IntegrityError
from omnimill.infra import lineage
from omnimill.infra.dataset import Commit, Dataset
from omnimill.infra.selections import Selection, publish_left_out, publish_selection
from omnimill.infra.trace import Catalog, find_examples
from omnimill.pipelines.base import Source
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.decoders.pixels import load_rgb
from omnimill.pipelines.operators.image import ImageResize, ImageSize
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.run import ingest
from omnimill.pipelines.sources.committed import CommittedExamplesSource
from omnimill.pipelines.sources.image_folder import ImageFolderSource
from omnimill.pipelines.sources.interleaved_pairs import InterleavedPairsSource
from omnimill.pipelines.sources.patches import COLOURS, SHAPES, Patch, PatchesSource, draw_patches, paste
from omnimill.schema import Example, from_row
from omnimill.training.lineage.audit import impact
from omnimill.training.lineage.provenance import trace


def done(source: Source, folder: Path) -> tuple[list[Commit], list[Example]]:
    dataset = Dataset(str(folder), "derived")
    commits = [process_unit(source, (), unit, dataset) for unit in source.units()]
    shards = (shard for commit in commits for shard in commit.shards)
    return commits, [from_row(row) for shard in shards for row in dataset.read(shard).to_pylist()]


def pairs_of(path: str, **options: Any) -> InterleavedPairsSource:
    return InterleavedPairsSource(type="interleaved_pairs", name="groups", path=path, **options)


def patches_of(path: str, **options: Any) -> PatchesSource:
    return PatchesSource(type="patches", name="shapes", path=path, **options)


def examples_of(path: str, **options: Any) -> CommittedExamplesSource:
    return CommittedExamplesSource(type="examples", name="again", path=path, **options)


def select(path: str, name: str, *chosen: int) -> None:
    """Publish a selection of the current version that leaves out these of its rows, counted through all shards."""
    dataset = Dataset(*path.rsplit("/", 1))
    digest, manifest = dataset.manifest()
    parts, first = [], 0
    for ref in (ref for commit in manifest.commits for ref in commit.shards):
        ids = dataset.read(ref).column("id").to_pylist()
        rows = [row for row in range(ref.rows) if first + row in chosen]
        said = {"step": "exact", "reason": "duplicate", "twin": None, "score": None}
        if rows:
            parts.append(publish_left_out(dataset, ref.digest, [{"row": row, "id": ids[row], **said} for row in rows]))
        first += ref.rows
    kept = manifest.rows - len(chosen)
    selection = Selection(name=name, dataset=dataset.name, manifest=digest, config={}, kept=kept, shards=tuple(parts))
    publish_selection(dataset, selection)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An ingested dataset: 4 pairs in one shard; 4 pairs, one of a picture of 20 x 20, and a text in the other."""
    return ingested(tmp_path_factory.mktemp("parent"), "photos")["ROOT"] + "/photos"


@pytest.mark.parametrize(("size", "groups"), [(2, [2, 2, 2, 2]), (3, [2, 2, 2, 2]), (4, [4, 4]), (64, [4, 4])])
def test_every_pair_is_in_one_group(parent: str, tmp_path: Path, size: int, groups: list[int]) -> None:
    commits, examples = done(pairs_of(parent, pairs=size), tmp_path)
    assert [len(example.images) for example in examples] == groups
    uris = [image.uri for example in examples for image in example.images]
    assert sorted(uris) == sorted(f"https://example.org/photos/{i}.jpg" for i in (0, 1, 2, 3, 4, 5, 6, 8))
    for example in examples:
        assert [text.image for text in example.text] == list(range(len(example.images)))
        for text in example.text:
            assert text.image is not None
            assert example.images[text.image].uri == f"https://example.org/photos/{text.text.split()[-1]}.jpg"
    assert sum(commit.counts.records_dropped.get("no_pair", 0) for commit in commits) == 1


def test_the_seed_decides_who_stands_together(parent: str, tmp_path: Path) -> None:
    first, again, other = (
        done(pairs_of(parent, pairs=4, seed=seed), tmp_path / str(i))[0] for i, seed in enumerate((0, 0, 1))
    )
    assert [commit.shards for commit in first] == [commit.shards for commit in again]
    assert [commit.shards for commit in first] != [commit.shards for commit in other]


def test_a_group_says_of_itself_what_holds_for_all(parent: str, tmp_path: Path) -> None:
    _, (mixed, alike) = done(pairs_of(parent), tmp_path)
    assert (mixed.meta.licence, mixed.meta.tags) == ("CC-BY-4.0", {})
    assert alike.meta.tags == {"subreddit": "itookapicture"}


def test_a_damaged_shard_is_noticed(tmp_path: Path) -> None:
    path = ingested(tmp_path, "photos")["ROOT"] + "/photos"
    source = pairs_of(path)
    unit = next(source.units())
    shard = Path(unit.files[0])
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match="hashes to"):
        process_unit(source, (), unit, Dataset(str(tmp_path), "derived"))


def test_shapes_lie_where_the_annotations_say(parent: str, tmp_path: Path) -> None:
    commits, examples = done(patches_of(parent), tmp_path)
    assert sum(commit.counts.records_dropped.get("no_room", 0) for commit in commits) == 2
    assert len(examples) == 7
    for example in examples:
        (image,) = example.images
        pixels = load_rgb(image).astype(int)
        shapes = example.annotations
        assert [(text.role, text.text) for text in example.text] == [("count", str(len(shapes)))]
        assert example.provenance.uri == example.meta.url == image.uri
        assert example.provenance.digest == image.digest
        for shape in shapes:
            assert shape.box is not None
            assert shape.label is not None
            top, left, bottom, right = np.array(shape.box) * [240, 320, 240, 320]
            colour = COLOURS[shape.label.split()[0]]
            # JPEG changes colours a little; the middle of every shape is filled.
            middle = pixels[round((top + bottom) / 2), round((left + right) / 2)]
            assert np.abs(middle - colour).max() < 40


def test_patches_depend_on_seed_and_example_alone(parent: str, tmp_path: Path) -> None:
    first = done(patches_of(parent), tmp_path / "a")[0]
    assert [commit.shards for commit in done(patches_of(parent), tmp_path / "b")[0]] == [c.shards for c in first]
    assert [commit.shards for commit in done(patches_of(parent, seed=1), tmp_path / "c")[0]] != [
        c.shards for c in first
    ]


@given(st.integers(8, 700), st.integers(8, 700), st.integers(1, 12), st.text(max_size=5))
def test_patches_fit_and_do_not_overlap(width: int, height: int, most: int, key: str) -> None:
    patches = draw_patches(width, height, most, 0, key)
    assert len(patches) <= most
    assert patches or min(width, height) < 32
    for place, patch in enumerate(patches):
        assert 0 <= patch.top <= height - patch.side
        assert 0 <= patch.left <= width - patch.side
        assert not any(patch.overlaps(other) for other in patches[:place])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [8, 9, 31, 64])
def test_a_shape_fills_its_box(shape: str, side: int) -> None:
    pixels = np.full((90, 100, 3), 127, np.uint8)
    paste(pixels, Patch("red", shape, 5, 7, side))
    drawn = (pixels != 127).any(axis=2)
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (5, 4 + side, 7, 6 + side)
    assert drawn.sum() >= 0.25 * side * side


def test_examples_pass_through_as_they_are(parent: str, tmp_path: Path) -> None:
    dataset = Dataset(*parent.rsplit("/", 1))
    before = [from_row(row) for ref in dataset.manifest()[1].commits[0].shards for row in dataset.read(ref).to_pylist()]
    _, after = done(examples_of(parent), tmp_path)
    assert [example.key for example in after] == [example.key for example in before]
    assert {example.source for example in after} == {"again"}
    assert not {example.id for example in after} & {example.id for example in before}
    for example, original in zip(after, before, strict=True):
        example.id, example.source, example.unit = original.id, original.source, original.unit
        assert example == original


def test_other_operators_judge_and_change_what_was_ingested(parent: str, tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "derived")
    operators = [ImageSize(op="image_size", min_side=100), ImageResize(op="image_resize", short_side=120)]
    source = examples_of(parent)
    commits = [process_unit(source, operators, unit, dataset) for unit in source.units()]
    assert sum(commit.counts.examples_dropped.get("image_too_small", 0) for commit in commits) == 1
    rows = [from_row(row) for commit in commits for ref in commit.shards for row in dataset.read(ref).to_pylist()]
    assert len(rows) == 8
    assert {load_rgb(image).shape for example in rows for image in example.images} == {(120, 160, 3)}


def test_only_the_named_sources_are_read(parent: str) -> None:
    assert len(list(examples_of(parent, sources=["photos"]).units())) == 2
    with pytest.raises(ConfigError, match="no source films; it has photos"):
        list(examples_of(parent, sources=["photos", "films"]).units())


@pytest.mark.parametrize("make", [pairs_of, patches_of, examples_of])
def test_rows_that_selections_leave_out_are_not_read(make: Callable[..., Source], tmp_path: Path) -> None:
    path = ingested(tmp_path, "photos")["ROOT"] + "/photos"
    whole = [unit.id for unit in make(path).units()]
    select(path, "late", 5, 8)
    select(path, "both", 5, 6)
    source = make(path, selections=["late", "both"])
    commits, examples = done(source, tmp_path)
    assert sum(commit.counts.records_in for commit in commits) == (2 + 1 if make is pairs_of else 9 - 3)
    shown = {image.uri for example in examples for image in example.images}
    assert shown == {f"https://example.org/photos/{i}.jpg" for i in range(5)}
    # The shard that no selection touches is the unit that it was.
    assert [unit.id in whole for unit in source.units()] == [True, False]
    select(path, "late", 8)
    assert [unit.id for unit in source.units()] != [commit.unit for commit in commits]
    select(path, "late", 5, 8)
    assert [unit.id for unit in source.units()] == [commit.unit for commit in commits]


def test_a_selection_of_another_version_is_refused(tmp_path: Path) -> None:
    path = ingested(tmp_path, "photos")["ROOT"] + "/photos"
    select(path, "clean", 1)
    dataset = Dataset(*path.rsplit("/", 1))
    judged, manifest = dataset.manifest()
    dataset.publish_manifest("examples", manifest.commits, attributes={"other": 1})
    with pytest.raises(IntegrityError, match="'clean' judged version"):
        list(patches_of(path, selections=["clean"]).units())
    assert len(list(patches_of(path, selections=["clean"], manifest=judged).units())) == 2


@pytest.mark.ray
def test_lineage_finds_the_original_url_in_what_was_made_of_it(
    tmp_path: Path, root: str, make_dag: Callable[..., Dag], ray_local: None
) -> None:
    parent = ingested(tmp_path, "photos")["ROOT"] + "/photos"
    ingest(make_dag(pairs_of(parent), patches_of(parent)), root)
    everywhere = ["groups", "photos", "shapes"]
    found = find_examples(Catalog(root), "https://example.org/photos/2.jpg")
    assert sorted(place.commit.source for place in found) == everywhere
    digest = done(patches_of(parent), tmp_path / "x")[1][0].provenance.digest
    assert sorted(place.commit.source for place in find_examples(Catalog(root), digest)) == everywhere


@pytest.mark.ray
def test_trace_and_impact_go_through_derived_datasets(
    tmp_path: Path, root: str, make_dag: Callable[..., Dag], ray_local: None
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(picture(number, 320, 240))
    lines = [json.dumps({"image": f"{number}.jpg", "caption": f"picture {number}"}) for number in range(4)]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    files = sorted(map(str, folder.iterdir()))
    photos = ImageFolderSource(
        type="image_folder", name="photos", path=str(folder), captions="captions.jsonl", images_per_unit=2
    )

    def run(name: str, *sources: Source) -> tuple[str, str]:
        made = make_dag(*sources).model_copy(update={"dataset": name})
        return f"{root}/{name}", ingest(made, root).digest

    web, version = run("web", photos)
    dataset = Dataset(root, "web")
    shards = [ref for commit in dataset.manifest()[1].commits for ref in commit.shards]
    keys = [key for ref in shards for key in dataset.read(ref).column("key").to_pylist()]
    select(web, "clean", keys.index("3.jpg"))
    again, middle = run("again", examples_of(web, selections=["clean"]))
    _, last = run("shapes", patches_of(again), pairs_of(web))
    catalog = Catalog(root)
    assert catalog.version(middle).manifest.parents == {"web": version}
    assert catalog.version(last).manifest.parents == {"again": middle, "web": version}
    read = lineage.references(lineage.runs(root, "ingest")[1], "input")
    assert [(ref.name, ref.url) for ref in read[:2]] == [
        ("web", web),
        ("web-clean", f"{web}/selections/{read[1].digest}.json"),
    ]

    def sources_of(artefact: str) -> dict[str, list[str]]:
        return {item["source"]: [file["uri"] for file in item["files"]] for item in trace(root, artefact)["sources"]}

    by_source = {commit.source: commit for commit in catalog.version(last).manifest.commits}
    for commit in catalog.version(last).manifest.commits:
        (ref,) = commit.shards
        found = sources_of(ref.digest)
        assert list(found) == ["photos"]
        assert {*found["photos"]} in ({*files[:2], files[4]}, {*files[2:4], files[4]})
        for id_ in catalog.version(last).dataset.read(ref).column("id").to_pylist():
            assert sources_of(id_) == found
    assert set(by_source) == {"shapes", "groups"}

    def reached(query: str) -> dict[str, int]:
        answer = impact(root, query)
        return dict(Counter(shard["source"] for shard in answer["shards"])) | {"examples": len(answer["examples"])}

    assert reached(files[0]) == {"photos": 1, "again": 1, "shapes": 1, "groups": 1, "examples": 4}
    assert reached(files[3]) == {"photos": 1, "groups": 1, "examples": 2}  # the selection left it out
    # The captions file names no example: those of its units, and what was made of them.
    assert reached(files[4]) == {"photos": 2, "again": 2, "shapes": 2, "groups": 2, "examples": 4 + 3 + 3 + 2}
    # An example by its id, which no later one has.
    first = Dataset(root, "web").read(catalog.version(version).manifest.commits[0].shards[0]).column("id")[0].as_py()
    assert reached(first)["examples"] == 4


@pytest.mark.ray
def test_a_parent_that_is_gone_stops_no_other_question(
    tmp_path: Path, root: str, make_dag: Callable[..., Dag], ray_local: None
) -> None:
    parent = Path(ingested(tmp_path / "far", "photos")["ROOT"])
    ingest(make_dag(patches_of(f"{parent}/photos")), root)
    parent.rename(tmp_path / "elsewhere")
    assert impact(root, "https://example.org/photos/2.jpg")["shards"][0]["source"] == "shapes"
