"""Filters of sound, films, trajectories and views: what they drop, what they keep, and what they note."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import simplejpeg
from pydantic import ValidationError

from omnimill.locations import spherical_views
from omnimill.pipelines.base import Operator
from omnimill.pipelines.decoders.audio import SAMPLE_RATE, encode_flac
from omnimill.pipelines.operators.audio import AudioClipping, AudioDuration, AudioSampleRate, AudioSilence
from omnimill.pipelines.operators.audio_character import AudioCharacter
from omnimill.pipelines.operators.scenes import TrajectoryStatic, ViewsEmpty
from omnimill.pipelines.operators.video import TranscriptDensity, VideoBorders, VideoShape, VideoStatic
from omnimill.pipelines.operators.video_text import VideoText
from omnimill.schema import Audio, Example, Image, Meta, Provenance, Text, Trajectory, Video


def _example(**columns: object) -> Example:
    provenance = Provenance(uri="memory", digest="")
    return Example(id="", source="s", unit="u", key="k", provenance=provenance, **columns)  # type: ignore[arg-type]


def _clip(waveform: np.ndarray) -> Audio:
    data = encode_flac(waveform.astype(np.float32))
    return Audio(data=data, format="flac", sample_rate=SAMPLE_RATE, channels=1, samples=len(waveform), digest="")


def _tone(level: float, seconds: float = 1.0) -> Audio:
    return _clip(level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE))


def _frame(rgb: np.ndarray) -> Image:
    rgb = np.ascontiguousarray(rgb.astype(np.uint8))
    data = simplejpeg.encode_jpeg(rgb, quality=95, colorspace="RGB")
    return Image(data=data, format="jpeg", width=rgb.shape[1], height=rgb.shape[0], digest="")


def _video(segments: int = 2, seconds: float = 60.0, first: int = 0) -> Video:
    return Video(
        uri="",
        digest="",
        width=64,
        height=48,
        seconds=seconds,
        frame_rate=10.0,
        segment_seconds=4.0,
        first_segment=first,
        segments=segments,
    )


def _verdict(operator: Operator, example: Example) -> str | None:
    (verdict,) = operator([example])
    return verdict


SILENCE, TONE, FAINT = _clip(np.zeros(SAMPLE_RATE)), _tone(0.5), _tone(0.0005)


@pytest.mark.parametrize(
    ("clips", "when", "verdict"),
    [
        ([SILENCE, SILENCE], "all", "audio_silent"),
        ([SILENCE, TONE], "all", None),
        ([SILENCE, TONE], "any", "audio_silent"),
        ([TONE, TONE], "any", None),
        ([FAINT], "all", "audio_silent"),
        ([], "all", None),
    ],
)
def test_silence_is_dropped(clips: list[Audio], when: str, verdict: str | None) -> None:
    operator = AudioSilence.model_validate({"op": "audio_silence", "when": when})
    assert _verdict(operator, _example(audio=clips)) == verdict


def test_levels_are_in_decibels_of_full_scale() -> None:
    example = _example(audio=[_tone(1.0), SILENCE])
    AudioSilence(op="audio_silence")([example])
    assert example.meta.scores["audio_dbfs"] == pytest.approx(-3.01, abs=0.05)  # a full sine's power is one half
    AudioSilence(op="audio_silence", when="any")([example])
    assert example.meta.scores["audio_dbfs"] == -120.0


def test_clipped_sound_is_dropped() -> None:
    clipped = _clip(np.clip(_wave(3.0), -1, 1))
    example = _example(audio=[TONE, clipped])
    assert _verdict(AudioClipping(op="audio_clipping"), example) == "audio_clipped"
    assert example.meta.scores["audio_clipped"] == pytest.approx(0.784, abs=0.02)  # 1 - 2/pi asin(1/3)
    assert _verdict(AudioClipping(op="audio_clipping"), _example(audio=[TONE])) is None
    assert _verdict(AudioClipping(op="audio_clipping"), _example()) is None


def _wave(level: float) -> np.ndarray:
    return level * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)


def test_duration_counts_all_clips() -> None:
    example = _example(audio=[_tone(0.1, 0.5), _tone(0.1, 1.0)])
    assert _verdict(AudioDuration(op="audio_duration", min_seconds=2), example) == "audio_too_short"
    assert _verdict(AudioDuration(op="audio_duration", max_seconds=1), example) == "audio_too_long"
    assert _verdict(AudioDuration(op="audio_duration", min_seconds=1, max_seconds=2), example) is None
    assert example.meta.scores["audio_seconds"] == pytest.approx(1.5)
    assert _verdict(AudioDuration(op="audio_duration", min_seconds=2), _example()) is None


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="max_seconds is below"):
        AudioDuration(op="audio_duration", min_seconds=2, max_seconds=1)
    with pytest.raises(ValidationError, match="max_words_per_second is below"):
        TranscriptDensity(op="transcript_density", min_words_per_second=2, max_words_per_second=1)


NOISE = np.random.default_rng(0).integers(60, 200, (48, 64, 3))


@pytest.mark.parametrize(
    ("frames", "verdict"),
    [
        ([NOISE, NOISE, NOISE], "video_static"),
        ([NOISE, NOISE, np.roll(NOISE, 8, axis=1)], None),
        ([NOISE], None),
        ([], None),
    ],
    ids=["still", "one-change", "one-frame", "no-frame"],
)
def test_still_films_are_dropped(frames: list[np.ndarray], verdict: str | None) -> None:
    example = _example(video=_video(), images=[_frame(frame) for frame in frames])
    assert _verdict(VideoStatic(op="video_static"), example) == verdict
    assert ("video_motion" in example.meta.scores) == (len(frames) > 1)


def test_pictures_that_are_no_film_may_be_alike() -> None:
    assert _verdict(VideoStatic(op="video_static"), _example(images=[_frame(NOISE), _frame(NOISE)])) is None


def test_black_borders_are_measured_over_all_frames() -> None:
    boxed, dark = NOISE.copy(), np.zeros_like(NOISE)
    boxed[:12], boxed[-12:] = 0, 0
    operator = VideoBorders(op="video_borders", max_share=0.3)
    letterbox = _example(video=_video(), images=[_frame(boxed), _frame(dark), _frame(boxed)])
    assert _verdict(operator, letterbox) == "video_borders"
    assert letterbox.meta.scores["video_border"] == pytest.approx(0.5, abs=0.05)
    fade = _example(video=_video(), images=[_frame(dark), _frame(NOISE)])
    assert _verdict(operator, fade) is None
    assert _verdict(operator, _example(video=_video(), images=[_frame(dark)])) == "video_borders"


@pytest.mark.parametrize(
    ("words", "verdict"), [(0, "transcript_sparse"), (3, "transcript_sparse"), (8, None), (100, "transcript_dense")]
)
def test_words_per_second_have_bounds(words: int, verdict: str | None) -> None:
    operator = TranscriptDensity(op="transcript_density", min_words_per_second=0.5, max_words_per_second=5)
    text = [Text(role="caption", text="not said"), Text(role="transcript", text="word " * words)]
    assert _verdict(operator, _example(video=_video(), text=text)) == verdict
    assert _verdict(operator, _example(audio=[_tone(0.1, 8.0)], text=text)) == verdict
    assert _verdict(operator, _example(text=text)) is None


def test_the_last_segment_of_a_film_counts_as_long_as_it_is() -> None:
    example = _example(
        video=_video(segments=2, seconds=25.0, first=5), text=[Text(role="transcript", text="a b c d e")]
    )
    TranscriptDensity(op="transcript_density")([example])
    assert example.meta.scores["words_per_second"] == pytest.approx(1.0)


def _trajectory(states: list[list[float]]) -> Trajectory:
    return Trajectory(
        episode="e",
        first_step=0,
        steps_per_second=10.0,
        state_names=["x", "y"],
        action_names=["a"],
        states=states,
        actions=[[0.0]] * len(states),
        step_images=[None] * len(states),
    )


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        ([[1.0, 2.0], [1.0, 2.0005], [1.0, 2.0]], "trajectory_static"),
        ([[1.0, 2.0], [1.0, 2.5], [1.0, 2.0]], None),
        ([[1.0, 2.0]], None),
        ([], None),
    ],
)
def test_runs_without_motion_are_dropped(states: list[list[float]], verdict: str | None) -> None:
    operator = TrajectoryStatic(op="trajectory_static")
    assert _verdict(operator, _example(trajectory=_trajectory(states))) == verdict
    assert _verdict(operator, _example()) is None


def test_objects_that_are_hardly_seen_are_dropped() -> None:
    operator = ViewsEmpty(op="views_empty", min_coverage=0.1)
    views = spherical_views([(1.5, 0.0, 2.5)])
    assert _verdict(operator, _example(views=views, meta=Meta(scores={"view_coverage": 0.05}))) == "views_empty"
    assert _verdict(operator, _example(views=views, meta=Meta(scores={"view_coverage": 0.2}))) is None
    assert _verdict(operator, _example(meta=Meta(scores={"view_coverage": 0.0}))) is None


def _speechlike(seconds: int = 4) -> np.ndarray:
    """Syllables four times a second, every third missing, tone and hiss in turn."""
    t = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    hiss = np.random.default_rng(0).uniform(-1, 1, len(t))
    syllable = np.floor(t * 4).astype(int)
    loud = np.clip(np.sin(8 * np.pi * t), 0, 1) * (syllable % 3 > 0)
    return 0.5 * loud * np.where(syllable % 2, hiss, np.sin(2 * np.pi * 150 * t))


def _musiclike(seconds: int = 4) -> np.ndarray:
    t = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    return sum(0.15 * np.sin(2 * np.pi * pitch * t) for pitch in (220, 277, 330))


def test_speech_and_music_are_told_apart() -> None:
    speech, music = _example(audio=[_clip(_speechlike())]), _example(audio=[_clip(_musiclike())])
    measure = AudioCharacter(op="audio_character")
    assert [_verdict(measure, example) for example in (speech, music)] == [None, None]
    for name in ("audio_low_energy", "audio_4hz", "audio_zcr_std"):
        assert speech.meta.scores[name] > 2 * music.meta.scores[name] + 0.02, name
    assert speech.meta.scores["audio_flux"] > music.meta.scores["audio_flux"]
    wanted = AudioCharacter(op="audio_character", min_low_energy=0.2, min_4hz=0.2)
    assert [_verdict(wanted, example) for example in (speech, music)] == [None, "audio_character"]
    assert _verdict(wanted, _example(audio=[SILENCE])) is None
    assert _verdict(wanted, _example()) is None


def test_the_rate_of_the_recording_counts_not_that_of_the_clip() -> None:
    telephone = _example(audio=[TONE], meta=Meta(scores={"source_sample_rate": 8_000.0}))
    assert _verdict(AudioSampleRate(op="audio_sample_rate"), telephone) == "audio_low_rate"
    assert _verdict(AudioSampleRate(op="audio_sample_rate", min_hz=None), telephone) is None
    assert _verdict(AudioSampleRate(op="audio_sample_rate", min_hz=None, max_hz=4_000), telephone) == "audio_high_rate"
    assert _verdict(AudioSampleRate(op="audio_sample_rate"), _example(audio=[TONE])) is None


def test_writing_in_the_picture_is_measured() -> None:
    y, x = np.mgrid[0:240, 0:320]
    view = np.stack([100 + 60 * np.sin(x / 40), 120 + 50 * np.cos(y / 30), 90 + 20 * np.sin((x + y) / 50)], axis=-1)
    slide, titled = np.full((240, 320, 3), 240, np.uint8), view.astype(np.uint8)
    for line in range(8):
        cv2.putText(slide, "the quick brown fox jumps", (8, 24 + 28 * line), 0, 0.7, (0, 0, 0), 2)
    cv2.putText(titled, "a title below", (60, 220), 0, 0.7, (255, 255, 255), 2)
    examples = [_example(video=_video(), images=[_frame(picture)]) for picture in (view, titled, slide)]
    assert [_verdict(VideoText(op="video_text"), example) for example in examples] == [None, None, "video_text"]
    none, some, much = (example.meta.scores["video_text"] for example in examples)
    assert none == 0
    assert 0.02 < some < 0.12
    assert much > 0.3
    assert _verdict(VideoText(op="video_text"), _example(images=[_frame(slide)])) is None


def test_the_shape_of_films_is_bounded() -> None:
    example = _example(video=_video())
    assert _verdict(VideoShape(op="video_shape"), example) is None
    assert example.meta.scores == {"video_short_side": 48, "video_aspect": pytest.approx(4 / 3), "video_frame_rate": 10}
    assert _verdict(VideoShape(op="video_shape", min_short_side=49), example) == "video_too_small"
    assert _verdict(VideoShape(op="video_shape", max_aspect=1.3), example) == "video_aspect"
    assert _verdict(VideoShape(op="video_shape", min_aspect=1.4), example) == "video_aspect"
    assert _verdict(VideoShape(op="video_shape", min_frame_rate=11), example) == "video_slow"


@pytest.mark.parametrize(
    ("operator", "score"),
    [
        (AudioSilence(op="audio_silence", min_dbfs=None), "audio_dbfs"),
        (AudioClipping(op="audio_clipping", max_share=None), "audio_clipped"),
        (AudioDuration(op="audio_duration"), "audio_seconds"),
        (VideoStatic(op="video_static", min_difference=None), "video_motion"),
        (VideoBorders(op="video_borders", max_share=None), "video_border"),
        (VideoText(op="video_text", max_share=None), "video_text"),
        (
            TranscriptDensity(op="transcript_density", min_words_per_second=None, max_words_per_second=None),
            "words_per_second",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_without_bounds_they_only_measure(operator: Operator, score: str) -> None:
    black = [_frame(np.zeros((48, 64, 3)))] * 2
    example = _example(video=_video(), images=black, audio=[SILENCE], text=[Text(role="transcript", text="a " * 500)])
    assert _verdict(operator, example) is None
    assert score in example.meta.scores


def test_density_counts_the_run_that_the_source_noted() -> None:
    meta = Meta(scores={"start_seconds": 10.0, "end_seconds": 12.0})
    example = _example(video=_video(), text=[Text(role="transcript", text="one two three four")], meta=meta)
    assert _verdict(TranscriptDensity(op="transcript_density"), example) is None
    assert example.meta.scores["words_per_second"] == 2.0
