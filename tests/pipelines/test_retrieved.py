"""Retrieval augmentation: who is a neighbour, and what the document of an example and its neighbours is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts.images import ingested

from omnimill.infra.dataset import Dataset
from omnimill.pipelines import neighbours
from omnimill.pipelines.neighbours import NeighbourIndex, document_vectors, drop_words
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.sources.retrieved import RetrievedSource
from omnimill.rng import generator
from omnimill.schema import Example, from_row
from tests import tiny_models


def unit_vectors(count: int, width: int = 16) -> neighbours.Vectors:
    drawn = generator("vectors", count).normal(size=(count, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_a_document_is_the_mean_of_its_picture_and_its_text() -> None:
    images, texts = unit_vectors(4), unit_vectors(5)[:4]
    images[1], texts[2] = 0, 0
    images[3] = texts[3] = 0
    found = document_vectors(images, texts)
    mean = (images[0] + texts[0]) / 2
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean), rtol=1e-6)
    np.testing.assert_allclose(found[1], texts[1], rtol=1e-6)
    np.testing.assert_allclose(found[2], images[2], rtol=1e-6)
    assert not found[3].any()


def test_nearly_the_same_are_passed_over() -> None:
    """Those above the limit, not those below it."""
    angles = np.radians([0, 5, 40, 44, 80])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    index = NeighbourIndex(vectors)
    found = index.neighbours(0, vectors[0], count=3, most_alike=0.9, candidates=5)
    # 5 degrees from the document itself, and 44 from 40, are nearly the same (cosines above 0.99).
    assert [row for row, _ in found] == [2, 4]
    np.testing.assert_allclose([score for _, score in found], np.cos(angles[[2, 4]]), rtol=1e-5)
    assert [row for row, _ in index.neighbours(0, vectors[0], 3, most_alike=1.0, candidates=5)] == [1, 2, 3]
    # What is looked for by is the query; what is the same is told by the documents.
    assert [row for row, _ in index.neighbours(0, vectors[4], 1, most_alike=0.9, candidates=5)] == [4]


@pytest.mark.parametrize("exact", [True, False])
def test_the_index_finds_what_a_look_at_all_finds(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exact:
        monkeypatch.setattr(neighbours, "_EXACT", 0)
    vectors = unit_vectors(400)
    _, rows = NeighbourIndex(vectors).search(vectors[:50], 10)
    wanted = np.argsort(-(vectors[:50] @ vectors.T), axis=1, kind="stable")[:, :10]
    hits = np.mean([len({*one} & {*other}) / 10 for one, other in zip(rows.tolist(), wanted.tolist(), strict=True)])
    assert hits == 1.0 if exact else hits > 0.9
    again = NeighbourIndex(vectors).search(vectors[:50], 10)[1]
    assert (rows == again).all()


def test_words_are_dropped_by_their_share_and_never_all() -> None:
    text = " ".join(f"w{number}" for number in range(2000))
    kept = drop_words(text, 0.2, 1, "a").split()
    assert 0.75 < len(kept) / 2000 < 0.85
    assert drop_words(text, 0.2, 1, "a").split() == kept != drop_words(text, 0.2, 1, "b").split()
    assert drop_words("one", 0.99, 1, "a") == "one"
    assert drop_words("all of it", 0.0, 1, "a") == "all of it"
    assert drop_words("", 0.5, 1, "a") == ""


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An ingested dataset of 8 pairs and a text, in two shards."""
    return ingested(tmp_path_factory.mktemp("parent"), "photos")["ROOT"] + "/photos"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_models.clip(tmp_path_factory.mktemp("clip")))


def retrieved(parent: str, model: str, folder: Path, **options: Any) -> tuple[list[Any], list[Example]]:
    plain = {"type": "retrieved", "name": "augmented", "path": parent, "model": model, "vectors": str(folder / "v")}
    # Random weights find everything alike.
    source = RetrievedSource.model_validate({**plain, "most_alike": 1.0, **options})
    dataset = Dataset(str(folder), "derived")
    commits = [process_unit(source, (), unit, dataset) for unit in source.units()]
    shards = [shard for commit in commits for shard in commit.shards]
    return commits, [from_row(row) for shard in shards for row in dataset.read(shard).to_pylist()]


def test_neighbours_stand_before_the_example(parent: str, model: str, tmp_path: Path) -> None:
    whole = Dataset(*parent.rsplit("/", 1))
    members = {
        row["id"]: from_row(row)
        for commit in whole.manifest()[1].commits
        for shard in commit.shards
        for row in whole.read(shard).to_pylist()
    }
    commits, examples = retrieved(parent, model, tmp_path, neighbours=2, separator="--")
    assert len(examples) == len(members)
    for example in examples:
        own = members[example.key]
        before = [members[one] for one in example.meta.tags["neighbours"].split()]
        assert len(before) == 2 and own.id not in {one.id for one in before}
        document = [text for text in example.text if text.role == "retrieved"]
        separators = [text for text in document if text.text == "--"]
        assert len(separators) == 2
        # In reading order: a text, the picture that goes with it, a separator, …
        pictures = [image.digest for member in (*before, own) for image in member.images[:1]]
        assert [image.digest for image in example.images] == pictures
        assert [text.image or 0 for text in document] == sorted(text.image or 0 for text in document)
        assert example.provenance.uri == own.provenance.uri
        kept = [text for text in example.text if text.role != "retrieved"]
        assert {text.text for text in kept} <= {text.text for text in own.text}
        assert all(text.image in (None, len(example.images) - 1) for text in kept)
        scores = [example.meta.scores[f"neighbour_{number}"] for number in (1, 2)]
        assert scores == sorted(scores)
    # The same once more, from the vectors that are there, and from new ones.
    again, _ = retrieved(parent, model, tmp_path, neighbours=2, separator="--")
    other, _ = retrieved(parent, model, tmp_path / "other", neighbours=2, separator="--")
    assert [one.shards for one in commits] == [one.shards for one in again] == [one.shards for one in other]
