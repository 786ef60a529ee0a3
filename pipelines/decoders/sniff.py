"""What a file holds, told from its first bytes and never from its name alone.

A name is used only where the content is plain text and its dialect shows no mark of its own (``.obj``, ``.srt``).
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Literal

Medium = Literal["image", "audio", "video", "mesh", "transcript", "html", "text", "data", "pointer", "other"]

# Bytes from the start of a file that are enough for every rule below.
HEAD_BYTES = 4096


@dataclass(frozen=True)
class Content:
    """medium: what kind of thing it is; `data` is a table or record file, `pointer` a stand-in for content elsewhere.

    format: the container or dialect, in lower case, e.g. ``jpeg``, ``mp4``, ``vtt``.
    """

    medium: Medium
    format: str


# (offset, bytes, medium, format), first match wins.
_MAGIC: tuple[tuple[int, bytes, Medium, str], ...] = (
    (0, b"\xff\xd8\xff", "image", "jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image", "png"),
    (0, b"GIF87a", "image", "gif"),
    (0, b"GIF89a", "image", "gif"),
    (0, b"II*\0", "image", "tiff"),
    (0, b"MM\0*", "image", "tiff"),
    (0, b"II+\0", "image", "tiff"),
    (0, b"MM\0+", "image", "tiff"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "image", "jp2"),
    (0, b"\xff\x4f\xff\x51", "image", "jp2"),
    (0, b"icns", "image", "icns"),
    (0, b"8BPS", "image", "psd"),
    (0, b"%!PS", "image", "eps"),
    (0, b"\xc5\xd0\xd3\xc6", "image", "eps"),
    (0, b"\xff\x0a", "image", "jxl"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "image", "jxl"),
    (0, b"DDS ", "image", "dds"),
    (0, b"v/1\1", "image", "exr"),
    (0, b"#?RADIANCE", "image", "hdr"),
    (0, b"fLaC", "audio", "flac"),
    (0, b"ID3", "audio", "mp3"),
    (0, b"MThd", "other", "midi"),
    (0, b".snd", "audio", "au"),
    (0, b"caff", "audio", "caf"),
    (0, b"#!AMR", "audio", "amr"),
    (0, b"NIST_1A\n", "audio", "sphere"),
    (0, b"wvpk", "audio", "wavpack"),
    (0, b"\x1aE\xdf\xa3", "video", "matroska"),
    (0, b"FLV\1", "video", "flv"),
    (0, b"\0\0\1\xba", "video", "mpeg"),
    (0, b"\0\0\1\xb3", "video", "mpeg"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "video", "asf"),
    (0, b"glTF", "mesh", "glb"),
    (0, b"ply\n", "mesh", "ply"),
    (0, b"ply\r", "mesh", "ply"),
    (0, b"PAR1", "data", "parquet"),
    (0, b"ARROW1", "data", "arrow"),
    (0, b"\x89HDF\r\n\x1a\n", "data", "hdf5"),
    (0, b"SQLite format 3\0", "data", "sqlite"),
    (0, b"\x93NUMPY", "data", "npy"),
    (0, b"WARC/1.", "data", "warc"),
    (257, b"ustar", "data", "tar"),
    (0, b"PK\3\4", "data", "zip"),
    (0, b"\x1f\x8b", "data", "gzip"),
    (0, b"BZh", "data", "bzip2"),
    (0, b"\xfd7zXZ\0", "data", "xz"),
    (0, b"(\xb5/\xfd", "data", "zstd"),
    (0, b"7z\xbc\xaf'\x1c", "data", "7z"),
    (0, b"%PDF-", "other", "pdf"),
    (0, b"\x7fELF", "other", "elf"),
    (0, b"\xca\xfe\xba\xbe", "other", "java"),
)
_BRANDS = {  # ISO base media: four letters after "ftyp"
    b"avif": ("image", "avif"),
    b"avis": ("image", "avif"),
    b"M4A ": ("audio", "mp4"),
    b"M4B ": ("audio", "mp4"),
    b"jp2 ": ("image", "jp2"),
} | dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), ("image", "heif"))
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_BOXES = (b"moov", b"mdat", b"moof", b"styp", b"sidx", b"free", b"wide", b"skip", b"pnot")
_MEDIA_SUFFIXES: dict[Medium, set[str]] = {
    "image": {
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "apng",
        "webp",
        "gif",
        "tif",
        "tiff",
        "bmp",
        "dib",
        "ppm",
        "pgm",
        "pbm",
        "pnm",
        "avif",
        "heic",
        "heif",
        "jp2",
        "j2k",
        "jxl",
        "mpo",
        "ico",
        "icns",
        "psd",
        "eps",
    },
    "audio": {
        "wav",
        "wave",
        "flac",
        "mp3",
        "ogg",
        "oga",
        "opus",
        "m4a",
        "aac",
        "aif",
        "aiff",
        "au",
        "sph",
        "amr",
        "wma",
        "caf",
    },
    "video": {"mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts", "flv", "wmv", "ogv", "3gp"},
    "mesh": {"glb", "gltf", "obj", "ply", "dae", "stl", "off"},
}
_MEDIUM_OF: dict[str, Medium] = {ending: medium for medium, endings in _MEDIA_SUFFIXES.items() for ending in endings}
# Suffixes of pictures that are not the name of their format.
_PICTURE_FORMATS = (
    dict.fromkeys(("jpg", "jpe", "jfif", "mpo"), "jpeg")
    | dict.fromkeys(("pgm", "pbm", "pnm"), "ppm")
    | {"apng": "png", "tif": "tiff", "dib": "bmp", "heic": "heif", "j2k": "jp2"}
)
_TEXT_MARKS = (
    (re.compile(r"\s*version https://git-lfs\.github\.com/spec/"), Content("pointer", "git-lfs")),
    (re.compile(r"\S*/annex/objects/"), Content("pointer", "git-annex")),
    (re.compile(r"\s*#EXTM3U"), Content("other", "playlist")),
    (re.compile(r"\s*WEBVTT"), Content("transcript", "vtt")),
    (re.compile(r"\s*(\d+\s*\n)?\s*\d{1,2}:\d\d:\d\d[,.]\d{1,3}\s*-->"), Content("transcript", "srt")),
    (re.compile(r"\d{1,2}:\d\d:\d\d\.\d{1,3},\d{1,2}:\d\d:\d\d\.\d{1,3}\s*\n"), Content("transcript", "sbv")),
)
_ELEMENTS = (
    (re.compile(r"<collada"), Content("mesh", "dae")),
    (re.compile(r"<(tt:)?tt[\s>]"), Content("transcript", "ttml")),
    (re.compile(r"<!doctype html|<(html|head|body)[\s>]"), Content("html", "html")),
    (re.compile(r"<svg"), Content("image", "svg")),
)
_TEXT_SUFFIXES = (
    {ending: Content("html", "html") for ending in ("htm", "html", "xhtml")}
    | {ending: Content("transcript", ending) for ending in ("vtt", "srt", "sbv", "ctm")}
    | {ending: Content("mesh", ending) for ending in ("gltf", "obj", "ply")}
    | {ending: Content("data", ending) for ending in ("csv", "tsv", "mtl", "yaml", "yml", "toml", "xml")}
    | {ending: Content("data", "json") for ending in ("json", "jsonl", "ndjson")}
)
_JSON = re.compile(r'\s*(\{\s*"|\[\s*[\[{"])')
# Of the characters of a text, those that are no UTF-8.
_MAX_STRANGE = 0.3
_CONTROL = re.compile(r"[\0-\x08\x0e-\x1a\x1c-\x1f]")


def claimed_medium(name: str) -> Medium | None:
    """The medium that a file's suffix promises; None when it promises none of image, audio, video or mesh."""
    return _MEDIUM_OF.get(suffix(name))


def mislabelled(name: str, head: bytes) -> str | None:
    """What a file of pictures, sound, film or meshes is instead of what its name says, as in ``png as .jpg``.

    None when the name is right, says nothing, or nothing is recognised. Formats count for pictures, the medium for
    others: containers of sound and film go by many names.
    """
    ending = suffix(name)
    claimed = _MEDIUM_OF.get(ending)
    content = sniff(head, name) if claimed is not None else None
    if content is None:
        return None
    right = content.format == _PICTURE_FORMATS.get(ending, ending) if claimed == "image" else content.medium == claimed
    # Sound may come in a container of film.
    right = right or (claimed == "audio" and content.medium == "video")
    return None if right else f"{content.format} as .{ending}"


def suffix(name: str) -> str:
    """The last suffix of a name in lower case, without the dot."""
    stem, _, ending = name.rstrip("/").rpartition("/")[2].rpartition(".")
    return ending.lower() if stem else ""


def sniff(head: bytes, name: str = "") -> Content | None:
    """Tell content from the first `HEAD_BYTES` bytes of a file; None when nothing is recognised."""
    for offset, magic, medium, form in _MAGIC:
        if head.startswith(magic, offset):
            return _behind_id3(head) or Content(medium, form)
    return _riff(head) or _iso_media(head) or _frames(head) or _small_images(head) or _text(head, suffix(name))


def _behind_id3(head: bytes) -> Content | None:
    """FLAC behind an ID3 tag, the one container that hides behind another's mark."""
    if not head.startswith(b"ID3") or len(head) < 10:
        return None
    size = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return Content("audio", "flac") if head.startswith(b"fLaC", size) else None


def _riff(head: bytes) -> Content | None:
    kind = head[8:12]
    if head.startswith((b"RIFF", b"RF64", b"RIFX")):
        if kind == b"WAVE":
            return Content("audio", "wav")
        if kind == b"WEBP":
            return Content("image", "webp")
        if kind == b"AVI ":
            return Content("video", "avi")
    if head.startswith(b"FORM") and kind in (b"AIFF", b"AIFC"):
        return Content("audio", "aiff")
    if head.startswith(b"OggS"):
        return Content("video", "ogg") if b"\x80theora" in head[:512] else Content("audio", "ogg")
    return None


def _iso_media(head: bytes) -> Content | None:
    box = head[4:8]
    if box == b"ftyp":
        brands = [head[8:12], *(head[i : i + 4] for i in range(16, min(int.from_bytes(head[:4]), 256), 4))]
        # The major brand decides; a generic one ("mif1") leaves it to the compatible brands.
        found = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        if brands[0] in _BRANDS:
            medium, form = found[0] if brands[0] not in (b"mif1", b"msf1") else min(found)
            return Content("image" if medium == "image" else "audio", form)
        return Content("video", "mov" if brands[0] == b"qt  " else "mp4")
    return Content("video", "mp4") if box in _BOXES and len(head) >= 16 else None


def _frames(head: bytes) -> Content | None:
    """Formats of bare frames: a sync pattern and header fields that must make sense."""
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return Content("video", "mpegts")
    if len(head) >= 4 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return Content("audio", "aac")
    sync = len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    if sync and head[1] & 0x18 != 0x08 and head[1] & 0x06 and head[2] >> 4 not in (0, 15) and head[2] & 0x0C != 0x0C:
        return Content("audio", "mp3")
    return None


def _small_images(head: bytes) -> Content | None:
    """Old picture formats whose marks are two or three bytes: other header fields must fit as well."""
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return Content("image", "bmp")
    if head.startswith((b"\0\0\1\0", b"\0\0\2\0")) and len(head) >= 22:
        first_picture = int.from_bytes(head[18:22], "little")
        if first_picture == 6 + 16 * int.from_bytes(head[4:6], "little"):
            return Content("image", "ico")
    return Content("image", "ppm") if re.match(rb"P[1-7]\s[\s#\d-]", head) else None


def _text(head: bytes, ending: str) -> Content | None:
    text = _as_text(head)
    if text is None or not text.strip():
        return None
    marked = next((content for pattern, content in _TEXT_MARKS if pattern.match(text)), None)
    return marked or _markup(text.lstrip().lower()) or _by_suffix(text, ending)


def _markup(start: str) -> Content | None:
    """Markup languages by the first element that has a meaning; plain XML when there is none."""
    if not start.startswith("<"):
        return None
    for pattern, content in _ELEMENTS:
        if pattern.search(start):
            return content
    return Content("data", "xml") if start.startswith("<?xml") else None


def _by_suffix(text: str, ending: str) -> Content:
    """Plain text whose dialect is known only by the file's name."""
    if ending in _TEXT_SUFFIXES:
        return _TEXT_SUFFIXES[ending]
    return Content("data", "json") if _JSON.match(text) else Content("text", "plain")


def _as_text(head: bytes) -> str | None:
    """The head as text when it reads like text: no control characters, and UTF-8, UTF-16 or mostly ASCII.

    A character may be cut at the end. Text in an old 8-bit encoding is still text; its reader says what is wrong.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = head[: len(head) // 2 * 2].decode("utf-16", errors="replace")
    else:
        text = codecs.getincrementaldecoder("utf-8-sig")(errors="replace").decode(head)
        if text.count("\ufffd") > _MAX_STRANGE * len(text):
            return None
    return None if _CONTROL.search(text) else text
