"""Films: the right frames and sounds at the right times for any clock, and verdicts on what is no film."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimill.errors import BadRecord
from omnimill.infra.dataset import Unit
from omnimill.pipelines.decoders.audio import decode_clip
from omnimill.pipelines.decoders.film import FilmWish, read_film
from omnimill.pipelines.decoders.pixels import load_rgb
from omnimill.pipelines.decoders.probe import MediaLimits, VideoTrack, probe
from omnimill.pipelines.decoders.shots import ShotSettings, find_cuts
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


COLOURS = ("red", "blue", "green", "white")


@pytest.fixture(scope="module")
def cut_film(tmp_path_factory: pytest.TempPathFactory, ffmpeg: Ffmpeg) -> Path:
    """Four shots of 3, 6, 1 and 2 s at 25 frames a second, with grain; B-frames; a tone."""
    path = tmp_path_factory.mktemp("cut") / "cut.mp4"
    inputs = [
        part
        for colour, seconds in zip(COLOURS, (3, 6, 1, 2), strict=True)
        for part in (
            "-f",
            "lavfi",
            "-i",
            f"color={colour}:size=160x120:rate=25:duration={seconds},noise=alls=12:allf=t",
        )
    ]
    sound = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=12")
    joined = "[0:v][1:v][2:v][3:v]concat=n=4[v]"
    coding = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-threads", "1", "-c:a", "aac")
    ffmpeg(*inputs, *sound, "-filter_complex", joined, "-map", "[v]", "-map", "4:a", *coding, path)
    return path


def _colour(image: Image) -> str:
    bright = tuple(load_rgb(image).mean(axis=(0, 1)) > 100)
    names = {(True, False, False): "red", (False, True, False): "green", (False, False, True): "blue"}
    return names.get(bright, "white")


def test_segments_begin_anew_at_every_cut(cut_film: Path) -> None:
    (example,) = _examples(cut_film, segments="shots", segments_per_example=8)
    assert [(round(clip.start or 0, 2), round(clip.samples / 16_000, 2)) for clip in example.audio] == [
        (0.0, 3.0),
        (3.0, 4.08),
        (9.0, 1.0),
        (10.0, 2.0),
    ]
    assert [(image.time, _colour(image)) for image in example.images] == [
        (pytest.approx(1.5), "red"),
        (pytest.approx(5.04), "blue"),
        (pytest.approx(9.5), "green"),
        (pytest.approx(11.0), "white"),
    ]
    scores = example.meta.scores
    assert (scores["shots"], scores["start_seconds"], scores["end_seconds"]) == (4, 0, pytest.approx(12, abs=0.05))
    assert scores["source_sample_rate"] == 48_000


def test_frames_at_a_rate_are_shared_out_to_segments(cut_film: Path) -> None:
    (example,) = _examples(cut_film, segments="shots", frames_per_second=1, segments_per_example=8)
    times = [image.time for image in example.images]
    assert times == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 9.5, 10.5, 11.5]  # what is left of the blue shot is no segment
    assert [_colour(image) for image in example.images] == ["red"] * 3 + ["blue"] * 4 + ["green"] + ["white"] * 2
    (example,) = _examples(cut_film, frames_per_second=0.5, segment_seconds=4, segments_per_example=3)
    assert [image.time for image in example.images] == [1.0, 3.0, 5.0, 7.0, 9.0, 11.0]


def test_frames_that_are_not_decoded_change_no_picture(cut_film: Path) -> None:
    info = probe(str(cut_film), "video", MediaLimits())
    assert info.video is not None
    times = tuple(0.04 * number + 0.02 for number in range(0, 300, 7))
    wish = FilmWish(times, ((0.0, 12.0),), sound=True, shots=ShotSettings(), max_side=160)
    some = read_film(str(cut_film), info, wish, MediaLimits())
    unknown = replace(info, video=replace(info.video, times=array("q")))
    every = read_film(str(cut_film), unknown, wish, MediaLimits())
    assert some.frames == every.frames
    assert some.cuts == every.cuts == pytest.approx([3.0, 9.0, 10.0])
    assert all((a == b).all() for a, b in zip(some.sound[0].pieces, every.sound[0].pieces, strict=True))


@given(
    cuts=st.sets(st.integers(20, 280), max_size=6),
    level=st.floats(0, 12),
    wobble=st.lists(st.floats(0.8, 1.2), min_size=300, max_size=300),
)
def test_cuts_stand_out_from_steady_movement(cuts: set[int], level: float, wobble: list[float]) -> None:
    changes = [60.0 if number in cuts else level * wobble[number] for number in range(300)]
    apart = [cut for cut in sorted(cuts) if not any(0 < abs(cut - other) < 20 for other in cuts)]
    found = find_cuts([number / 25 for number in range(300)], changes, ShotSettings())
    assert set(found) <= {cut / 25 for cut in cuts}
    assert {cut / 25 for cut in apart} <= set(found)


def test_flicker_is_no_cut() -> None:
    times = [number / 25 for number in range(100)]
    assert find_cuts(times, [40.0] * 100, ShotSettings()) == []
    assert find_cuts([], [], ShotSettings()) == []


def _table_source(folder: Path, rows: str) -> VideoSource:
    (folder / "t.csv").write_text("id,start,end,text\n" + rows)
    table = {"files": ["t.csv"], "file": "{id}", "start": "start", "end": "end", "caption": "text", "cut": True}
    return VideoSource.model_validate(
        {"type": "video", "name": "films", "path": str(folder), "table": table, "segment_seconds": 2}
    )


def test_only_the_spans_of_a_table_are_cut(tmp_path: Path, ffmpeg: Ffmpeg, read_source: ReadSource) -> None:
    # A frame a second whose number is its time; the spans are far enough apart to jump between them.
    sound = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=16000:duration=90")
    slow = CLOCK.format(9).replace("rate=10", "rate=1").replace("duration=9", "duration=90")
    ffmpeg("-f", "lavfi", "-i", slow, *sound, *H264, "-g", "8", "-bf", "2", "-c:a", "aac", tmp_path / "f.mp4")
    source = _table_source(tmp_path, "f,70.5,74.5,last\nf,1,5,first\nf,30,33,second\nf,300,310,gone\nf,9,8,wrong\n")
    examples, verdicts = read_source(source)
    assert verdicts == {"f.mp4": "kept"}
    assert [[text.text for text in example.text] for example in examples] == [["first"], ["second"], ["last"]]
    assert [[(image.time, _number(image)) for image in example.images] for example in examples] == [
        [(2.0, 2), (4.0, 4)],
        [(31.0, 31)],
        [(71.5, 71), (73.5, 73)],
    ]
    assert [[(clip.start, clip.samples) for clip in example.audio] for example in examples] == [
        [(1.0, 32_000), (3.0, 32_000)],
        [(30.0, 32_000)],
        [(70.5, 32_000), (72.5, 32_000)],
    ]
    assert all(np.abs(decode_clip(clip)).max() > 0.1 for example in examples for clip in example.audio)
    assert read_source(_table_source(tmp_path, "f,300,310,gone\n"))[1] == {"f.mp4": "span_outside"}


def test_streams_can_be_chosen_and_the_others_are_named(tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    path = tmp_path / "many.mkv"
    pictures = [("-f", "lavfi", "-i", f"color={c}:size={s}:rate=5:duration=5") for c, s in (("red", 16), ("blue", 64))]
    sizes = [part.replace("size=16", "size=16x16").replace("size=64", "size=64x32") for p in pictures for part in p]
    sounds = [("-f", "lavfi", "-i", f"sine=frequency={f}:sample_rate=16000:duration=5") for f in (300, 900)]
    maps = [part for number in range(4) for part in ("-map", number)]
    names = ("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fra")
    ffmpeg(*sizes, *(part for s in sounds for part in s), *maps, *H264, "-c:a", "pcm_s16le", *names, path)
    (best,) = _examples(path)
    others = best.meta.tags["other_streams"]
    assert others.startswith("0: video h264 16 x 16; 3: audio pcm_s16le 1 x 16000 Hz fra")
    (chosen,) = _examples(path, video_stream=0, audio_stream=1)
    assert load_rgb(chosen.images[0]).mean(axis=(0, 1)).argmax() == 0
    for example, pitch in ((best, 300), (chosen, 900)):
        spectrum = np.abs(np.fft.rfft(decode_clip(example.audio[0])))
        assert spectrum.argmax() * 16_000 / example.audio[0].samples == pytest.approx(pitch, abs=2)
    assert _reason(path, audio_stream=2) == "video_no_stream"


def test_frames_come_the_way_up_that_players_show_them(tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    plain = tmp_path / "plain.mp4"
    ffmpeg("-f", "lavfi", "-i", "smptebars=size=256x192:rate=5:duration=1", *H264, plain)
    turns = [
        ("-display_rotation", "90"),
        ("-display_rotation", "180"),
        ("-display_rotation", "270"),
        ("-display_hflip",),
    ]
    for number, turn in enumerate([*turns, ("-display_rotation", "90", "-display_vflip")]):
        path, shown = tmp_path / f"{number}.mp4", tmp_path / f"{number}.png"
        ffmpeg(*turn, "-i", plain, "-c", "copy", path)
        ffmpeg("-i", path, "-frames:v", 1, shown)
        (example,) = _examples(path)
        with PIL.Image.open(shown) as picture:
            expected = np.asarray(picture.convert("RGB"), np.int16)
        assert load_rgb(example.images[0]).shape == expected.shape
        assert np.abs(load_rgb(example.images[0]) - expected).mean() < 6, turn


def test_sound_that_is_longer_or_shorter_than_the_pictures(tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    for name, seconds in (("long", 20), ("short", 3)):
        sound = ("-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=16000:duration={seconds}")
        path = tmp_path / f"{name}.mkv"
        ffmpeg("-f", "lavfi", "-i", CLOCK.format(9), *sound, *H264, "-c:a", "pcm_s16le", path)
    (example,) = _examples(tmp_path / "long.mkv")
    assert [clip.samples for clip in example.audio] == [65_280, 65_280]
    (example,) = _examples(tmp_path / "short.mkv")
    assert ([clip.samples for clip in example.audio], len(example.images)) == ([48_000], 2)
