"""Near-duplicate pictures: perceptual hashes, bands, links."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_rows import Pixels, make_row, photo, stored

from omnimill.pipelines.dedup.base import NODE
from omnimill.pipelines.dedup.image_hash import BITS, distances, hash_bands, hash_picture
from omnimill.pipelines.dedup.steps.image_near import ImageNear
from omnimill.rng import generator
from omnimill.schema import Image, to_table

SAME: dict[str, Callable[[Pixels], Pixels]] = {
    "half the size": lambda rgb: cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "stretched": lambda rgb: cv2.resize(rgb, (300, 300), interpolation=cv2.INTER_LINEAR),
    "grey": lambda rgb: np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2),
    "brighter": lambda rgb: cv2.convertScaleAbs(rgb, alpha=1.1, beta=8),
    "cut by 1 % on each side": lambda rgb: np.ascontiguousarray(rgb[2:-2, 3:-3]),
    "mirrored": lambda rgb: np.ascontiguousarray(rgb[:, ::-1]),
}


def table_of(*rows: list[Image]) -> pa.Table:
    return to_table(make_row("s", str(i), images=images) for i, images in enumerate(rows))


def links(step: ImageNear, table: pa.Table) -> set[tuple[int, int]]:
    count = table.num_rows
    zeros, index = np.zeros(count, np.uint64), np.arange(count)
    node = [zeros.astype(np.uint32), index.astype(np.uint32), zeros, zeros, index.astype(np.uint64)]
    features = step.featurizer()(table.select(["images"]))
    edges = step.link(step.keyed(pa.table([*node, features.column("hash")], names=[*NODE.names, "hash"])))
    return set(zip(edges.column("b_row").to_pylist(), edges.column("a_row").to_pylist(), strict=True))


@pytest.fixture(scope="module")
def photos() -> list[Pixels]:
    return [photo(i) for i in range(20)]


@pytest.mark.parametrize("change", SAME)
def test_copies_are_linked_with_their_original_and_with_nothing_else(change: str, photos: list[Pixels]) -> None:
    copies = [stored(SAME[change](rgb), quality=60) for rgb in photos]
    table = table_of(*([stored(rgb)] for rgb in photos), *([copy] for copy in copies))
    assert links(ImageNear(step="image_near"), table) == {(i, 20 + i) for i in range(20)}


def test_mirror_images_are_copies_only_when_asked_for() -> None:
    rgb = photo("mirror")
    table = table_of([stored(rgb)], [stored(SAME["mirrored"](rgb))])
    assert links(ImageNear(step="image_near", mirrored=True), table) == {(0, 1)}
    assert links(ImageNear(step="image_near", mirrored=False), table) == set()


def test_rows_with_several_pictures_or_a_plain_one_have_no_twins() -> None:
    rgb, plain = stored(photo("several")), stored(np.full((64, 64, 3), 200, np.uint8))
    broken = Image(data=b"\xff\xd8\xff", format="jpeg", width=8, height=8, digest="0" * 64)
    table = table_of([rgb], [rgb, rgb], [], [plain], [plain], [broken], [broken])
    assert links(ImageNear(step="image_near"), table) == set()


@settings(max_examples=50)
@given(st.integers(8, 64), st.data())
def test_hashes_share_a_band_if_few_of_the_lowest_bits_differ(bits: int, data: st.DataObject) -> None:
    flips = data.draw(st.sets(st.integers(0, 63), max_size=64 // bits - 1))
    both = np.repeat(generator("bits", bits).integers(0, 2, (1, BITS)).astype(np.uint8), 2, axis=0)
    both[1, list(flips)] ^= 1
    both[1, 64:] ^= 1
    hashes = np.packbits(both, axis=1)
    assert distances(hashes[:1], hashes[1:]).tolist() == [len(flips) + BITS - 64]
    keys = hash_bands(hashes, 64 // bits, bits)
    assert np.any(keys[0] == keys[1])


def test_the_hash_of_the_mirror_image_comes_with_the_hash() -> None:
    rgb = photo("both")
    straight, turned = hash_picture(stored(rgb, 100)), hash_picture(stored(SAME["mirrored"](rgb), 100))
    assert straight is not None and turned is not None
    assert distances(straight, turned[::-1]).max() <= 8
