"""Datasets made from ingested ones: groups of image-caption pairs, and pictures with shapes on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts.images import ingested

from omnimill.errors import IntegrityError
from omnimill.infra.dataset import Commit, Dataset
from omnimill.infra.trace import Catalog, find_examples
from omnimill.pipelines.base import Source
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.decoders.pixels import load_rgb
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.run import ingest
from omnimill.pipelines.sources.interleaved_pairs import InterleavedPairsSource
from omnimill.pipelines.sources.patches import COLOURS, SHAPES, Patch, PatchesSource, draw_patches, paste
from omnimill.schema import Example, from_row


def done(source: Source, folder: Path) -> tuple[list[Commit], list[Example]]:
    dataset = Dataset(str(folder), "derived")
    commits = [process_unit(source, (), unit, dataset) for unit in source.units()]
    shards = (shard for commit in commits for shard in commit.shards)
    return commits, [from_row(row) for shard in shards for row in dataset.read(shard).to_pylist()]


def pairs_of(path: str, **options: Any) -> InterleavedPairsSource:
    return InterleavedPairsSource(type="interleaved_pairs", name="groups", path=path, **options)


def patches_of(path: str, **options: Any) -> PatchesSource:
    return PatchesSource(type="patches", name="shapes", path=path, **options)


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
        *shapes, count = example.annotations
        assert (count.kind, count.label) == ("count", str(len(shapes)))
        assert example.text == []
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


@settings(deadline=None)
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


@pytest.mark.ray
def test_lineage_finds_the_original_url_in_what_was_made_of_it(
    tmp_path: Path, root: str, make_dag: Callable[..., Dag], ray_local: None
) -> None:
    parent = ingested(tmp_path, "photos")["ROOT"] + "/photos"
    ingest(make_dag(pairs_of(parent), patches_of(parent)), root)
    found = find_examples(Catalog(root), "https://example.org/photos/2.jpg")
    assert sorted(place.commit.source for place in found) == ["groups", "shapes"]
    digest = done(patches_of(parent), tmp_path / "x")[1][0].provenance.digest
    assert sorted(place.commit.source for place in find_examples(Catalog(root), digest)) == ["groups", "shapes"]
