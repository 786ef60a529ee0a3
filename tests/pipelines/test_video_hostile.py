"""Films that are made to harm: every one ends with a reason, in little time and memory, and opens nothing else."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from omnimill.errors import BadRecord
from omnimill.infra.dataset import Unit
from omnimill.pipelines.sources.audio_files import AudioSettings, audio_examples
from omnimill.pipelines.sources.video import VideoSettings, VideoSource, video_examples
from omnimill.schema import Provenance

Ffmpeg = Callable[..., None]
SECONDS = 20.0


def _verdict(path: Path, kind: str = "video") -> str:
    source = VideoSource(type="video", name="films", path=str(path))
    unit = Unit(source="films", files=(str(path),))
    where = Provenance(uri=str(path), digest="d" * 64)
    started = time.monotonic()
    try:
        if kind == "video":
            video_examples(str(path), source, unit, "film", where, VideoSettings())
        else:
            audio_examples(str(path), source, unit, "film", where, AudioSettings())
    except BadRecord as fault:
        return fault.reason
    finally:
        assert time.monotonic() - started < SECONDS
    return "kept"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, ffmpeg: Ffmpeg) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=5", "-c:v", "libx264", "-threads", 1, path)
    return path


@contextmanager
def _listener() -> Iterator[tuple[int, list[str]]]:
    """A port, and who came to it."""
    callers: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                try:
                    connection, address = server.accept()
                except TimeoutError:
                    continue
                callers.append(str(address))
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], callers
        done.set()
        thread.join()


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
    "hls-key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:9,\nfilm.mp4\n#EXT-X-ENDLIST\n',
    "ffconcat": "ffconcat version 1.0\nfile '{target}'\n",
    "concat": "file '{target}'\nfile '{target}'\n",
    "pls": "[playlist]\nFile1={target}\n",
    "url": "{target}\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{target}</BaseURL></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
    "smil": '<smil><body><video src="{target}"/></body></smil>',
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>',
}


@pytest.mark.parametrize("form", PLAYLISTS)
def test_playlists_reach_nothing(form: str, film: Path, tmp_path: Path) -> None:
    with _listener() as (port, callers):
        for target in (f"http://127.0.0.1:{port}/x.mp4", film.as_uri(), "film.mp4", "/etc/passwd"):
            text = PLAYLISTS[form].format(target=target, port=port)
            for name in ("list.mp4", "list.mp3", "list.jpg"):
                (tmp_path / name).write_text(text)
                assert _verdict(tmp_path / name) == "video_unreadable"
                assert _verdict(tmp_path / name, "audio") == "audio_unreadable"
    assert callers == []


def test_a_playlist_behind_bytes_that_are_no_text_reaches_nothing(film: Path, tmp_path: Path) -> None:
    with _listener() as (port, callers):
        text = f"#EXTM3U\n#EXTINF:9,\x01\nhttp://127.0.0.1:{port}/x.mp4\n#EXT-X-ENDLIST\n"
        (tmp_path / "list.mp4").write_text(text)
        assert _verdict(tmp_path / "list.mp4") == "video_unreadable"
    assert callers == []


def _patched(film: Path, box: bytes, offset: int, value: bytes) -> bytes:
    data = bytearray(film.read_bytes())
    place = data.index(box) + 4 + offset
    data[place : place + len(value)] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("box", "offset", "value"),
    [
        (b"stsz", 8, struct.pack(">I", 0xFFFFFFFF)),
        (b"stsz", 4, struct.pack(">II", 1, 0xFFFFFFFF)),
        (b"stsz", 4, struct.pack(">II", 1, 50_000_000)),
        (b"stts", 8, struct.pack(">II", 0xFFFFFFFF, 1)),
        (b"stts", 4, struct.pack(">I", 0xFFFFFFFF)),
        (b"stsc", 4, struct.pack(">I", 0x0FFFFFFF)),
        (b"stsc", 12, struct.pack(">I", 0xFFFFFFFF)),
        (b"stco", 4, struct.pack(">I", 0x7FFFFFFF)),
        (b"mdhd", 12, struct.pack(">I", 0)),
        (b"mdhd", 12, struct.pack(">I", 1_000_000_000)),
        (b"mvhd", 16, struct.pack(">I", 0)),
        (b"avc1", 24, struct.pack(">HH", 0xFFFF, 0xFFFF)),
        (b"tkhd", 76, struct.pack(">II", 0xFFFFFFFF, 0xFFFFFFFF)),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) and len(value) != 4 else None,
)
def test_tables_of_mp4_that_do_not_end(box: bytes, offset: int, value: bytes, film: Path, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(_patched(film, box, offset, value))
    verdict = _verdict(path)
    assert verdict == "kept" or verdict.startswith("video_")


def _y4m(path: Path, header: str, frame: bytes = b"\x00" * 96) -> Path:
    path.write_bytes(f"YUV4MPEG2 {header} C420jpeg\nFRAME\n".encode() + frame)
    return path


def test_a_size_that_the_header_claims_is_refused_before_anything_is_decoded(
    film: Path, tmp_path: Path, ffmpeg: Ffmpeg
) -> None:
    raw = tmp_path / "raw.avi"
    ffmpeg("-i", film, "-c:v", "rawvideo", "-pix_fmt", "bgr24", raw)
    wide = tmp_path / "wide.avi"
    wide.write_bytes(_patched(raw, b"strf", 8, struct.pack("<ii", 16_000, 8_000)))
    assert _verdict(wide) == "video_too_large"
    assert _verdict(_y4m(tmp_path / "wide.y4m", "W60000 H60000 F25:1")).startswith("video_")
    assert _verdict(_y4m(tmp_path / "none.y4m", "W0 H0 F25:1")).startswith("video_")


def test_odd_frame_rates_and_lengths_of_nothing(tmp_path: Path) -> None:
    assert _verdict(_y4m(tmp_path / "fast.y4m", "W8 H8 F1000000000:1")) == "kept"
    assert _verdict(_y4m(tmp_path / "slow.y4m", "W8 H8 F1:1000000000")) == "video_too_long"
    assert _verdict(_y4m(tmp_path / "no_rate.y4m", "W8 H8 F0:0")).startswith(("kept", "video_"))
    assert _verdict(_y4m(tmp_path / "no_frame.y4m", "W8 H8 F25:1", b"")).startswith("video_")


def test_thousands_of_streams_are_refused(film: Path, tmp_path: Path) -> None:
    data = film.read_bytes()
    header = data.index(b"moov") - 4
    track = data.index(b"trak") - 4
    size = struct.unpack_from(">I", data, track)[0]
    tracks = data[track : track + size] * 3000
    boxes = data[header + 8 : track] + tracks
    path = tmp_path / "many.mp4"
    path.write_bytes(data[:header] + struct.pack(">I", 8 + len(boxes)) + b"moov" + boxes)
    # Beyond a thousand ffmpeg says that it has no memory for more.
    assert _verdict(path) in ("video_too_many_streams", "video_unreadable", "video_memory")


def test_sound_of_nan_in_a_film_is_quarantined(film: Path, tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    for value in (np.nan, np.inf):
        sound = np.zeros(5 * 16_000, np.float32)
        sound[40_000] = value
        sound.tofile(tmp_path / "sound.raw")
        raw = ("-f", "f32le", "-ar", 16_000, "-ac", 1, "-i", tmp_path / "sound.raw")
        ffmpeg("-i", film, *raw, "-c", "copy", tmp_path / "film.mkv")
        assert _verdict(tmp_path / "film.mkv") == "audio_not_finite"


def test_pictures_that_grow_past_the_limit_on_the_way(film: Path, tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    """The header of the stream is that of the small film; the large one follows in the same stream."""
    coding = ("-c:v", "libx264", "-threads", 1, "-bsf:v", "h264_mp4toannexb")
    ffmpeg("-i", film, "-c", "copy", "-f", "mpegts", tmp_path / "small.ts")
    large = ("-f", "lavfi", "-i", "testsrc=size=640x480:rate=5:duration=5")
    ffmpeg(*large, *coding[:4], "-output_ts_offset", 5, "-f", "mpegts", tmp_path / "large.ts")
    path = tmp_path / "both.ts"
    path.write_bytes((tmp_path / "small.ts").read_bytes() + (tmp_path / "large.ts").read_bytes())
    source = VideoSource(type="video", name="films", path=str(path))
    unit = Unit(source="films", files=(str(path),))
    where = Provenance(uri=str(path), digest="d")
    settings = VideoSettings(max_pixels=64 * 48, frames_per_second=5)
    with pytest.raises(BadRecord) as caught:
        video_examples(str(path), source, unit, "film", where, settings)
    assert caught.value.reason == "video_undecodable"
