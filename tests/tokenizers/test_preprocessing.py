"""Whole inputs and targets against those that the reference's preprocessor made: pictures, earlier pictures, sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from omnimill.tokenizers import audio, image, recordings
from omnimill.tokenizers.image_geometry import fitted
from omnimill.tokens import AudioLayout

Golden = dict[str, NDArray[np.generic]]
SOUND = AudioLayout()


@pytest.fixture(scope="module")
def golden(parity: Path) -> Golden | None:
    file = parity / "14_preprocess_end_to_end.npz"
    return dict(np.load(file)) if file.exists() else None


@pytest.fixture(scope="module")
def segments(parity: Path) -> audio.FloatArray | None:
    """The two segments of the recording that the vectors were made of."""
    file = parity / "13_preprocess_audio.npz"
    if not file.exists():
        return None
    waveform = np.load(file)["in/waveform_i16"].astype(np.float32) / 32768
    return recordings.windows(waveform, SOUND)


def check_stream(golden: Golden, stream: str, patches: audio.FloatArray, valid: audio.BoolArray) -> None:
    """patches [n, C] and valid [n], against a stream that may be filled up with empty frames."""
    shape, sums = golden[f"out/inputs/{stream}/input__shape"], golden[f"out/inputs/{stream}/input__sum_sumsq"]
    whole = np.zeros((int(np.prod(shape[:-1])), shape[-1]), np.float32)
    whole[: len(patches)] = patches
    rows = [0, len(whole) - 1, len(whole) // 2]
    np.testing.assert_allclose(whole[rows], golden[f"out/inputs/{stream}/input__rows0_last_mid"], atol=1e-5)
    found = [whole.sum(dtype=np.float64), np.square(whole, dtype=np.float64).sum()]
    np.testing.assert_allclose(found, sums, rtol=1e-6)
    mask = golden[f"out/inputs/{stream}/mask"].reshape(-1)
    np.testing.assert_array_equal(mask, np.pad(valid, (0, len(mask) - len(valid))))


def test_golden_pictures(golden: Golden | None) -> None:
    if golden is None:
        return
    picture = golden["in/image_u8"]
    canvas, _ = image.to_canvas(picture, 384)
    valid = image.valid_patches(*picture.shape[:2], 384, 16)
    check_stream(golden, "image", image.normalise(image.patchify(canvas, 16)), valid)
    np.testing.assert_array_equal(golden["out/meta/image_info"], fitted(*picture.shape[:2], 384).info)
    earlier = [golden["in/hist0_u8"], golden["in/hist1_u8"]]
    patches = [image.normalise(image.patchify(image.to_canvas(frame, 256)[0], 16)) for frame in earlier]
    valid = np.concatenate([image.valid_patches(*frame.shape[:2], 256, 16) for frame in earlier])
    check_stream(golden, "image_history", np.concatenate(patches), valid)


def test_golden_target_picture(golden: Golden | None) -> None:
    if golden is None:
        return
    picture = golden["in/image_u8"]
    canvas, _ = image.to_canvas(picture, 256)
    np.testing.assert_allclose(canvas[::4, ::4] * 2 - 1, golden["out_imgtarget/targets/image/image"], atol=1e-5)
    valid = image.valid_patches(*picture.shape[:2], 256, 8)
    np.testing.assert_array_equal(valid, golden["out_imgtarget/targets/image/mask"])


def test_golden_sound(golden: Golden | None, segments: audio.FloatArray | None) -> None:
    if golden is None or segments is None:
        return
    # The earlier segment is history, the last one the current clip.
    for stream, segment in zip(("audio_history", "audio"), segments, strict=True):
        mel, mask = audio.log_mel(segment, SOUND)
        patches = audio.patchify(audio.normalise_input(mel), 16)
        check_stream(golden, stream, patches, mask[8::16, 8::16].reshape(-1))


def test_golden_target_sound(golden: Golden | None, segments: audio.FloatArray | None) -> None:
    if golden is None or segments is None:
        return
    mel, mask = audio.log_mel(segments[0], SOUND)
    target = audio.normalise_target(mel)
    np.testing.assert_allclose(target[::4, ::4, None], golden["out_audtarget/targets/audio/audio"], atol=1e-5)
    np.testing.assert_array_equal(mask[4::8, 4::8].reshape(-1), golden["out_audtarget/targets/audio/mask"])
