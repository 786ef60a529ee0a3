"""Masks of polygons are COCO's; a pickle is read without ever being run."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image as Pillow
from pycocotools import mask as coco

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.class_pixels import class_numbers, class_pixels, segment_ids
from omnimill.pipelines.decoders.masks import Mask
from omnimill.pipelines.decoders.plain_pickle import read_plain_pickle
from omnimill.pipelines.decoders.polygons import decode_segmentation, polygon_mask

HEIGHT, WIDTH = 24, 36
POINTS = st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT))


def border(mask: Mask) -> Mask:
    """Pixels that touch one of the other kind."""
    padded = np.pad(mask, 1, mode="edge")
    sides = [
        padded[1 + y : 1 + y + mask.shape[0], 1 + x : 1 + x + mask.shape[1]] for y in (-1, 0, 1) for x in (-1, 0, 1)
    ]
    return np.logical_or.reduce(sides) & ~np.logical_and.reduce(sides)


@given(st.tuples(st.floats(8, WIDTH - 8), st.floats(8, HEIGHT - 8)), st.lists(st.floats(2, 7), min_size=5, max_size=12))
def test_a_polygon_covers_what_cocos_own_tools_draw_but_for_its_border(
    centre: tuple[float, float], radii: list[float]
) -> None:
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    corners = np.stack([centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles)], axis=1)
    polygon = corners.ravel().tolist()
    theirs = coco.decode(coco.frPyObjects([polygon], HEIGHT, WIDTH))[..., 0].astype(bool)
    ours = polygon_mask(polygon, HEIGHT, WIDTH)
    assert not ((ours != theirs) & ~border(ours) & ~border(theirs)).any()
    np.testing.assert_array_equal(decode_segmentation([polygon, [0, 0, 4, 0, 4, 4, 0, 4]], HEIGHT, WIDTH)[:4, :4], True)


@given(st.lists(st.floats(-1e9, 1e9) | st.sampled_from([0.0, 36.0, 1e300, -1e300]), min_size=6, max_size=20))
@example([0.0, 0.0, 1e308, -1e308, -1e308, 1e308])
def test_any_numbers_are_a_mask_or_are_turned_down(polygon: list[float]) -> None:
    try:
        assert polygon_mask(polygon, HEIGHT, WIDTH).shape == (HEIGHT, WIDTH)
    except BadRecord as verdict:
        assert verdict.reason == "mask_malformed"


@pytest.mark.parametrize("polygon", [[1, 2, 3, 4], [1, 2, 3, 4, 5], "abc", [1, 2, 3, 4, 5, float("nan")], [0] * 50_000])
def test_what_is_no_polygon_is_refused(polygon: Any) -> None:
    with pytest.raises(BadRecord, match="polygon"):
        polygon_mask(polygon, HEIGHT, WIDTH)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_numbers_of_pixels() -> None:
    grey = np.array([[0, 7], [7, 255]], np.uint8)
    np.testing.assert_array_equal(class_numbers(png(grey)), grey)
    np.testing.assert_array_equal(class_pixels(class_numbers(png(grey)), 7), [[False, True], [True, False]])
    deep = np.array([[0, 60_000]], np.uint16)
    np.testing.assert_array_equal(class_numbers(png(deep)), deep)
    colours = np.array([[[1, 2, 3]]], np.uint8)
    assert segment_ids(png(colours)).tolist() == [[1 + 2 * 256 + 3 * 65536]]
    for data, size, reason in (
        (png(colours), None, "mask_undecodable"),
        (png(grey), (3, 2), "mask_size_mismatch"),
        (png(grey)[:40], None, "mask_undecodable"),
        (b"no picture", None, "mask_undecodable"),
    ):
        with pytest.raises(BadRecord) as verdict:
            class_numbers(data, size)
        assert verdict.value.reason == reason


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-99, 99), inner),
    max_leaves=10,
)


@given(PLAIN, st.integers(0, 5))
def test_plain_values_are_read_as_they_were_written(value: Any, protocol: int) -> None:
    assert read_plain_pickle(pickle.dumps(value, protocol)) == value


def test_texts_of_python_2_and_tuples() -> None:
    # As Python 2 wrote {'sent': 'caf\xc3\xa9', 'ids': (1, 2, 3, 4)} in protocol 0 and 2.
    text = b"(dp0\nS'sent'\np1\nS'the dog'\np2\nsS'ids'\np3\n(I1\nI2\nI3\nI4\ntp4\ns."
    assert read_plain_pickle(text) == {"sent": "the dog", "ids": [1, 2, 3, 4]}
    assert read_plain_pickle(b"\x80\x02U\x05caf\xc3\xa9q\x00.") == "café"


class Attack:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_program_in_a_pickle_is_refused_and_not_run(protocol: int, tmp_path: Path) -> None:
    data = pickle.dumps([{"sent": "harmless"}, Attack(str(tmp_path / "pwned"))], protocol)
    with pytest.raises(BadRecord) as verdict:
        read_plain_pickle(data)
    assert verdict.value.reason == "pickle_refused"
    assert not (tmp_path / "pwned").exists()


def test_values_that_would_be_larger_than_memory_are_refused() -> None:
    bomb: list[Any] = ["x"]
    for _ in range(64):
        bomb = [bomb, bomb]
    for data in (pickle.dumps(bomb), pickle.dumps(1 << 4000), pickle.dumps(2**63)):
        with pytest.raises(BadRecord) as verdict:
            read_plain_pickle(data)
        assert verdict.value.reason == "pickle_refused"


@given(st.binary(max_size=40), st.data())
def test_any_bytes_are_a_value_or_are_turned_down(data: bytes, draw: st.DataObject) -> None:
    whole = pickle.dumps([{"sent": "the dog", "ids": [1, 2, 3]}], draw.draw(st.integers(0, 5)))
    place = draw.draw(st.integers(0, len(whole)))
    for damaged in (data, whole[:place], whole[:place] + data + whole[place:]):
        try:
            read_plain_pickle(damaged)
        except BadRecord as verdict:
            assert verdict.reason in ("pickle_refused", "pickle_malformed")
