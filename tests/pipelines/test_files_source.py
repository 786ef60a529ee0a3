"""A folder of anything: each file becomes what it holds, or one verdict."""

from __future__ import annotations

import io
import wave
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from omnimill.pipelines.sources.files import FilesSource
from omnimill.pipelines.sources.webdataset_tars import WebDatasetSource
from omnimill.pipelines.verdicts import Outcome, decode_in_order, read_records

CUBE = "".join(f"v {i & 1} {i >> 1 & 1} {i >> 2}\n" for i in range(8)) + "f 1 2 4 3\nf 5 6 8 7\nf 1 2 6 5\n"


def outcomes(source: Any) -> dict[str, Outcome]:
    found = [one for unit in source.units() for one in decode_in_order(read_records(source.read, unit), 2)]
    assert len({one.record.key for one in found}) == len(found)
    return {one.record.key: one for one in found}


def verdict(outcome: Outcome) -> str:
    return "kept" if outcome.rejection is None else f"{outcome.rejection.verdict}: {outcome.rejection.reason}"


def files(path: Path, **options: Any) -> FilesSource:
    return FilesSource(type="files", name="all", path=str(path), mesh={"views": 2, "size": 32}, **options)


def picture(form: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(stream, form)
    return stream.getvalue()


def sound(seconds: float = 1.0) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        tone = np.sin(np.arange(int(16_000 * seconds)) * 0.1)
        out.writeframes((tone * 20_000).astype("<i2").tobytes())
    return stream.getvalue()


def film(pictures: bool = True) -> bytes:
    """A second of MP4; without pictures it holds sound alone."""
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as out:
        if pictures:
            track = out.add_stream("mpeg4", rate=10)
            track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
            for i in range(10):
                shade = np.full((48, 64, 3), 20 * i, np.uint8)
                out.mux(track.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        else:
            track = out.add_stream("aac", rate=16_000, layout="mono")
            for i in range(16):
                tone = np.sin(np.arange(i * 1024, (i + 1) * 1024) * 0.1).astype(np.float32)[None]
                frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16_000, i * 1024
                out.mux(track.encode(frame))
        out.mux(track.encode(None))
    return stream.getvalue()


@pytest.fixture(scope="module")
def media() -> dict[str, bytes]:
    return {"film": film(), "spoken": film(pictures=False), "sound": sound(), "picture": picture()}


def test_every_file_ends_with_what_it_holds(tmp_path: Path, media: dict[str, bytes]) -> None:
    table = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), table)
    contents = {
        "a.jpg": (media["picture"], "kept"),
        "png_named.jpg": (picture("PNG"), "kept"),
        "film.bin": (media["film"], "kept"),
        "spoken.mp4": (media["spoken"], "kept"),
        "sound.dat": (media["sound"], "kept"),
        "sub/cube.obj": (CUBE.encode(), "kept"),
        "notes.txt": ("Grüße\n".encode(), "kept"),
        "page.html": (b"<html><body><p>Hello</p><script>x</script></body></html>", "kept"),
        "talk.vtt": (b"WEBVTT\n\n00:01.000 --> 00:02.000\n<i>Good</i> morning\n", "kept"),
        "talk.srt": (b"1\n00:00:01,000 --> 00:00:02,000\nGood day\n", "kept"),
        "list.json": (b'{"images": []}', "dropped: sidecar"),
        "list.csv": (b"a,b\n1,2\n", "dropped: sidecar"),
        "table.parquet": (table.getvalue(), "dropped: unsupported_type"),
        "paper.pdf": (b"%PDF-1.7\n", "dropped: unsupported_type"),
        "unknown.xyz": (b"\x80\x81\x82", "dropped: unsupported_type"),
        "script.html": (b"<html><body><script>x</script></body></html>", "dropped: no_text"),
        "empty.jpg": (b"", "quarantined: empty_file"),
        "pointer.mp4": (b"version https://git-lfs.github.com/spec/v1\noid x\n", "quarantined: pointer_file"),
        "playlist.mp4": (b"#EXTM3U\n/etc/passwd\n", "quarantined: mislabelled"),
        "error.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "quarantined: mislabelled"),
        "cut.jpg": (media["picture"][:200], "quarantined: image_truncated"),
        "marks_lost.png": (bytes(8) + picture("PNG")[8:], "quarantined: not_an_image"),
        "icon.ico": (picture("ICO"), "quarantined: unsupported_image_format"),
        "broken.vtt": (b"WEBVTT\n\n00:01.000 --> nowhere\nx\n", "quarantined: transcript_malformed"),
        "latin.txt": ("Grüße aus Köln".encode("latin-1"), "quarantined: invalid_utf8"),
        "latin.html": ('<html><meta charset="latin1"><body>Grüße</body></html>'.encode("latin-1"), "kept"),
        "nul_far_in.txt": (b"x" * 5000 + b"\0", "quarantined: binary_file"),
    }
    for name, (data, _) in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found = outcomes(files(tmp_path, files_per_unit=4))
    assert {name: verdict(one) for name, one in found.items()} == {
        name: wanted for name, (_, wanted) in contents.items()
    }
    first = {name: one.examples[0] for name, one in found.items() if one.examples}
    assert first["png_named.jpg"].images[0].format == "png"
    assert first["film.bin"].video is not None
    assert first["film.bin"].images
    assert first["spoken.mp4"].audio
    assert first["spoken.mp4"].video is None
    assert first["sound.dat"].audio[0].sample_rate == 16_000
    assert len(first["sub/cube.obj"].views) == 2
    texts = {name: (example.text[0].role, example.text[0].text) for name, example in first.items() if example.text}
    assert texts["notes.txt"] == ("body", "Grüße\n")
    assert texts["latin.html"] == ("body", "Grüße")
    assert texts["page.html"] == ("body", "Hello")
    assert texts["talk.vtt"] == ("transcript", "Good morning")
    assert texts["talk.srt"] == ("transcript", "Good day")


def test_sizes_are_bounded(tmp_path: Path, media: dict[str, bytes]) -> None:
    (tmp_path / "long.txt").write_text("x" * 2000)
    (tmp_path / "long.wav").write_bytes(media["sound"])
    (tmp_path / "large.jpg").write_bytes(media["picture"])
    found = outcomes(files(tmp_path, max_text_bytes=1000, max_file_bytes=1000, images={"max_pixels": 100}))
    assert {verdict(one) for one in found.values()} == {"quarantined: file_too_large", "quarantined: image_too_large"}


def test_a_mesh_depends_on_the_files_it_refers_to(tmp_path: Path) -> None:
    (tmp_path / "cube.obj").write_text("mtllib cube.mtl\n" + CUBE)
    (tmp_path / "cube.mtl").write_text("newmtl red\nKd 1 0 0\n")
    source = files(tmp_path, include=("*.obj",))
    unit = next(source.units())
    before = [ref.digest for ref in source.inputs(unit)]
    (tmp_path / "cube.mtl").write_text("newmtl red\nKd 0 1 0\n")
    assert len(before) == 2
    assert before != [ref.digest for ref in source.inputs(unit)]


def test_recordings_in_tars_take_their_texts_as_caption(tmp_path: Path, media: dict[str, bytes]) -> None:
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in {
            "one.mp4": media["film"],
            "one.txt": b"A fade",
            "one.json": b'{"url": "https://example.org/one"}',
            "two.wav": media["sound"],
            "three.mp4": media["film"],
            "three.jpg": media["picture"],
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    found = outcomes(WebDatasetSource(type="webdataset", name="clips", path=str(tmp_path)))
    assert Counter(map(verdict, found.values())) == {"kept": 2, "dropped: unsupported_member": 1}
    example = found["a.tar/one"].examples[0]
    assert example.video is not None
    assert [(text.role, text.text) for text in example.text] == [("caption", "A fade")]
    assert example.meta.url == "https://example.org/one"
    assert found["a.tar/two"].examples[0].audio
