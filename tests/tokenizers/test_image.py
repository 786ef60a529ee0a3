"""Pictures on canvases: geometry, values, masks, patches, decoding of odd files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from omnimill.errors import BadRecord
from omnimill.tokenizers import image

Picture = image.ByteArray


def noise(height: int, width: int) -> Picture:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_landscape_is_scaled_and_centred_on_black() -> None:
    white = np.full((60, 100, 3), 255, np.uint8)
    canvas, mask = image.to_canvas(white, 384)
    assert image.scaled_size(60, 100, 384) == (230, 384)
    rows = np.flatnonzero(mask.any(axis=1))
    assert (rows[0], rows[-1], mask.all(axis=0).any()) == (77, 306, False)
    np.testing.assert_array_equal(canvas[mask], 1.0)
    np.testing.assert_array_equal(canvas[~mask], 0.0)


def test_shrinking_averages_and_growing_interpolates() -> None:
    # Two columns, black and white: to one pixel they average, to four they are 0, 1/4, 3/4, 1 (half-pixel centres).
    pair = np.zeros((2, 2, 3), np.uint8)
    pair[:, 1] = 255
    grown = image.resize(pair, 4, 4)
    np.testing.assert_allclose(grown[0, :, 0], [0.0, 0.25, 0.75, 1.0], atol=1e-6)
    np.testing.assert_allclose(image.resize(pair, 1, 1)[0, 0], 0.5, atol=1e-6)


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([(384, 16), (256, 8), (64, 8), (32, 8)]))
def test_valid_patches_are_the_mask_at_patch_centres(height: int, width: int, sizes: tuple[int, int]) -> None:
    size, patch = sizes
    rows, columns = image.placement(height, width, size)
    mask = np.zeros((size, size), bool)
    mask[rows, columns] = True
    sampled = mask[patch // 2 :: patch, patch // 2 :: patch]
    np.testing.assert_array_equal(image.valid_patches(height, width, size, patch), sampled.reshape(-1))
    assert max(rows.stop - rows.start, columns.stop - columns.start) in (size, size - 1)


@given(st.integers(1, 300), st.integers(1, 300))
def test_fit_only_shrinks_and_keeps_the_shape(height: int, width: int) -> None:
    fitted = image.fit(noise(height, width), 64)
    assert max(fitted.shape[:2]) == min(64, max(height, width)) or max(fitted.shape[:2]) == 63
    if max(height, width) <= 64:
        assert fitted.shape[:2] == (height, width)


def test_patch_values_run_over_row_column_channel() -> None:
    canvas = np.arange(4 * 4 * 3, dtype=np.float32).reshape(4, 4, 3)
    patches = image.patchify(canvas, 2)
    assert patches.shape == (4, 12)
    np.testing.assert_array_equal(patches[1], [*range(6, 12), *range(18, 24)])


def test_normalise_uses_channel_statistics() -> None:
    patches = np.tile(np.array([0.48145466, 0.4578275, 0.40821073], np.float32), (5, 4))
    np.testing.assert_allclose(image.normalise(patches), 0.0, atol=1e-6)
    one = image.normalise(np.ones((1, 3), np.float32))[0]
    np.testing.assert_allclose(one, [1.930336, 2.074883, 2.145897], rtol=1e-5)


def test_jpeg_and_png_come_back() -> None:
    smooth = np.repeat(np.linspace(0, 255, 40, dtype=np.uint8)[:, None, None], 30, axis=1).repeat(3, axis=2)
    jpeg = image.encode_jpeg(smooth)
    assert jpeg == image.encode_jpeg(smooth)
    assert np.abs(image.decode_rgb(jpeg).astype(int) - smooth).max() <= 3
    picture = noise(20, 31)
    np.testing.assert_array_equal(image.decode_rgb(image.encode_png(picture)), picture)


def test_exif_orientation_and_transparency() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(20, 40)).save(buffer, "JPEG", exif=exif)
    assert image.decode_rgb(buffer.getvalue()).shape == (40, 20, 3)
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(buffer, "PNG")
    np.testing.assert_array_equal(image.decode_rgb(buffer.getvalue()), 255)


def test_grey_and_cmyk_jpegs_become_rgb() -> None:
    for mode in ("L", "CMYK"):
        buffer = io.BytesIO()
        Image.new(mode, (8, 6)).save(buffer, "JPEG")
        assert image.decode_rgb(buffer.getvalue()).shape == (6, 8, 3)


def test_what_cannot_be_decoded_is_a_bad_record(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg, png = image.encode_jpeg(noise(64, 64)), image.encode_png(noise(64, 64))
    for broken in (b"", b"no picture", jpeg[: len(jpeg) // 2], png[: len(png) // 2]):
        with pytest.raises(BadRecord) as caught:
            image.decode_rgb(broken)
        assert caught.value.reason == "image_undecodable"
        assert "0x" not in caught.value.message
    monkeypatch.setattr(image, "MAX_PIXELS", 64 * 64 - 1)
    for large in (jpeg, png):
        with pytest.raises(BadRecord) as caught:
            image.decode_rgb(large)
        assert caught.value.reason == "image_too_large"


def test_golden_canvases_masks_and_patches(parity: Path) -> None:
    file = parity / "12_preprocess_image.npz"
    if not file.exists():
        return
    golden = np.load(file)
    for name in ("landscape", "portrait", "big", "square"):
        expected = {key.split("/out/")[1]: golden[key] for key in golden.files if key.startswith(f"{name}/out/")}
        picture = golden[f"{name}/in/image_u8"]
        canvas, mask = image.to_canvas(picture, 384)
        pixels = expected["image384"] if "image384" in expected else expected["image384_every4th"]
        np.testing.assert_allclose(canvas[:: 384 // len(pixels), :: 384 // len(pixels)], pixels, atol=1e-5)
        sums = [canvas.sum(dtype=np.float64), np.square(canvas, dtype=np.float64).sum()]
        np.testing.assert_allclose(sums, expected["image384_checksum_sum_sumsq"], rtol=1e-6)
        np.testing.assert_array_equal(mask, np.unpackbits(expected["mask384_packbits"], axis=1).astype(bool))
        patches = image.normalise(image.patchify(canvas, 16))[expected["patch_rows"]]
        np.testing.assert_allclose(patches, expected["patches_norm_selected"], atol=1e-4)
        small, small_mask = image.to_canvas(picture, 256)
        for stream in ("history", "target"):
            np.testing.assert_allclose(small[::4, ::4], expected[f"image256_{stream}_every4th"], atol=1e-6)
        np.testing.assert_array_equal(small_mask, np.unpackbits(expected["mask256_packbits"], axis=1).astype(bool))
        for size, patch, valid in ((384, 16, "patch_mask_576"), (256, 8, "target_token_mask_1024")):
            np.testing.assert_array_equal(image.valid_patches(*picture.shape[:2], size, patch), expected[valid])
