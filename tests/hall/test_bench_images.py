"""The benchmark of pictures: inputs like photographs, contestants that do the same, figures that say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnimill.bench.contest import Run
from omnimill.bench.ingest import images
from omnimill.bench.ingest.photos import SIZES, photo, scene, write_photos
from omnimill.bench.metric import OURS
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.pixels import fitted
from omnimill.pipelines.operators.image import ImageBlur, ImageUniform
from omnimill.schema import Example, Provenance


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_photos(tmp_path_factory.mktemp("bench") / "photos", len(SIZES))


def test_photos_have_the_sizes_and_entropy_of_photographs(photos: list[Path]) -> None:
    pictures = [decode_image(path.read_bytes(), ImageSettings()) for path in photos]
    assert [(one.width, one.height) for one in pictures] == list(SIZES)
    pixels = sum(width * height for width, height in SIZES)
    assert 1.5 < 8 * sum(path.stat().st_size for path in photos) / pixels < 2.1  # bits per pixel
    assert 0.45e6 < pixels / len(SIZES) < 0.55e6
    provenance = Provenance(uri="", digest="")
    examples = [Example(id="", source="", unit="", key="", provenance=provenance, images=[one]) for one in pictures]
    for operator in (ImageUniform(op="image_uniform"), ImageBlur(op="image_blur")):
        assert operator(examples) == [None] * len(examples), "the filters keep them"


def test_photos_are_the_same_in_every_run(photos: list[Path]) -> None:
    assert photo([scene(0)] * 16, 3) == photo([scene(0)] * 16, 3)
    assert len({path.read_bytes() for path in photos}) == len(photos)


def test_contestants_make_pictures_of_the_same_size(photos: list[Path]) -> None:
    for path, size in zip(photos, SIZES, strict=True):
        for function in (images.bare, images.usual):
            made = decode_image(function(path.read_bytes()), ImageSettings())
            assert (made.width, made.height) == fitted(*size, images.SHORT_SIDE, None)


def test_figures_compare_with_the_best_peer_and_the_ceiling() -> None:
    seconds = {images.CEILING: 1.0, OURS: 1.25, images.TARS: 2.0, "daft": 5.0, "img2dataset": 2.5}
    runs = {name: Run(100, took, 10**6) for name, took in seconds.items()}
    runs["daft" + images.GIVEN] = Run(100, 2.0, 10**6)
    speed, given, tars, *_ = images.metrics(runs)
    assert (speed.ours, speed.peers) == (80, {"daft": 20, "img2dataset": 40})
    assert (speed.ratio_to_best_peer, speed.ceiling_share) == (2, 0.8)
    assert (given.peers, given.ratio_to_best_peer) == ({"daft": 50}, 1.6)
    assert (tars.ours, tars.peers) == (50, {})
