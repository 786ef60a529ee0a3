"""Files made to hurt their reader: little bytes that claim or expand to much, names that lead elsewhere, nonsense."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

GIB = 1 << 30
LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 30))
ENTITIES = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]>'


def picture(form: str) -> bytearray:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(stream, form)
    return bytearray(stream.getvalue())


def patched(data: bytearray, after: bytes, skip: int, layout: str, *values: int) -> bytes:
    """`data` with numbers written over `skip` bytes behind the first `after`."""
    struct.pack_into(layout, data, data.index(after) + len(after) + skip, *values)
    return bytes(data)


def png(width: int, height: int, packed: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def tiff(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 64)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 72) + bytes(64) + struct.pack("<H", len(tags)) + entries + bytes(4)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def endless_mp4() -> bytes:
    """A film whose tables claim 2^32 - 1 entries and hold none."""
    full = bytes(4)
    table = struct.pack(">I", 0xFFFFFFFF)
    entry = bytes(6) + b"\0\1" + bytes(16) + struct.pack(">HH", 64, 64) + bytes(50)
    tables = (
        box(b"stsd", full + struct.pack(">I", 1) + box(b"avc1", entry))
        + box(b"stts", full + table)
        + box(b"stsc", full + table)
        + box(b"stsz", full + bytes(4) + table)
        + box(b"co64", full + table)
    )
    media = box(b"mdhd", full + bytes(8) + struct.pack(">II", 1000, 0xFFFFFFFF) + bytes(4))
    media += box(b"hdlr", full + bytes(4) + b"vide" + bytes(13)) + box(b"minf", box(b"stbl", tables))
    track = box(b"tkhd", b"\0\0\0\7" + bytes(8) + struct.pack(">I", 1) + bytes(68)) + box(b"mdia", media)
    head = box(b"mvhd", full + bytes(8) + struct.pack(">II", 1000, 0xFFFFFFFF) + bytes(80))
    return (
        box(b"ftyp", b"isom" + bytes(4) + b"isom") + box(b"moov", head + box(b"trak", track)) + box(b"mdat", bytes(64))
    )


def wav(samples: bytes) -> bytes:
    """Sound of 32 bit floats at 16 kHz."""
    form = struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


def glb(text: str, claimed: int | None = None) -> bytes:
    body = text.encode() + b" " * (-len(text) % 4)
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(body), claimed or len(body), 0x4E4F534A) + body


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


# Name of a file -> what it holds, and the reason it is turned down for.
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "wide.png": (lambda: png(20_000, 20_000, zlib.compress(bytes(20_000 * 3))), "image_too_large"),
    "widest.png": (lambda: png(2**31 - 1, 2**31 - 1, b""), "image_too_large"),
    "wide.jpg": (lambda: patched(picture("JPEG"), b"\xff\xc0\x00\x11\x08", 0, ">HH", 65500, 65500), "image_too_large"),
    "wide.gif": (lambda: patched(picture("GIF"), b"GIF87a", 0, "<HH", 65535, 65535), "image_too_large"),
    "wide.webp": (lambda: patched(picture("WEBP"), b"\x9d\x01\x2a", 0, "<HH", 16383, 16383), "image_too_large"),
    "wide.avif": (lambda: patched(picture("AVIF"), b"ispe", 4, ">II", 60_000, 60_000), "image_undecodable"),
    "wide.tiff": (lambda: tiff(2**31 - 1, 2**31 - 1), "image_too_large"),
    "wide.jp2": (lambda: patched(picture("JPEG2000"), b"ihdr", 0, ">II", 60_000, 60_000), "image_too_large"),
    "liar.jp2": (
        lambda: patched(picture("JPEG2000"), b"\xff\x51", 4, ">II", 60_000, 60_000),
        "image_undecodable",
    ),
    "wide.bmp": (lambda: patched(picture("BMP"), b"BM", 16, "<ii", 60_000, 60_000), "image_too_large"),
    "playlist.jpg": (lambda: b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\nfile:///etc/passwd\n", "mislabelled"),
    "playlist.mp4": (lambda: b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\nfile:///etc/passwd\n", "mislabelled"),
    "laughs.svg": (f"{ENTITIES}<svg>&l29;</svg>".encode, "unsupported_image_format"),
    "laughs.ttml": (
        f'{ENTITIES}<tt xmlns="http://www.w3.org/ns/ttml"><body><p>&l29;</p></body></tt>'.encode,
        "transcript_malformed",
    ),
    "tables.mp4": (endless_mp4, "video_memory"),
    "nan.wav": (lambda: wav(np.full(16000, np.nan, "<f4").tobytes()), "audio_not_finite"),
    "deep.glb": (lambda: glb('{"asset":{"version":"2.0"},"extras":' + deep(100_000) + "}"), "mesh_malformed"),
    "claims.glb": (lambda: glb('{"asset":{"version":"2.0"}}', claimed=2**32 - 4), "mesh_malformed"),
    "accessor.glb": (
        lambda: glb(
            json.dumps(
                {
                    "asset": {"version": "2.0"},
                    "scenes": [{"nodes": [0]}],
                    "nodes": [{"mesh": 0}],
                    "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
                    "accessors": [{"componentType": 5126, "count": 2**31, "type": "VEC3"}],
                }
            )
        ),
        "mesh_too_large",
    ),
    "invalid.txt": (lambda: b"fine until \xff\xfe here", "invalid_utf8"),
    "empty.png": (lambda: b"", "empty_file"),
}

# Lines of a JSON Lines file, and the reason they are turned down for.
LINES: tuple[tuple[bytes, str], ...] = (
    (b'{"text": ' + deep(100_000).encode() + b"}", "invalid_json"),
    (b'{"text": "\\ud800"}', "invalid_utf8"),
    (b'{"text": "\xff"}', "invalid_utf8"),
    (b'{"text": "' + b"x" * (17 << 20) + b'"}', "line_too_long"),
    (b'{"text": ' + b"9" * 100_000 + b"}", "invalid_json"),
    (b'{"text": NaN}', "wrong_type"),
    (b"[" * 1000, "invalid_json"),
    (b'{"text": "a", "text": 1}', "wrong_type"),
)


def write_files(folder: Path) -> dict[str, str]:
    """Write all of `FILES`; the reasons by name."""
    folder.mkdir(parents=True)
    for name, (make, _) in FILES.items():
        (folder / name).write_bytes(make())
    return {name: reason for name, (_, reason) in FILES.items()}


def write_lines(folder: Path, bomb_bytes: int) -> None:
    """Lines as they are, and lines that a compressed file expands to: one of so many bytes, without an end."""
    folder.mkdir(parents=True)
    (folder / "lines.jsonl").write_bytes(b"\n".join(line for line, _ in LINES) + b'\n{"text": "fine"}\n')
    with gzip.open(folder / "bomb.jsonl.gz", "wb", compresslevel=1) as stream:
        for _ in range(bomb_bytes >> 20):
            stream.write(bytes(1 << 20))
    with pa.CompressedOutputStream(str(folder / "bomb.jsonl.zst"), "zstd") as stream:
        for _ in range(bomb_bytes >> 20):
            stream.write(bytes(1 << 20))
    with (folder / "sparse.jsonl").open("wb") as stream:
        stream.truncate(bomb_bytes)


def tar_member(archive: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    body = b"" if kind != tarfile.REGTYPE else b"owned"
    member.size = len(body)
    archive.addfile(member, io.BytesIO(body))


def write_tars(folder: Path, empty_members: int) -> None:
    """Tars with names that lead out, links and devices, a tar of empty members, and one that expands without end."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "tricks.tar", "w") as archive:
        tar_member(archive, "../../../../tmp/owned.txt")
        tar_member(archive, "/etc/owned.txt")
        tar_member(archive, "a/../../owned.txt")
        for i, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE)):
            tar_member(archive, f"link{i}.jpg", kind, "/etc/passwd")
        for i, kind in enumerate((tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)):
            tar_member(archive, f"device{i}.jpg", kind)
        tar_member(archive, "fine.txt")
    with gzip.open(folder / "empty.tar.gz", "wb", compresslevel=1) as stream:
        for i in range(empty_members):
            stream.write(tarfile.TarInfo(f"{i:07d}.txt").tobuf())
        stream.write(bytes(1024))
    with gzip.open(folder / "bomb.tar.gz", "wb", compresslevel=9) as stream:
        head = tarfile.TarInfo("000.jpg")
        head.size = 8 * GIB - 1
        stream.write(head.tobuf())
        for _ in range(512):
            stream.write(bytes(1 << 20))


def write_parquet(folder: Path) -> None:
    """A row group that expands to 128 MiB, a footer that lies about its length, and one that is nonsense."""
    folder.mkdir(parents=True)
    large = pa.table({"text": pa.array(["y" * (1 << 20)] * 128)})
    pq.write_table(large, folder / "large.parquet", compression="zstd", use_dictionary=False, row_group_size=2000)
    good = io.BytesIO()
    pq.write_table(pa.table({"text": ["fine"]}), good)
    data = bytearray(good.getvalue())
    (folder / "footer.parquet").write_bytes(bytes(data[:-8]) + struct.pack("<I", 2**31 - 1) + b"PAR1")
    (folder / "nonsense.parquet").write_bytes(b"PAR1" + bytes(64) + b"\xff" * 64 + struct.pack("<I", 64) + b"PAR1")
