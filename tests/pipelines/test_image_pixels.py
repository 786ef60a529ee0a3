"""A picture is decoded once and encoded once, is stored without metadata, and comes out the same in any other way."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from omnimill.errors import BadRecord
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.base import Operator, Record
from omnimill.pipelines.decoders import pixels
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.pixels import Encoding, Picture, fitted, load_grey, load_rgb, shrink, wanting
from omnimill.pipelines.operators.image import ImageBlur, ImageResize, ImageSize, ImageUniform
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.sources.image_folder import ImageFolderSource
from omnimill.pipelines.verdicts import Outcome, decode, judge
from omnimill.schema import Example, Provenance, from_row

ANY = ImageSettings()
SECRET = b"48.8584 N, 2.2945 E"


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth picture with grain, so that scales and damage show."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([255 * x / width, 255 * y / height, 128 + 80 * np.sin(x / 9)], -1)
    return (smooth + draw.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)


def example(image: Picture) -> Example:
    return Example(id="i", source="s", unit="u", key="k", provenance=Provenance(uri="", digest=""), images=[image])


def encoded(rgb: np.ndarray, form: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, form, **options)
    return stream.getvalue()


def exif(orientation: int | None = None) -> Image.Exif:
    found = Image.Exif()
    found[0x010E] = SECRET.decode()
    found.get_ifd(0x8825)[1] = "N"
    if orientation is not None:
        found[0x0112] = orientation
    return found


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    return jpeg[:2] + bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body + jpeg[2:]


@pytest.mark.parametrize("progressive", [False, True])
def test_stored_jpegs_bring_no_metadata_and_the_same_pixels(progressive: bool) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    clean = encoded(noise(300, 200), quality=90, progressive=progressive, icc_profile=profile)
    dirty = with_segment(clean, 0xE1, b"Exif\0\0" + exif(1).tobytes()[6:])
    dirty = with_segment(dirty, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + SECRET)
    dirty = with_segment(dirty, 0xED, b"Photoshop 3.0\0" + SECRET)
    dirty = with_segment(dirty, 0xE2, b"MPF\0" + SECRET)
    dirty = with_segment(dirty, 0xFE, SECRET) + b"\0\0\0\x18ftypmp42" + SECRET
    image = decode_image(dirty, ANY)
    assert image.data == clean
    assert b"ICC_PROFILE" in image.data
    assert decode_image(clean, ANY).data is clean


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_stored_graphics_bring_no_metadata_and_the_same_pixels(form: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", SECRET.decode())
    words.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    options: dict[str, Any] = {"pnginfo": words} if form == "PNG" else {"lossless": True, "xmp": SECRET}
    rgb = noise(150, 140)
    dirty = encoded(rgb, form, exif=exif(), icc_profile=profile, **options) + (SECRET if form == "PNG" else b"")
    assert SECRET in dirty
    image = decode_image(dirty, ANY)
    assert SECRET not in image.data
    with Image.open(io.BytesIO(image.data)) as stored:
        assert stored.info["icc_profile"] == profile
        assert not stored.getexif()
        assert np.array_equal(np.asarray(stored), rgb)


def test_real_positions_are_not_stored(realdata: Path) -> None:
    for path in sorted((realdata / "images" / "exif").rglob("*.jp*g")):
        try:
            image = decode_image(path.read_bytes(), ANY)
        except BadRecord:
            continue
        with Image.open(io.BytesIO(image.data)) as stored:
            assert not stored.getexif(), path
            assert "xmp" not in stored.info, path


@settings(max_examples=60)
@given(st.sampled_from([False, True]), st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_damaged_jpegs_are_judged_alike_at_every_scale(progressive: bool, place: int, bytes_: bytes) -> None:
    whole = bytearray(encoded(noise(120, 90), quality=90, progressive=progressive))
    place %= len(whole) - len(bytes_)
    whole[place : place + len(bytes_)] = bytes_

    def verdict(wanted: Callable[[int, int], tuple[int, int]]) -> tuple[str, bytes | str]:
        try:
            with wanting(wanted):
                image = decode_image(bytes(whole), ANY)
            return "kept", image.data
        except BadRecord as bad:
            return "refused", bad.reason

    assert verdict(lambda w, h: (w, h)) == verdict(lambda w, h: (w // 3, h // 3)) == verdict(lambda w, h: (0, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_upright_at_every_scale(orientation: int) -> None:
    data = encoded(noise(400, 200), quality=95, exif=exif(orientation))
    whole = load_rgb(decode_image(data, ANY).settled())
    size = (400, 200) if orientation < 5 else (200, 400)
    assert whole.shape == (size[1], size[0], 3)
    with wanting(lambda w, h: (w // 4, h // 4)):
        image = decode_image(data, ANY)
    assert (image.width, image.height) == size
    assert image.pixels is not None
    assert image.pixels.shape == (size[1] // 4, size[0] // 4, 3)
    small = np.asarray(Image.fromarray(whole).resize((size[0] // 4, size[1] // 4), Image.Resampling.BOX))
    assert np.abs(image.pixels.astype(int) - small).mean() < 4
    assert np.array_equal(load_rgb(image.settled()), whole), "what is stored has all of the picture"


def test_pixels_come_no_larger_than_wanted_and_on_demand() -> None:
    data = encoded(noise(1600, 1200))
    with wanting(lambda w, h: fitted(w, h, 384, None)):
        image = decode_image(data, ANY)
    assert image.pixels is not None
    assert image.pixels.shape == (384, 512, 3)
    assert load_rgb(image).shape == (1200, 1600, 3)
    with wanting(lambda w, h: (0, 0)):
        assert decode_image(data, ANY).pixels is None


@pytest.mark.parametrize("size", [(683, 1024), (901, 577), (500, 375), (1999, 1001), (90, 70)])
def test_measuring_and_resizing_do_not_decode_again(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    resize = ImageResize(op="image_resize", short_side=384)
    operators = (ImageUniform(op="image_uniform"), ImageBlur(op="image_blur", min_variance=None), resize)
    data = encoded(noise(*size))
    record = Record("k", Provenance(uri="", digest=""), lambda: [example(decode_image(data, ANY))])
    outcome = decode(Outcome(record), operators)
    with monkeypatch.context() as patch:
        patch.setattr(pixels.simplejpeg, "decode_jpeg", None)
        judge([outcome], operators)
    assert outcome.rejection is None
    (image,) = outcome.examples[0].images
    assert (image.width, image.height) == fitted(*size, 384, None)


def test_many_pixels_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_MAX_HELD_PIXELS", 200 * 200)
    for form in ("PNG", "BMP", "JPEG"):
        image = decode_image(encoded(noise(300, 200), form), ANY)
        assert image.pixels is None
        assert len(image.data) == image.held_bytes
        assert load_grey(image, 64).shape == (43, 64)


def test_a_converted_picture_is_encoded_when_its_bytes_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    encode = pixels.encode
    monkeypatch.setattr(pixels, "encode", lambda *given: calls.append(given[0].shape) or encode(*given))
    image = decode_image(encoded(noise(600, 400), "BMP"), ANY)
    one = example(image)
    assert ImageUniform(op="image_uniform")([one]) == ImageBlur(op="image_blur")([one]) == [None]
    ImageResize(op="image_resize", short_side=200)([one])
    assert calls == []
    stored = one.images[0]
    assert len(stored.data) == len(stored.data) > 0
    assert calls == [(200, 300, 3)]


def test_shrinking_is_close_to_area_means() -> None:
    rgb = noise(900, 600)
    for share in (0.3, 0.7, 0.95):
        width, height = round(900 * share), round(600 * share)
        means = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BOX))
        assert np.abs(shrink(rgb, width, height).astype(int) - means).mean() < 4
    assert shrink(rgb, 900, 600) is rgb


def test_chroma_and_quality_are_as_set() -> None:
    image = decode_image(encoded(noise(600, 400)), ANY)
    sizes = {}
    for chroma in ("yuv420", "yuv444"):
        operator = ImageResize(op="image_resize", long_side=300, chroma=chroma, quality=80)
        one = example(image)
        operator([one])
        with Image.open(io.BytesIO(one.images[0].data)) as stored:
            sizes[chroma] = len(one.images[0].data), stored.layer[0][1]  # type: ignore[attr-defined]
    assert sizes["yuv420"][0] < sizes["yuv444"][0]
    assert (sizes["yuv420"][1], sizes["yuv444"][1]) == (2, 1)


def test_grey_stays_grey() -> None:
    image = decode_image(encoded(noise(400, 300)[:, :, 0]), ANY)
    assert image.pixels is not None
    assert image.pixels.shape == (300, 400)
    small = Picture.of_pixels(shrink(image.pixels, 200, 150), Encoding(), digest=image.digest)
    with Image.open(io.BytesIO(small.data)) as stored:
        assert stored.mode == "L"
    assert load_rgb(small).shape == (150, 200, 3)


class Pass(Operator):
    """Keeps everything; asked about batches, so that operators behind it are too."""

    op: Literal["pass"] = "pass"
    reads: ClassVar[tuple[str, ...]] = ("images",)

    def __call__(self, examples: Sequence[Example]) -> Sequence[str | None]:
        assert all(image.data for example in examples for image in example.images)
        return [None] * len(examples)


def test_batches_and_threads_do_not_change_what_is_stored(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(9):
        (folder / f"{i}.jpg").write_bytes(encoded(noise(300 + 40 * i, 260, i), exif=exif(1 + i % 8)))
    (folder / "b.bmp").write_bytes(encoded(noise(500, 400), "BMP"))
    (folder / "c.png").write_bytes(encoded(np.full((40, 60, 3), 7, np.uint8), "PNG"))
    (folder / "d.jpg").write_bytes(encoded(noise(300, 300))[:-2000])
    source = ImageFolderSource(type="image_folder", name="photos", path=str(folder))
    resize = ImageResize(op="image_resize", short_side=128)
    operators: list[Operator] = [ImageSize(op="image_size", min_side=50), ImageUniform(op="image_uniform")]
    operators.append(ImageBlur(op="image_blur"))
    found = []
    for threads, chain in ((1, [*operators, resize]), (3, [*operators, resize]), (2, [Pass(), *operators, resize])):
        dataset = Dataset(str(tmp_path / f"out{len(found)}"), "d")
        (unit,) = source.units()
        commit = process_unit(source, chain, unit, dataset, threads=threads)
        rows = [from_row(row) for ref in commit.shards for row in dataset.read(ref).to_pylist()]
        assert all(min(row.images[0].width, row.images[0].height) <= 128 for row in rows)
        names = {"image_short_side", "image_long_side", "image_std", "laplacian_variance"}
        assert all(set(row.meta.scores) == names for row in rows)
        found.append((commit.counts, rows))
    assert found[0] == found[1] == found[2]
    assert found[0][0].examples_dropped == {"image_too_small": 1}
    assert found[0][0].quarantined == {"image_truncated": 1}
