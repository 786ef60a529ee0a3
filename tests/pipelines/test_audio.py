"""Audio files: windows of 16 kHz mono by the reference's rule, whatever the file, and verdicts on what is no sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.audio import SAMPLE_RATE, audio_windows, decode_clip, encode_flac
from omnimill.pipelines.decoders.probe import MediaLimits
from omnimill.pipelines.sources.audio_files import AudioFilesSource
from omnimill.segments import segment_count

WINDOW = 65_280
LIMITS = MediaLimits()


def _tone(seconds: float, rate: int, pitch: float = 440.0, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def _windows(path: Path, limits: MediaLimits = LIMITS) -> list[int]:
    return [clip.samples for clip in audio_windows(str(path), 4.08, limits, 30)[1]]


def _reason(path: Path, limits: MediaLimits = LIMITS) -> str:
    with pytest.raises(BadRecord) as caught:
        audio_windows(str(path), 4.08, limits, 30)
    return caught.value.reason


@pytest.mark.parametrize(
    ("seconds", "count"),
    [(0.5, 1), (2.13, 1), (4.08, 1), (6.12, 1), (6.2, 1), (6.3, 2), (9.3, 2), (20.4, 5), (23.0, 6)],
)
def test_segments_are_counted_like_the_reference(seconds: float, count: int) -> None:
    assert segment_count(seconds, 4.08) == count


def test_segment_counts_agree_with_the_golden_table(parity: Path) -> None:
    file = parity / "13_preprocess_audio.npz"
    table = np.load(file)["out/num_segments"] if file.exists() else np.array([[4.08, 1.0], [6.3, 2.0]])
    assert [segment_count(float(row[0]), 4.08) for row in table] == [int(row[1]) for row in table]


@given(seconds=st.floats(0, 10_000), segment=st.floats(0.5, 60))
def test_segments_cover_a_recording_to_half_a_segment(seconds: float, segment: float) -> None:
    count = segment_count(seconds, segment)
    assert count >= 1
    assert count * segment <= seconds + segment / 2 or count == 1
    assert seconds - count * segment <= segment / 2 + 0.1 + 1e-6


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_any_sample_rate_becomes_16_khz_with_the_same_pitch(rate: int, tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, _tone(5.0, rate), rate)
    facts, clips = audio_windows(str(path), 4.08, LIMITS, 30)
    assert (facts.sample_rate, facts.channels, facts.seconds) == (rate, 1, pytest.approx(5.0))
    assert [(clip.sample_rate, clip.channels, clip.samples, clip.start) for clip in clips] == [(16_000, 1, WINDOW, 0.0)]
    spectrum = np.abs(np.fft.rfft(decode_clip(clips[0])))
    assert spectrum.argmax() * SAMPLE_RATE / WINDOW == pytest.approx(440, abs=1)


def test_windows_are_the_recording_in_order(tmp_path: Path) -> None:
    sound = np.linspace(-0.9, 0.9, round(10.5 * SAMPLE_RATE)).astype(np.float32)
    soundfile.write(tmp_path / "ramp.flac", sound, SAMPLE_RATE)
    _, clips = audio_windows(str(tmp_path / "ramp.flac"), 4.08, LIMITS, 30)
    assert [clip.start for clip in clips] == [0.0, 4.08, 8.16]
    joined = np.concatenate([decode_clip(clip) for clip in clips])
    assert np.abs(joined - sound).max() < 1e-4


def test_a_short_rest_is_left_out_and_a_long_one_kept(tmp_path: Path) -> None:
    for seconds, expected in [(5.0, [WINDOW]), (7.0, [WINDOW, 46_720]), (1.0, [16_000])]:
        soundfile.write(tmp_path / "t.wav", _tone(seconds, SAMPLE_RATE), SAMPLE_RATE)
        assert _windows(tmp_path / "t.wav") == expected


def test_channels_are_averaged(tmp_path: Path) -> None:
    left = _tone(1.0, SAMPLE_RATE, level=0.6)
    soundfile.write(tmp_path / "t.wav", np.stack([left, np.zeros_like(left), -left / 2], axis=1), SAMPLE_RATE)
    clip = audio_windows(str(tmp_path / "t.wav"), 4.08, LIMITS, 30)[1][0]
    assert np.abs(decode_clip(clip) - left / 6).max() < 1e-3


def test_formats_that_libsndfile_does_not_read_go_through_ffmpeg(tmp_path: Path, ffmpeg: Callable[..., None]) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100:duration=7", tmp_path / "t.m4a")
    facts, clips = audio_windows(str(tmp_path / "t.m4a"), 4.08, LIMITS, 30)
    assert (facts.sample_rate, facts.seconds, len(clips)) == (44_100, pytest.approx(7.0, abs=0.1), 2)
    assert clips[1].start == 4.08
    spectrum = np.abs(np.fft.rfft(decode_clip(clips[0])))
    assert spectrum.argmax() * SAMPLE_RATE / WINDOW == pytest.approx(440, abs=1)


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "t.wav", _tone(5.0, 44_100), 44_100)
    assert audio_windows(str(tmp_path / "t.wav"), 4.08, LIMITS, 30) == audio_windows(
        str(tmp_path / "t.wav"), 4.08, LIMITS, 30
    )


def test_what_is_louder_than_full_scale_is_clipped_not_wrapped() -> None:
    from omnimill.schema import Audio

    data = encode_flac(np.array([1.5, -1.5, 0.25], np.float32))
    clip = Audio(data=data, format="flac", sample_rate=SAMPLE_RATE, channels=1, samples=3, digest="")
    assert decode_clip(clip) == pytest.approx([1.0, -1.0, 0.25], abs=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    sound = _tone(1.0, SAMPLE_RATE)
    sound[1000] = value
    soundfile.write(tmp_path / "t.wav", sound, SAMPLE_RATE, subtype="FLOAT")
    assert _reason(tmp_path / "t.wav") == "audio_not_finite"


def test_limits_are_checked_from_the_header(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "t.wav", np.zeros((SAMPLE_RATE, 4), np.float32), SAMPLE_RATE)
    assert _reason(tmp_path / "t.wav", MediaLimits(seconds=0.5)) == "audio_too_long"
    assert _reason(tmp_path / "t.wav", MediaLimits(channels=2)) == "audio_too_large"
    soundfile.write(tmp_path / "fast.wav", np.zeros(10, np.float32), 2_000_000)
    assert _reason(tmp_path / "fast.wav") == "audio_sample_rate"


def test_damaged_files_get_a_reason(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 20 * SAMPLE_RATE)
    soundfile.write(tmp_path / "whole.flac", noise, SAMPLE_RATE)
    data = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 3])
    assert _reason(tmp_path / "cut.flac") == "audio_truncated"
    (tmp_path / "text.wav").write_text("this is no sound")
    assert _reason(tmp_path / "text.wav") == "audio_unreadable"
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), SAMPLE_RATE)
    assert _reason(tmp_path / "none.wav") == "audio_empty"


def test_a_playlist_is_no_audio_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "secret.wav", _tone(1.0, SAMPLE_RATE), SAMPLE_RATE)
    (tmp_path / "list.mp3").write_text("#EXTM3U\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.wav").write_text("ffconcat version 1.0\nfile secret.wav\n")
    assert _reason(tmp_path / "list.mp3") == "audio_unreadable"
    assert _reason(tmp_path / "list.wav") == "audio_unreadable"


def test_the_source_groups_windows_and_words(
    tmp_path: Path, read_source: Callable[[AudioFilesSource], tuple[list, dict[str, str]]]
) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    soundfile.write(folder / "talk.wav", _tone(25.0, 8_000), 8_000)
    (folder / "talk.srt").write_text("1\n00:00:05,000 --> 00:00:06,000\nsecond window\n")
    (folder / "talk.txt").write_text("A talk.")
    (folder / "noise.wav").write_bytes(b"RIFF")
    (folder / "noise.vtt").write_text("no header")
    source = AudioFilesSource(type="audio_files", name="sounds", path=str(folder), licence="CC0-1.0")
    examples, verdicts = read_source(source)
    assert verdicts == {
        "talk.wav": "kept",
        "talk.srt": "sidecar",
        "talk.txt": "sidecar",
        "noise.wav": "audio_unreadable",
        "noise.vtt": "transcript_malformed",
    }
    assert [(example.key, len(example.audio)) for example in examples] == [("talk.wav#0", 5), ("talk.wav#5", 1)]
    first, second = examples
    assert [(t.role, t.text, t.audio) for t in first.text] == [
        ("caption", "A talk.", None),
        ("transcript", "second window", 1),
    ]
    assert [(t.role, t.text) for t in second.text] == [("caption", "A talk.")]
    assert second.audio[0].start == pytest.approx(20.4)
    assert first.meta.licence == "CC0-1.0"
    assert len({example.id for example in examples}) == 2


def test_units_are_the_same_each_time_and_hold_all_files(tmp_path: Path) -> None:
    for number in range(5):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(10), SAMPLE_RATE)
    (tmp_path / "3.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhi\n")
    source = AudioFilesSource(type="audio_files", name="sounds", path=str(tmp_path), files_per_unit=2)
    units = list(source.units())
    assert [unit.id for unit in units] == [unit.id for unit in source.units()]
    assert [len(unit.files) for unit in units] == [2, 3, 1]
    assert [ref.uri for ref in source.inputs(units[1])] == list(units[1].files)
