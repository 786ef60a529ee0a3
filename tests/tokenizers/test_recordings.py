"""Recordings cut into segments: the counting rule, consecutive windows, equal parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.segments import segment_count
from omnimill.tokenizers import audio, recordings
from omnimill.tokens import AudioLayout

REFERENCE = AudioLayout()
SMALL = AudioLayout(segment_seconds=0.01, sample_rate=1000, frames=6, mels=4)  # ten samples


@pytest.mark.parametrize(
    ("seconds", "sound", "film"),
    # Half a segment is 2.04 s, and 0.1 s are taken off what is left over.
    [(0.05, 1, 0), (2.13, 1, 0), (2.15, 1, 1), (4.08, 1, 1), (6.21, 1, 1), (6.23, 2, 2), (8.16, 2, 2), (20.4, 5, 5)],
)
def test_how_many_segments_by_hand(seconds: float, sound: int, film: int) -> None:
    assert (segment_count(seconds, 4.08), segment_count(seconds, 4.08, least=0)) == (sound, film)


def ramp(samples: int) -> audio.FloatArray:
    return np.arange(1, samples + 1, dtype=np.float32)


def test_windows_by_hand() -> None:
    # Of 27 samples two windows are whole; 7 are left, less than half a window and 0.1 s.
    np.testing.assert_array_equal(recordings.windows(ramp(27), SMALL), ramp(20).reshape(2, 10))
    # A single short one is filled up at its end.
    np.testing.assert_array_equal(recordings.windows(ramp(4), SMALL), [[1, 2, 3, 4, 0, 0, 0, 0, 0, 0]])


def test_equal_parts_by_hand() -> None:
    # Parts of 4 lie centred; of parts of 14 the middle is taken.
    short = recordings.equal_parts(ramp(12), 3, SMALL)
    np.testing.assert_array_equal(short[1], [0, 0, 0, 5, 6, 7, 8, 0, 0, 0])
    np.testing.assert_array_equal(recordings.equal_parts(ramp(28), 2, SMALL), [ramp(12)[2:], ramp(28)[16:26]])


@given(st.integers(1, 400_000), st.integers(1, 8))
@settings(max_examples=30)
def test_every_segment_is_of_the_layouts_length(samples: int, count: int) -> None:
    sound = np.ones(samples, np.float32)
    cut = recordings.windows(sound, REFERENCE)
    assert cut.shape == (segment_count(samples / 16000, 4.08), 65280)
    # Nothing is heard twice, and no more than the rest that makes no segment is left out.
    assert samples - 0.5 * 65280 - 1601 <= cut.sum() <= samples
    parts = recordings.equal_parts(sound, count, REFERENCE)
    assert parts.shape == (count, 65280)
    assert parts.sum() <= samples + count


def test_golden_segments(parity: Path) -> None:
    file = parity / "13_preprocess_audio.npz"
    if not file.exists():
        return
    golden = np.load(file)
    for seconds, sound, film in golden["out/num_segments"]:
        assert (segment_count(float(seconds), 4.08), segment_count(float(seconds), 4.08, least=0)) == (sound, film)
    waveform = golden["in/waveform_i16"].astype(np.float32) / 32768
    for cut, name in (
        (recordings.windows(waveform, REFERENCE), "n_mel128_time256"),
        (recordings.equal_parts(waveform, 5, REFERENCE), "5segments_short_padded"),
        (recordings.equal_parts(waveform, 2, REFERENCE), "2segments_centercrop"),
    ):
        expected = golden[f"out/spectrograms_{name}"].transpose(0, 2, 1)
        power = np.stack([audio.power_mel(segment, REFERENCE) for segment in cut[: len(expected)]])
        np.testing.assert_allclose(power, expected, rtol=1e-4, atol=1e-4)
