"""Films: the right frames and sounds at the right times for any clock, and verdicts on what is no film."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from omnimill.errors import BadRecord
from omnimill.infra.dataset import Unit
from omnimill.pipelines.decoders.audio import decode_clip
from omnimill.pipelines.decoders.pixels import load_rgb
from omnimill.pipelines.decoders.probe import MediaLimits, VideoTrack, probe
from omnimill.pipelines.decoders.video import frames_at
from omnimill.pipelines.sources.video import VideoSettings, VideoSource, video_examples
from omnimill.schema import Example, Image, Provenance

Ffmpeg = Callable[..., None]
ReadSource = Callable[[VideoSource], tuple[list[Example], dict[str, str]]]

# Ten frames a second; in frame n the left half shows the ones of n and the right half the tens, 20 grey levels each.
LEVEL = "20+20*if(lt(X,W/2),mod(N,10),floor(N/10))"
CLOCK = f"nullsrc=size=64x48:rate=10:duration={{}},format=gray,geq=lum='{LEVEL}',format=yuv420p"
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-threads", "1")


def _examples(path: Path, **settings: object) -> list[Example]:
    source = VideoSource(type="video", name="films", path=str(path))
    unit = Unit(source="films", files=(str(path),))
    provenance = Provenance(uri=str(path), digest="d" * 64)
    return video_examples(str(path), source, unit, "film", provenance, VideoSettings.model_validate(settings))


def _reason(path: Path, **settings: object) -> str:
    with pytest.raises(BadRecord) as caught:
        _examples(path, **settings)
    return caught.value.reason


def _number(image: Image) -> int:
    """Which frame of `CLOCK` a picture is."""
    half = image.width // 2
    ones, tens = (round((float(part.mean()) - 20) / 20) for part in np.split(load_rgb(image), [half], axis=1))
    return ones + 10 * tens


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, ffmpeg: Ffmpeg) -> Path:
    """9 s, 10 frames a second, 64 x 48, with a tone."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    sound = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=22050:duration=9")
    ffmpeg("-f", "lavfi", "-i", CLOCK.format(9), *sound, *H264, "-c:a", "aac", "-movflags", "faststart", path)
    return path


def test_segments_have_their_middle_frame_and_their_sound(film: Path) -> None:
    (example,) = _examples(film)
    assert [(image.time, _number(image)) for image in example.images] == [(2.04, 20), (6.12, 61)]
    assert [(clip.start, clip.samples) for clip in example.audio] == [(0.0, 65_280), (4.08, 65_280)]
    spectrum = np.abs(np.fft.rfft(decode_clip(example.audio[1])))
    assert spectrum.argmax() * 16_000 / 65_280 == pytest.approx(440, abs=1)
    video = example.video
    assert video is not None
    assert (video.width, video.height, video.first_segment, video.segments) == (64, 48, 0, 2)
    assert (video.seconds, video.frame_rate) == (pytest.approx(9.0), pytest.approx(10.0))


def test_runs_follow_each_other_and_the_last_may_be_short(film: Path) -> None:
    examples = _examples(film, segment_seconds=1.0, segments_per_example=4)
    videos = [example.video for example in examples if example.video]
    assert [(video.first_segment, video.segments) for video in videos] == [(0, 4), (4, 4), (8, 1)]
    frames = [_number(image) for example in examples for image in example.images]
    assert frames == [5, 15, 25, 35, 45, 55, 65, 75, 85]
    starts = [clip.start for example in examples for clip in example.audio]
    assert starts == [float(second) for second in range(9)]
    assert [example.key for example in examples] == ["film#0", "film#4", "film#8"]


def test_several_frames_per_segment_lie_at_the_middles_of_its_parts(film: Path) -> None:
    (example,) = _examples(film, segment_seconds=4.0, frames_per_segment=2)
    assert [_number(image) for image in example.images] == [10, 30, 50, 70]


def test_the_same_film_gives_the_same_bytes(film: Path) -> None:
    assert _examples(film) == _examples(film)


def test_a_variable_frame_rate_shows_the_frame_on_screen(tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    path = tmp_path / "vfr.mkv"
    gaps = "select='not(between(n,15,40))'"
    ffmpeg("-f", "lavfi", "-i", CLOCK.format(9), "-vf", gaps, "-fps_mode", "vfr", *H264, path)
    (example,) = _examples(path)
    assert [_number(image) for image in example.images] == [14, 61]


def test_a_clock_that_does_not_start_at_zero_changes_nothing(film: Path, tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    path = tmp_path / "late.ts"
    ffmpeg("-i", film, "-c", "copy", "-an", "-output_ts_offset", "100", path)
    (example,) = _examples(path)
    assert [_number(image) for image in example.images] == [20, 61]


def test_sound_that_starts_late_is_preceded_by_silence(tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    path = tmp_path / "late.mkv"
    sound = ("-itsoffset", "2", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=16000:duration=6")
    ffmpeg("-f", "lavfi", "-i", CLOCK.format(9), *sound, *H264, "-c:a", "pcm_s16le", path)
    (example,) = _examples(path)
    wave = decode_clip(example.audio[0])
    assert np.abs(wave[:31_000]).max() < 1e-3
    assert np.abs(wave[33_000:]).max() > 0.1


def test_a_film_without_sound_has_no_clips(tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    ffmpeg("-f", "lavfi", "-i", CLOCK.format(5), *H264, tmp_path / "mute.mp4")
    (example,) = _examples(tmp_path / "mute.mp4")
    assert (len(example.images), example.audio) == (1, [])


def test_a_film_shorter_than_a_segment_is_one_segment(tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    ffmpeg("-f", "lavfi", "-i", CLOCK.format(1), *H264, tmp_path / "short.mp4")
    ffmpeg("-f", "lavfi", "-i", CLOCK.format(0.1), *H264, tmp_path / "frame.mp4")
    (example,) = _examples(tmp_path / "short.mp4")
    assert [(image.time, _number(image)) for image in example.images] == [(0.5, 5)]
    (example,) = _examples(tmp_path / "frame.mp4")
    assert [_number(image) for image in example.images] == [0]


def test_rotation_is_applied(film: Path, tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    path = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", film, "-c", "copy", path)
    (example,) = _examples(path)
    assert (example.images[0].width, example.images[0].height) == (48, 64)
    assert example.video is not None
    assert (example.video.width, example.video.height) == (48, 64)


def test_frames_are_shrunk_to_the_longer_side_with_square_pixels(tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=120x120:rate=5:duration=2", "-vf", "setsar=2", *H264, tmp_path / "w.mp4")
    (example,) = _examples(tmp_path / "w.mp4", max_side=100)
    assert (example.images[0].width, example.images[0].height) == (100, 50)


def test_of_several_pictures_the_largest_is_taken(tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    path = tmp_path / "two.mkv"
    small = ("-f", "lavfi", "-i", "color=red:size=16x16:rate=5:duration=5")
    large = ("-f", "lavfi", "-i", "color=blue:size=64x32:rate=5:duration=5")
    ffmpeg(*small, *large, "-map", "0", "-map", "1", *H264, path)
    (example,) = _examples(path)
    assert (example.images[0].width, example.images[0].height) == (64, 32)
    assert load_rgb(example.images[0]).mean(axis=(0, 1)).argmax() == 2


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfilm.mp4\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile film.mp4\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'></MPD>",
    ],
    ids=["hls", "concat", "sdp", "dash"],
)
def test_playlists_under_another_name_are_refused(text: str, film: Path, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(film.read_bytes())
    (tmp_path / "list.mp4").write_text(text)
    assert _reason(tmp_path / "list.mp4") == "video_unreadable"


def test_cut_off_films_get_a_reason(film: Path, tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    data = film.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    assert _reason(tmp_path / "cut.mp4") == "video_truncated"
    ffmpeg("-i", film, "-c", "copy", tmp_path / "index_last.mp4")
    data = (tmp_path / "index_last.mp4").read_bytes()
    (tmp_path / "no_index.mp4").write_bytes(data[: len(data) // 2])
    assert _reason(tmp_path / "no_index.mp4") == "video_unreadable"
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert _reason(tmp_path / "empty.mp4") == "video_unreadable"


def test_a_header_that_claims_an_hour_is_not_believed(film: Path, tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    ffmpeg("-i", film, "-c", "copy", tmp_path / "film.mkv")
    data = bytearray((tmp_path / "film.mkv").read_bytes())
    struct.pack_into(">d", data, data.index(b"\x44\x89\x88") + 3, 3_600_000.0)  # Matroska's Duration, milliseconds
    path = tmp_path / "hour.mkv"
    path.write_bytes(data)
    assert _reason(path) == "video_truncated"
    assert _reason(path, max_seconds=600) == "video_too_long"


def test_limits_hold(film: Path) -> None:
    assert _reason(film, max_pixels=64 * 48 - 1) == "video_too_large"
    assert _reason(film, max_seconds=5) == "video_too_long"
    assert _reason(film, max_streams=1) == "video_too_many_streams"


def test_sound_alone_is_no_film(tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "sound.mp4")
    assert _reason(tmp_path / "sound.mp4") == "video_no_stream"


def _track(path: Path) -> tuple[str, VideoTrack]:
    info = probe(str(path), "video", MediaLimits())
    assert info.video is not None
    return info.demuxer, info.video


def test_decoding_ends_at_its_time_limit(film: Path) -> None:
    demuxer, track = _track(film)
    with pytest.raises(BadRecord) as caught:
        frames_at(str(film), demuxer, track, [1.0, 8.0], 0.1, 64, timeout=0.0001)
    assert caught.value.reason == "video_timeout"


def test_frames_are_found_by_their_times(film: Path) -> None:
    demuxer, track = _track(film)
    times = [0.0, 0.31, 0.3, 5.0, 8.9]
    frames = frames_at(str(film), demuxer, track, times, 0.05, 64, 30)
    assert [(image.time, _number(image)) for image in frames] == list(zip(times, [0, 3, 3, 50, 89], strict=True))


def test_many_frames_are_found_in_one_pass(film: Path) -> None:
    demuxer, track = _track(film)
    frames = frames_at(str(film), demuxer, track, [n / 10 for n in range(90)], 0.01, 64, 30)
    assert [_number(image) for image in frames] == list(range(90))


def test_a_time_without_a_frame_is_refused(film: Path) -> None:
    demuxer, track = _track(film)
    for time in (0.35, 9.5):
        with pytest.raises(BadRecord) as caught:
            frames_at(str(film), demuxer, track, [0.0, time], 0.04, 64, 30)
        assert caught.value.reason == "video_timestamp_missing"


def test_transcripts_beside_films_go_to_their_segments(film: Path, tmp_path: Path, read_source: ReadSource) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("talk.mp4", "talk.m4v", "other film.mp4"):
        (folder / name).write_bytes(film.read_bytes())
    (folder / "talk.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nfirst\n\n00:05.000 --> 00:06.000\nsecond\n")
    (folder / "other film.srt").write_text("1\nno time here\n")
    examples, verdicts = read_source(VideoSource(type="video", name="films", path=str(folder)))
    assert verdicts == {
        "other film.mp4": "kept",
        "other film.srt": "transcript_malformed",
        "talk.m4v": "kept",
        "talk.mp4": "kept",
        "talk.vtt": "sidecar",
    }
    texts = {e.key: [(t.role, t.text, t.image, t.audio, t.start, t.end) for t in e.text] for e in examples}
    spoken = [("transcript", "first", 0, 0, 1.0, 2.0), ("transcript", "second", 1, 1, 5.0, 6.0)]
    assert texts == {"other film.mp4#0": [], "talk.m4v#0": spoken, "talk.mp4#0": spoken}


def test_transcripts_may_lie_elsewhere(film: Path, tmp_path: Path, read_source: ReadSource) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "words").mkdir()
    (tmp_path / "films" / "a.mp4").write_bytes(film.read_bytes())
    (tmp_path / "words" / "a_en.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nhello\n")
    source = VideoSource(
        type="video", name="films", path=str(tmp_path / "films"), transcripts=("../words/{stem}_en.vtt",)
    )
    examples, verdicts = read_source(source)
    assert [text.text for text in examples[0].text] == ["hello"]
    assert sorted(verdicts.values()) == ["kept", "sidecar"]
    assert [len(unit.files) for unit in source.units()] == [2]
