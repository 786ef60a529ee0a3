"""Content is told from bytes; pictures are checked before and by decoding; nothing hostile costs much."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from omnimill import schema
from omnimill.errors import BadRecord, RecordDropped
from omnimill.pipelines.decoders import images
from omnimill.pipelines.decoders.images import ImageSettings
from omnimill.pipelines.decoders.pixels import load_grey, load_rgb
from omnimill.pipelines.decoders.sniff import claimed_medium, mislabelled, sniff
from omnimill.pipelines.decoders.tars import gunzip
from omnimill.pipelines.decoders.text import html_text, parse_json, text_value, utf8

DEFAULT = ImageSettings()


def decode_image(data: bytes, rules: ImageSettings, uri: str | None = None) -> schema.Image:
    """The picture as it is stored."""
    return images.decode_image(data, rules, uri).settled()


def gradient(width: int = 200, height: int = 150) -> np.ndarray:
    """A smooth colourful picture without symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 255 * (x + 2 * y) / (width + 2 * height)], -1).astype(np.uint8)


def encode(picture: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def encoded(form: str, **options: object) -> bytes:
    return encode(Image.fromarray(gradient()), form, **options)


def reason(data: bytes, rules: ImageSettings = DEFAULT) -> str:
    with pytest.raises((BadRecord, RecordDropped)) as caught:
        decode_image(data, rules)
    return caught.value.reason  # type: ignore[attr-defined, no-any-return]


def near(found: np.ndarray, wanted: np.ndarray, tolerance: float = 3) -> bool:
    return found.shape == wanted.shape and float(np.abs(found.astype(int) - wanted).mean()) < tolerance


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds a few bytes of data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def webp_header(width: int, height: int) -> bytes:
    body = b"\x10\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


@pytest.mark.parametrize(
    ("head", "name", "wanted"),
    [
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a.png", ("image", "jpeg")),
        (b"RIFF\0\0\0\0WEBPVP8 ", "", ("image", "webp")),
        (b"RIFF\0\0\0\0WAVEfmt ", "", ("audio", "wav")),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "", ("video", "mp4")),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "", ("image", "avif")),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "x.jpg", ("image", "heif")),
        (b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42", "", ("audio", "mp4")),
        (b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + b"fLaC", "", ("audio", "flac")),
        (b"\xff\xfb\x90\x64" + bytes(20), "", ("audio", "mp3")),
        (b"OggS" + bytes(24) + b"\x01vorbis", "", ("audio", "ogg")),
        (b"OggS" + bytes(24) + b"\x80theora", "", ("video", "ogg")),
        (b"glTF\2\0\0\0", "", ("mesh", "glb")),
        (b"\0\0\1\0\1\0\x20\x20\0\0\1\0\x18\0\x40\1\0\0\x16\0\0\0", "", ("image", "ico")),
        (b"\0\0\1\0\2\0\3\0\2\0\1\0" + bytes(20), "buffer.bin", None),
        (b"#EXTM3U\n#EXT-X-VERSION:3\n", "clip.mp4", ("other", "playlist")),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a.jpg", ("pointer", "git-lfs")),
        (b"<!DOCTYPE html>\n<html>", "photo.jpg", ("html", "html")),
        (b"\xef\xbb\xbfWEBVTT\n\n", "", ("transcript", "vtt")),
        (b"1\n00:00:01,000 --> 00:00:02,000\nHi\n", "", ("transcript", "srt")),
        (b'{"a": 1}', "", ("data", "json")),
        (b"v 0 0 0\n", "cube.obj", ("mesh", "obj")),
        ("Grüße aus Köln".encode(), "", ("text", "plain")),
        ("Grüße".encode()[:3], "", ("text", "plain")),
        (b"\x80\x81\x82\x83", "", None),
        (b"", "empty.jpg", None),
        (b"PAR1\x15\x04", "a.jpg", ("data", "parquet")),
    ],
)
def test_content_is_told_from_bytes(head: bytes, name: str, wanted: tuple[str, str] | None) -> None:
    found = sniff(head, name)
    assert (None if found is None else (found.medium, found.format)) == wanted


def test_names_promise_media() -> None:
    assert claimed_medium("a/B.JPG") == "image"
    assert claimed_medium("a.tar.mp4") == "video"
    assert claimed_medium("notes.txt") is None


@pytest.mark.parametrize(
    ("name", "form", "wanted"),
    [
        ("a.jpg", "PNG", "png as .jpg"),
        ("a.JPEG", "JPEG", None),
        ("a.tif", "TIFF", None),
        ("a.mp4", "GIF", "gif as .mp4"),
        ("a", "JPEG", None),
        ("a.txt", "JPEG", None),
        ("a.webp", "JPEG", "jpeg as .webp"),
    ],
)
def test_wrong_names_are_told(name: str, form: str, wanted: str | None) -> None:
    assert mislabelled(name, encoded(form)) == wanted


def test_sound_in_a_container_of_film_is_not_mislabelled() -> None:
    film = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"
    assert mislabelled("a.m4a", film) is None
    assert mislabelled("a.mp4", b"RIFF\0\0\0\0WAVEfmt ") == "wav as .mp4"
    assert mislabelled("a.jpg", b"\x80\x81") is None


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_pictures_that_are_fine_keep_their_bytes(form: str) -> None:
    data = encoded(form)
    image = decode_image(data, DEFAULT, "file:///a")
    assert image.data == data
    assert (image.format, image.width, image.height) == (form.lower(), 200, 150)
    assert image.digest == blake3(data).hexdigest()
    assert image.uri == "file:///a"
    assert near(load_rgb(image), gradient(), 4)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF"])
def test_other_formats_are_encoded_again(form: str) -> None:
    data = encoded(form)
    image = decode_image(data, DEFAULT)
    assert image.format == "jpeg"
    assert image.digest == blake3(data).hexdigest()
    assert near(load_rgb(image), gradient(), 6)
    assert decode_image(data, DEFAULT) == image


def test_small_graphics_become_png_without_loss() -> None:
    rgb = gradient(64, 48)
    image = decode_image(encode(Image.fromarray(rgb), "BMP"), DEFAULT)
    assert image.format == "png"
    assert np.array_equal(load_rgb(image), rgb)


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_exif_orientation_is_applied(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(form, exif=exif)
    image = decode_image(data, DEFAULT)
    wanted = UPRIGHT[orientation](gradient())
    assert (image.height, image.width) == wanted.shape[:2]
    assert near(load_rgb(image), wanted, 4)


def test_damaged_exif_does_not_cost_the_picture() -> None:
    for form in ("PNG", "JPEG"):
        image = decode_image(encoded(form, exif=b"Exif\0\0not a tiff header"), DEFAULT)
        assert image.data == encoded(form)


def test_every_mode_becomes_rgb() -> None:
    grey = gradient()[:, :, 0]
    deep = Image.fromarray(grey.astype(np.uint16) << 8)
    for data in (encode(deep, "PNG"), encode(deep, "TIFF")):
        assert near(load_rgb(decode_image(data, DEFAULT)), np.repeat(grey[:, :, None], 3, 2), 2)
    cmyk = Image.fromarray(gradient()).convert("CMYK")
    assert near(load_rgb(decode_image(encode(cmyk, "JPEG", quality=95), DEFAULT)), gradient(), 5)
    lab = Image.new("LAB", (200, 150), (255, 128, 128))
    assert near(load_rgb(decode_image(encode(lab, "TIFF"), DEFAULT)), np.full((150, 200, 3), 255), 2)
    bilevel = Image.fromarray(grey).convert("1")
    assert near(load_rgb(decode_image(encode(bilevel, "PNG"), DEFAULT)), np.asarray(bilevel.convert("RGB")))
    floating = Image.fromarray(grey.astype(np.float32))
    assert reason(encode(floating, "TIFF")) == "unsupported_image_mode"


def test_grey_jpeg_keeps_its_bytes() -> None:
    grey = gradient()[:, :, 0]
    data = encode(Image.fromarray(grey), "JPEG")
    image = decode_image(data, DEFAULT)
    assert image.data == data
    assert near(load_rgb(image), np.repeat(grey[:, :, None], 3, 2))


def test_transparency_lies_on_white() -> None:
    layer = np.zeros((100, 300, 4), np.uint8)
    layer[:, 100:] = (255, 0, 0, 255)
    layer[:, 200:, 3] = 128
    for form in ("PNG", "TIFF", "WEBP"):
        rgb = load_rgb(decode_image(encode(Image.fromarray(layer), form), DEFAULT))
        assert near(rgb[:, 10:90], np.full((100, 80, 3), 255), 2)
        assert near(rgb[:, 110:190], np.broadcast_to((255, 0, 0), (100, 80, 3)), 4)
        assert near(rgb[:, 210:290], np.broadcast_to((255, 127, 127), (100, 80, 3)), 4)
    palette = Image.new("P", (200, 200), 0)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    assert near(load_rgb(decode_image(encode(palette, "GIF", transparency=0), DEFAULT)), np.full((200, 200, 3), 255))


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_an_animation_gives_its_first_frame_or_is_dropped(form: str) -> None:
    first, second = Image.new("RGB", (200, 200), "red"), Image.new("RGB", (200, 200), "blue")
    data = encode(first, form, save_all=True, append_images=[second], duration=100)
    image = decode_image(data, DEFAULT)
    assert image.data != data
    assert near(load_rgb(image), np.broadcast_to((255, 0, 0), (200, 200, 3)), 4)
    assert reason(data, ImageSettings(animated="drop")) == "image_animated"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "AVIF"])
def test_a_cut_off_picture_is_refused(form: str) -> None:
    data = encoded(form)
    assert reason(data[: len(data) * 2 // 3]) in ("image_truncated", "image_undecodable")
    if form in ("JPEG", "PNG"):
        assert reason(data[: len(data) * 2 // 3]) == "image_truncated"


def test_damage_inside_a_jpeg_is_refused_and_junk_in_its_header_is_not() -> None:
    data = bytearray(encoded("JPEG", quality=95))
    scan = data.index(b"\xff\xda")
    middle = scan + (len(data) - scan) // 2
    damaged = data[:middle] + bytes(400) + data[middle + 400 :]
    assert reason(bytes(damaged)) in ("image_undecodable", "image_truncated")
    junk = bytes(data[:20]) + b"\x01\x02\x03" + bytes(data[20:])
    image = decode_image(junk, DEFAULT)
    assert image.data != junk
    assert near(load_rgb(image), gradient(), 4)


def test_limits_hold_before_decoding() -> None:
    data = encoded("PNG")
    assert reason(data, ImageSettings(max_bytes=len(data) - 1)) == "image_too_large"
    assert reason(data, ImageSettings(max_side=199)) == "image_too_large"
    assert reason(data, ImageSettings(max_pixels=200 * 150 - 1)) == "image_too_large"
    assert decode_image(data, ImageSettings(max_bytes=len(data), max_side=200, max_pixels=200 * 150)).width == 200
    assert reason(b"") == "empty_file"
    assert reason(b"<html><body>404</body></html>") == "not_an_image"
    assert reason(data, ImageSettings(formats=("jpeg",))) == "unsupported_image_format"
    assert reason(encode(Image.fromarray(gradient(32, 32)), "ICO")) == "unsupported_image_format"
    assert reason(b"8BPS\0\1" + bytes(100)) == "unsupported_image_format"
    for progressive in (False, True):
        scans = encoded("JPEG", progressive=progressive).replace(b"\xff\xd9", b"\xff\xda" * 200 + b"\xff\xd9")
        assert reason(scans) == "image_too_large"


def test_messages_do_not_differ_between_runs() -> None:
    with pytest.raises(BadRecord) as caught:
        decode_image(b"GIF89a" + bytes(2), DEFAULT)
    assert " at 0x" not in caught.value.message


BOMBS = """
import resource, sys
from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from pathlib import Path
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        decode_image(path.read_bytes(), ImageSettings())
        print(path.name, "kept")
    except BadRecord as bad:
        print(path.name, bad.reason)
print("grown", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_bombs_are_refused_without_memory(tmp_path: Path, realdata: Path) -> None:
    """Files that declare gigabytes of pixels cost next to nothing."""
    bombs = {
        "wide.png": png_header(60_000, 60_000),
        "just_above.png": png_header(8_000, 8_000),
        "canvas.webp": webp_header(16_384, 16_384),
        "screen.gif": b"GIF89a" + struct.pack("<HH", 65_000, 65_000) + encode(Image.new("P", (1, 1)), "GIF")[10:],
        "text.png": png_header(10, 10)[:33] + _png_text_bomb() + png_header(10, 10)[33:],
        "tall.bmp": b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 30_000, 30_000, 1, 24) + bytes(24),
        "tiles.tif": _tiled_tiff(60_000),
        "noise.ppm": b"P6 40000 40000 255\n" + bytes(100),
    }
    folder = tmp_path / "bombs"
    folder.mkdir()
    for name, data in bombs.items():
        (folder / name).write_bytes(data)
    for path in (realdata / "corrupt" / "bomb").glob("*"):
        (folder / path.name).write_bytes(path.read_bytes())
    done = subprocess.run([sys.executable, "-c", BOMBS, str(folder)], capture_output=True, text=True, check=True)
    verdicts = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert int(verdicts.pop("grown")) < 200_000, done.stdout  # kB
    for name in bombs:
        assert verdicts[name] == ("image_undecodable" if name == "text.png" else "image_too_large"), (name, verdicts)


def _png_text_bomb() -> bytes:
    body = b"Comment\0\0" + zlib.compress(bytes(50_000_000))
    return struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))


def _tiled_tiff(tile: int) -> bytes:
    """16 x 16 pixels, cut into tiles of another size altogether."""
    tags = [(256, 16), (257, 16), (258, 8), (259, 5), (262, 1), (277, 1), (322, tile), (323, tile), (324, 8), (325, 64)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(100)


@settings(max_examples=120)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]), st.data())
def test_damaged_bytes_give_a_picture_or_a_verdict(form: str, draw: st.DataObject) -> None:
    data = bytearray(encode(Image.fromarray(gradient(40, 30)), form))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(0, len(data)))
    try:
        image = decode_image(bytes(data[:cut] if draw.draw(st.booleans()) else data), DEFAULT)
    except (BadRecord, RecordDropped):
        return
    assert load_rgb(image).shape == (image.height, image.width, 3)


def test_grey_thumbnails_keep_proportions() -> None:
    for form in ("JPEG", "PNG"):
        image = decode_image(encode(Image.fromarray(gradient(400, 100)), form), DEFAULT)
        assert load_grey(image, 64).shape == (16, 64)
        assert load_grey(image, 1000).shape == (100, 400)


def test_real_pictures_get_the_verdicts_their_names_promise(realdata: Path) -> None:
    verdicts: dict[str, Counter[str]] = {}
    for folder in ("images/exif/orientation", "corrupt/truncated", "corrupt/odd", "corrupt/mislabelled"):
        verdicts[folder] = Counter()
        for path in sorted((realdata / folder).glob("*")):
            try:
                decode_image(path.read_bytes(), DEFAULT)
                verdicts[folder]["kept"] += 1
            except BadRecord as bad:
                verdicts[folder][bad.reason] += 1
    assert set(verdicts["images/exif/orientation"]) <= {"kept"}
    assert set(verdicts["corrupt/mislabelled"]) <= {"kept"}
    assert verdicts["corrupt/truncated"]["kept"] <= 1  # one has all of its picture and lacks its last marker only


def test_text_is_strict_utf8() -> None:
    assert utf8("\ufeffGrüße".encode()) == "Grüße"
    with pytest.raises(BadRecord, match="byte 3"):
        utf8(b"abc\xff\xfe")
    for value in ('{"a": 1', "[" * 100_000, b"\xff{}"):
        with pytest.raises(BadRecord):
            parse_json(value)
    assert text_value("x", "t") == "x"
    for value, code in ((None, "missing_field"), (3, "wrong_type"), ("\ud800", "invalid_utf8")):
        with pytest.raises(BadRecord) as caught:
            text_value(value, "t")
        assert caught.value.reason == code


def test_html_becomes_what_a_reader_sees() -> None:
    page = (
        "<!doctype html><html><head><title>Nav</title><style>p{}</style></head>"
        "<body><script>var x = '<p>no</p>';</script>"
        "<h1>Bread &amp;   butter</h1><p>First<br>second <b>bold</b> line</p><!-- hidden --><ul><li>one</li><li>two"
        "</ul><noscript>off</noscript></body></html>"
    )
    assert html_text(page.encode()) == "Bread & butter\nFirst\nsecond bold line\none\ntwo"
    latin = '<html><head><meta charset="iso-8859-1"></head><body>Grüße</body>'.encode("latin-1")
    assert html_text(latin) == "Grüße"
    with pytest.raises(BadRecord):
        html_text("<body>Grüße</body>".encode("latin-1"))


def test_gzip_members_are_bounded() -> None:
    assert gunzip(gzip.compress(b"hello"), 5) == b"hello"
    for data, code in (
        (gzip.compress(bytes(10_000_000)), "member_too_large"),
        (gzip.compress(b"hello" * 100)[:-12], "compression_damaged"),
        (b"not gzip", "compression_damaged"),
    ):
        with pytest.raises(BadRecord) as caught:
            gunzip(data, 1000)
        assert caught.value.reason == code
