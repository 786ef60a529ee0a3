"""Target pictures: where they lie on the canvas, what their files may hold, and that they read back."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omnimill.errors import BadRecord
from omnimill.schema import Annotation, Example, Target
from omnimill.tokenizers import dense, image, media
from omnimill.tokenizers.encoder import Encoder
from omnimill.tokenizers.map_files import SHAPES, decode_npy, render_map
from omnimill.tokenizers.optical_flow import decode_flow
from omnimill.tokenizers.store import Tokenizers
from omnimill.tokenizers.targets import TargetPicture, target_pictures
from omnimill.tokens import ImageLayout

HEIGHT, WIDTH, SIZE = 24, 40, 64
LAYOUT = ImageLayout(input_size=96, history_size=64, target_size=SIZE, codes=64)
RNG = np.random.default_rng(5)
DEPTH = RNG.uniform(0.5, 9.5, (HEIGHT, WIDTH)).astype(np.float32)
NORMALS = RNG.normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
FLOW = RNG.uniform(-6, 6, (HEIGHT, WIDTH, 2)).astype(np.float32)


def npy(array: npt.NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def picture(array: npt.NDArray[Any], form: str = "png", **options: Any) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(array).save(stream, form, **options)
    return stream.getvalue()


def of(samples: SimpleNamespace, *targets: Target, pictures: int = 1) -> Example:
    shown = [samples.picture(i, HEIGHT, WIDTH) for i in range(pictures)]
    made: Example = samples.example("s", 0, images=shown, targets=list(targets))
    return made


def only(made: Example) -> TargetPicture:
    (found,) = target_pictures(made, LAYOUT)
    return found


def shown(found: TargetPicture) -> image.ByteArray:
    """What the canvas shows of the picture, at its size; black around it."""
    rows, columns = image.placement(HEIGHT, WIDTH, SIZE)
    around = np.ones((SIZE, SIZE), bool)
    around[rows, columns] = False
    assert not found.canvas[around].any()
    assert (found.height, found.width) == (rows.stop - rows.start, columns.stop - columns.start)
    return dense.from_canvas(found.canvas, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("data", "form", "scale", "told", "error"),
    [
        (npy(DEPTH), "npy", None, DEPTH, 10 / 510),
        (npy(DEPTH.astype(np.float64)), "npy", None, DEPTH, 10 / 510),
        (npy(np.asfortranarray(DEPTH.astype(">f4"))), "npy", None, DEPTH, 10 / 510),
        (picture(np.rint(DEPTH * 1000).astype(np.uint16)), "png", 0.001, DEPTH, 10 / 510 + 0.0005),
        (picture(np.rint(DEPTH * 20).astype(np.uint8)), "png", 0.05, DEPTH, 10 / 510 + 0.025),
        (picture(np.rint(DEPTH * 20).astype(np.uint8), "webp", lossless=True), "webp", 0.05, DEPTH, 10 / 510 + 0.025),
    ],
)
def test_depth_reads_back_in_metres(
    samples: SimpleNamespace, data: bytes, form: str, scale: float | None, told: npt.NDArray[Any], error: float
) -> None:
    found = only(of(samples, Target(kind="depth", data=data, format=form, scale=scale, item=3)))
    assert (found.role, found.image, found.item) == ("depth", 0, 3)
    assert np.abs(dense.decode_depth(shown(found)) - told).max() <= error + 1e-5


def test_what_is_not_measured_is_black_and_its_codes_are_told(samples: SimpleNamespace) -> None:
    holes = DEPTH.copy()
    holes[:5] = 0
    holes[5:9] = np.nan
    target = only(of(samples, Target(kind="depth", data=npy(holes), format="npy")))
    found = shown(target)
    assert not found[:9].any()
    assert found[9:].all()
    # 38 rows of the canvas from row 13 on, of which the first 14 (of 24: 9) are not known; codes of 8 rows each.
    assert target.known is not None
    known = target.known.reshape(8, 8)
    np.testing.assert_array_equal(known.all(axis=1), [True, True, False, True, True, True, True, True])
    packed = dense.pack_known(target.known)
    np.testing.assert_array_equal(dense.unpack_known(packed, 64), target.known)
    assert dense.pack_known(np.ones(64, bool)) is None
    assert dense.unpack_known(None, 64).all()


@pytest.mark.parametrize(
    ("data", "form", "degrees"),
    [(npy(NORMALS), "npy", 0.4), (picture(dense.encode_normals(NORMALS)[0]), "png", 0.8)],
)
def test_normals_read_back_as_directions(samples: SimpleNamespace, data: bytes, form: str, degrees: float) -> None:
    found = only(of(samples, Target(kind="normals", data=data, format=form)))
    told = NORMALS / np.linalg.norm(NORMALS, axis=-1, keepdims=True)
    cosine = (dense.decode_normals(shown(found)) * told).sum(axis=-1)
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() <= degrees


@pytest.mark.parametrize("scale", [None, 20.0])
def test_flow_reads_back_in_pixels_of_its_scale(samples: SimpleNamespace, scale: float | None) -> None:
    target = Target(kind="flow", data=npy(FLOW), format="npy", scale=scale, image=1)
    found = only(of(samples, target, pictures=2))
    assert (found.role, found.image) == ("flow", 1)
    maximum = scale or float(np.hypot(*np.moveaxis(FLOW, -1, 0)).max())
    assert np.abs(decode_flow(shown(found), maximum) - FLOW).max() <= maximum * 0.02


def test_flow_without_motion_and_flow_in_colours(samples: SimpleNamespace) -> None:
    still = npy(np.zeros_like(FLOW))
    found = shown(only(of(samples, Target(kind="flow", data=still, format="npy"))))
    assert (found == 255).all()
    colours = picture(found - 100)
    assert (shown(only(of(samples, Target(kind="flow", data=colours, format="png")))) == 155).all()


def test_a_map_may_be_of_another_size_than_its_picture(samples: SimpleNamespace) -> None:
    halves = np.repeat([[1.0], [4.0]], 3 * HEIGHT // 2, axis=0).repeat(3 * WIDTH, axis=1).astype(np.float32)
    found = dense.decode_depth(shown(only(of(samples, Target(kind="depth", data=npy(halves), format="npy")))))
    assert np.abs(found[: HEIGHT // 2] - 1).max() < 0.02
    assert np.abs(found[HEIGHT // 2 :] - 4).max() < 0.02


def test_a_picture_has_a_shape_of_its_own(samples: SimpleNamespace) -> None:
    tall = samples.pixels(7, 80, 20)
    found = only(of(samples, Target(kind="picture", role="edited", data=picture(tall), format="png", item=1)))
    assert (found.role, found.image, found.item) == ("edited", None, 1)
    assert (found.height, found.width) == (64, 16)
    np.testing.assert_array_equal(found.canvas, media.target(tall, LAYOUT).canvas)


@given(height=st.integers(1, 3000), width=st.integers(1, 3000))
@settings(max_examples=50)
def test_the_codes_that_are_not_padding_are_told_by_height_and_width(height: int, width: int) -> None:
    sides = image.scaled_size(height, width, SIZE)
    covered = image.covered_patches(*sides, SIZE, LAYOUT.code_stride)
    np.testing.assert_array_equal(covered, image.valid_patches(height, width, SIZE, LAYOUT.code_stride))


def depth(data: bytes, form: str = "npy", **told: Any) -> Target:
    return Target(kind="depth", data=data, format=form, **told)


LIE = npy(DEPTH).replace(b"(24, 40)", b"(99999, 99999)")
BAD: dict[str, tuple[Target, str]] = {
    "unknown kind": (Target(kind="heat", data=b"", format="png"), "target_kind_unknown"),
    "no npy": (depth(b"\x93NUMPY"), "npy_malformed"),
    "cut npy": (depth(npy(DEPTH)[:-1]), "npy_malformed"),
    "longer npy": (depth(npy(DEPTH) + b"x"), "npy_malformed"),
    "a shape that lies": (depth(npy(DEPTH).replace(b"(24, 40)", b"(25, 40)")), "npy_malformed"),
    "a shape beyond all memory": (depth(LIE), "depth_too_large"),
    "deeply nested header": (depth(npy(DEPTH).replace(b"(24, 40), }", b"(" * 11)), "npy_malformed"),
    "objects": (depth(npy(np.array([[None]], object), allow_pickle=True)), "npy_malformed"),
    "integers": (depth(npy(DEPTH.astype(np.int64))), "npy_malformed"),
    "other axes": (depth(npy(NORMALS)), "depth_shape"),
    "flow of three": (Target(kind="flow", data=npy(NORMALS), format="npy"), "flow_shape"),
    "nothing known": (depth(npy(np.zeros_like(DEPTH))), "depth_unknown"),
    "no pixel": (depth(npy(DEPTH[:0])), "dense_empty"),
    "another shape": (depth(npy(DEPTH[:, :20])), "depth_shape_mismatch"),
    "no scale": (depth(picture(DEPTH.astype(np.uint8)), "png"), "depth_scale"),
    "a scale of nothing": (depth(picture(DEPTH.astype(np.uint8)), "png", scale=0.0), "depth_scale"),
    "a scale that is none": (Target(kind="flow", data=npy(FLOW), format="npy", scale=float("nan")), "flow_scale"),
    "depth in colours": (depth(picture(dense.encode_normals(NORMALS)[0]), "png", scale=1.0), "depth_undecodable"),
    "no picture": (depth(b"GIF89a", "png", scale=1.0), "depth_undecodable"),
    "no normals": (Target(kind="normals", data=b"", format="png"), "image_undecodable"),
    "no edit": (Target(kind="picture", data=npy(DEPTH), format="npy"), "image_undecodable"),
    "of no picture": (depth(npy(DEPTH), image=1), "image_index_invalid"),
    "an edit of no picture": (Target(kind="picture", data=b"", format="png", image=3), "image_index_invalid"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_target_has_a_reason(samples: SimpleNamespace, name: str) -> None:
    target, reason = BAD[name]
    with pytest.raises(BadRecord) as caught:
        only(of(samples, target))
    assert caught.value.reason == reason
    assert "0x" not in caught.value.message


def test_of_several_pictures_a_map_says_its_own(samples: SimpleNamespace) -> None:
    with pytest.raises(BadRecord) as caught:
        only(of(samples, depth(npy(DEPTH)), pictures=2))
    assert caught.value.reason == "annotation_without_image"


def test_a_map_that_is_too_large_is_not_decoded(monkeypatch: pytest.MonkeyPatch, samples: SimpleNamespace) -> None:
    monkeypatch.setattr(image, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    for target in (depth(npy(DEPTH)), depth(picture(DEPTH.astype(np.uint16)), "png", scale=0.01)):
        with pytest.raises(BadRecord) as caught:
            only(of(samples, target))
        assert caught.value.reason == "depth_too_large"


@given(kind=st.sampled_from(list(SHAPES)), place=st.integers(0, 150), change=st.binary(min_size=1, max_size=12))
@settings(max_examples=150)
@example(kind="depth", place=10, change=b"\x00")
def test_damaged_arrays_are_bad_records_and_nothing_else(kind: str, place: int, change: bytes) -> None:
    data = npy({"depth": DEPTH, "normals": NORMALS, "flow": FLOW}[kind])
    damaged = data[:place] + change + data[place + len(change) :]
    try:
        array = decode_npy(damaged, kind)
    except BadRecord:
        return
    assert array.nbytes <= len(data)


@given(values=st.lists(st.floats(width=32), min_size=8, max_size=8), kind=st.sampled_from(["depth", "flow"]))
@settings(max_examples=60)
def test_any_numbers_make_a_picture(values: list[float], kind: str) -> None:
    array = np.array(values, np.float32).reshape((2, 4) if kind == "depth" else (2, 2, 2))
    target = Target(kind=kind, data=npy(array), format="npy")
    try:
        canvas, known = render_map(target, *array.shape[:2], ImageLayout(target_size=16, code_stride=2))
    except BadRecord as bad:
        assert bad.reason == f"{kind}_unknown"
        return
    assert canvas.shape == (16, 16, 3)
    assert canvas[1::2, 1::2].any(axis=-1).ravel()[~known].sum() == 0


def test_a_row_holds_masks_then_targets(samples: SimpleNamespace, tokenizers: Tokenizers) -> None:
    made = of(
        samples,
        Target(kind="picture", role="edited", data=picture(samples.pixels(7, 80, 20)), format="png", item=1),
        depth(npy(DEPTH)),
    )
    made.annotations = [Annotation(kind="region", mask=samples.mask_of(made), item=0)]
    encoder = Encoder(tokenizers)
    (row,) = encoder.submit(lambda: [made], 3)().rows.to_pylist()
    encoder.close()
    assert row["target_roles"] == ["segmentation", "edited", "depth"]
    assert (row["target_images"], row["target_items"]) == ([0, None, 0], [0, 1, None])
    assert (row["target_heights"], row["target_widths"]) == ([19, 32, 19], [32, 8, 32])
    canvases = np.stack([found.canvas for found in target_pictures(made, tokenizers.layout.image)])
    np.testing.assert_array_equal(row["target_codes"], tokenizers.image.encode(canvases))
    assert row["target_codes_lengths"] == [16] * 3
    assert row["target_known"] == [None, None, None]
