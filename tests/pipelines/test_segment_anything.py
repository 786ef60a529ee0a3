"""Masks of Segment Anything: what COCO's own tools wrote is drawn, and lies about sizes draw nothing."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from pycocotools import mask as coco

from omnimill import rng
from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.masks import decode_rle, mask_png
from omnimill.pipelines.sources.segment_anything import SegmentAnythingSource
from omnimill.schema import Example

Read = Callable[[SegmentAnythingSource], tuple[list[Example], dict[str, str]]]

WIDTH, HEIGHT = 48, 32


def picture(name: str, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    stream = io.BytesIO()
    noise = rng.generator("sa", name).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Pillow.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


def rle(mask: np.ndarray) -> dict[str, Any]:
    told = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(told["size"]), "counts": told["counts"].decode()}


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def masks(*annotations: dict[str, Any], **image: Any) -> bytes:
    said = {"image_id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "sa_1.jpg", **image}
    return json.dumps({"image": said, "annotations": annotations}).encode()


def annotation(top: int = 8, left: int = 12, bottom: int = 16, right: int = 36, **other: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "segmentation": rle(rectangle(top, left, bottom, right)),
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "predicted_iou": 0.93,
        "stability_score": 0.97,
        "crop_box": [0.0, 0.0, WIDTH, HEIGHT],
        "point_coords": [[24.0, 12.0]],
        **other,
    }


def source(path: Path, **settings: Any) -> SegmentAnythingSource:
    return SegmentAnythingSource(type="segment_anything", name="sa", path=str(path), **settings)


def drawn(data: bytes) -> np.ndarray:
    with Pillow.open(io.BytesIO(data)) as opened:
        assert (opened.format, opened.mode) == ("PNG", "1")
        return np.asarray(opened)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.floats(0, 1))
def test_masks_are_what_was_encoded(height: int, width: int, seed: int, share: float) -> None:
    mask = rng.generator("mask", seed).random((height, width)) < share
    decoded = decode_rle(rle(mask), height, width)
    np.testing.assert_array_equal(decoded, mask)
    np.testing.assert_array_equal(drawn(mask_png(decoded)), mask)
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], mask.T.ravel(), [2]]).astype(int))))
    counts = [*([0] if mask.T.ravel()[0] else []), *map(int, runs)]
    np.testing.assert_array_equal(decode_rle({"size": [height, width], "counts": counts}, height, width), mask)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=130), max_size=40) | st.lists(st.integers(-5, 99)))
def test_any_runs_fit_the_picture_or_are_turned_down(counts: str | list[int]) -> None:
    try:
        mask = decode_rle({"size": [6, 4], "counts": counts}, 6, 4)
    except BadRecord as verdict:
        assert verdict.reason == "mask_malformed"
    else:
        assert mask.shape == (6, 4)


def test_a_picture_with_its_masks(tmp_path: Path, read_source: Read) -> None:
    (tmp_path / "sa_1.jpg").write_bytes(picture("a"))
    (tmp_path / "sa_1.json").write_bytes(masks(annotation(), annotation(0, 0, 32, 48, point_coords=[])))
    (example,), verdicts = read_source(source(tmp_path))
    assert verdicts == {"sa_1.jpg": "kept", "sa_1.json": "sidecar"}
    first, second = example.annotations
    assert (first.kind, first.image, first.score) == ("region", 0, 0.93)
    assert first.box == [0.25, 0.25, 0.5, 0.75]
    assert first.points == [12 / 32, 0.5]
    assert second.points is None
    assert first.mask is not None
    np.testing.assert_array_equal(drawn(first.mask), rectangle(8, 12, 16, 36))


def test_a_tar_gives_what_the_folder_gives(tmp_path: Path, read_source: Read) -> None:
    with tarfile.open(tmp_path / "sa_000000.tar", "w") as archive:
        members = {
            "./sa_1.jpg": picture("a"),
            "./sa_1.json": masks(annotation()),
            "./sa_2.json": masks(annotation()),
            "./sa_3.jpg": picture("c"),
            "./sa_3.json": b"{",
        }
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (example,), verdicts = read_source(source(tmp_path))
    assert verdicts == {
        "sa_000000.tar/sa_1": "kept",
        "sa_000000.tar/sa_2": "sample_incomplete",
        "sa_000000.tar/sa_3": "invalid_json",
    }
    assert [one.box for one in example.annotations] == [[0.25, 0.25, 0.5, 0.75]]


def test_of_many_masks_some_are_drawn_the_same_ones_every_time(tmp_path: Path, read_source: Read) -> None:
    (tmp_path / "sa_1.jpg").write_bytes(picture("a"))
    (tmp_path / "sa_1.json").write_bytes(masks(*(annotation(i, i, i + 2, i + 2) for i in range(20))))
    boxes = [
        [one.box for one in read_source(source(tmp_path, masks_per_example=5))[0][0].annotations] for _ in range(2)
    ]
    assert boxes[0] == boxes[1]
    assert len(boxes[0]) == 5


HUGE = {"size": [HEIGHT, WIDTH], "counts": [2**62, 2**62]}


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (masks(annotation(), width=100), "mask_size_mismatch"),
        (masks(annotation(segmentation={"size": [9, 9], "counts": "0"})), "mask_size_mismatch"),
        (masks(annotation(segmentation={"size": [10**6, 10**6], "counts": "0"})), "mask_size_mismatch"),
        (masks(annotation(segmentation=HUGE)), "mask_malformed"),
        (masks(annotation(segmentation={**HUGE, "counts": "ooooooooooooooooooo"})), "mask_malformed"),
        (masks(annotation(segmentation=[[1, 2, 3, 4]])), "mask_malformed"),
        (masks(annotation(bbox=[1, 2, None, 4])), "mask_malformed"),
        (masks(annotation(point_coords=[[1e400, 2]])), "mask_malformed"),
        (b'{"image": {}, "annotations": 3}', "no_masks"),
        (b"[1]", "no_masks"),
    ],
)
def test_masks_that_lie(told: bytes, reason: str, tmp_path: Path, read_source: Read) -> None:
    (tmp_path / "sa_1.jpg").write_bytes(picture("a"))
    (tmp_path / "sa_1.json").write_bytes(told)
    assert read_source(source(tmp_path))[1]["sa_1.jpg"] == reason
