"""Web archives: pages with the pictures archived beside them, and every way an archive or a record can be damaged."""

from __future__ import annotations

import base64
import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts.pages import jpeg
from layouts.text import prose

from omnimill.errors import BadRecord, StoreUnavailable
from omnimill.pipelines import files
from omnimill.pipelines.decoders.warc import read_captures
from omnimill.pipelines.sources.warc import WarcSource
from omnimill.pipelines.verdicts import read_records

SITE = "https://example.org"


def record(kind: str, url: str, block: bytes, content_type: str, *headers: str, digest: bool = True) -> bytes:
    """A WARC record."""
    lines = [
        "WARC/1.0",
        f"WARC-Type: {kind}",
        f"WARC-Target-URI: {url}",
        "WARC-Date: 2024-04-25T16:24:44Z",
        f"WARC-Record-ID: <urn:uuid:{hashlib.md5(url.encode() + block).hexdigest()}>",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(block)}",
        *headers,
    ]
    if digest:
        sha = base64.b32encode(hashlib.sha1(block).digest()).decode()
        lines.append(f"WARC-Block-Digest: sha1:{sha}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def response(
    path: str, body: bytes, content_type: str = "text/html; charset=utf-8", *headers: str, status: int = 200
) -> bytes:
    head = [f"HTTP/1.1 {status} Told", f"Content-Type: {content_type}", *headers]
    block = "\r\n".join(head).encode() + b"\r\n\r\n" + body
    return record("response", f"{SITE}{path}", block, "application/http; msgtype=response")


def page(*body: str, head: str = "") -> bytes:
    texts = "".join(f"<p>{prose(part, 4, 4)}</p>" if not part.startswith("<") else part for part in body)
    return (
        f"<html lang=en><head><title>Mill</title>{head}</head><body><article>{texts}</article></body></html>".encode()
    )


INFO = record("warcinfo", "", b"software: test\r\n", "application/warc-fields")


def write(path: Path, *records: bytes) -> WarcSource:
    data = b"".join(records)
    if path.suffix == ".gz":
        data = b"".join(gzip.compress(one, mtime=0) for one in records)
    elif path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return WarcSource(type="warc", name="archive", path=str(path.parent))


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.warc.zst"])
def test_pages_use_the_pictures_of_their_archive(tmp_path: Path, read_source: Any, name: str) -> None:
    source = write(
        tmp_path / name,
        INFO,
        record("request", f"{SITE}/page", b"GET /page HTTP/1.1\r\n\r\n", "application/http; msgtype=request"),
        response("/dir/page", page("a", "<img src='../pics/1.jpg'>", "b", "<img src='gone.jpg'>", "c")),
        response("/pics/1.jpg", jpeg("1"), "image/jpeg"),
        response("/based", page("d", "<img src='1.jpg#x'>", "e", head=f"<base href='http://{SITE[8:]}/pics/'>")),
        response("/moved", b"", "text/html", "Location: /dir/page", status=302),
        response("/absent", page("f"), status=404),
        response("/style.css", b"p {}", "text/css"),
        record("revisit", f"{SITE}/dir/page", b"HTTP/1.1 200 OK\r\n\r\n", "application/http; msgtype=response"),
        record("metadata", f"{SITE}/dir/page", b"fetchTimeMs: 3\r\n", "application/warc-fields"),
    )
    examples, verdicts = read_source(source)
    assert list(verdicts.items()) == [
        (f"{name}:2", "kept"),
        (f"{name}:3", "sidecar"),
        (f"{name}:4", "kept"),
        (f"{name}:5", "no_content"),
        (f"{name}:6", "http_status"),
        (f"{name}:7", "unsupported_type"),
        (f"{name}:8", "no_content"),
    ]
    first, second = examples
    assert [(text.role, text.image) for text in first.text] == [("body", None), ("body", 0), ("body", 0)]
    assert first.images[0].uri == f"{tmp_path / name}#{SITE}/pics/1.jpg"
    assert first.meta.scores == {"pictures": 2.0, "pictures_missing": 1.0, "pictures_refused": 0.0}
    assert (first.meta.url, first.meta.language) == (f"{SITE}/dir/page", "en")
    assert first.meta.tags == {"title": "Mill", "captured": "2024-04-25T16:24:44Z"}
    assert [image.digest for image in second.images] == [first.images[0].digest]


def test_a_canonical_address_is_noted_beside_the_one_that_was_fetched(tmp_path: Path, read_source: Any) -> None:
    head = "<link rel=canonical href='https://example.org/canonical'>"
    (example,), _ = read_source(write(tmp_path / "a.warc", response("/page?x=1", page("a", head=head))))
    assert example.meta.url == f"{SITE}/page?x=1"
    assert example.meta.tags["canonical_url"] == f"{SITE}/canonical"


def test_servers_can_opt_out_for_pages_and_for_pictures(tmp_path: Path, read_source: Any) -> None:
    shown = page("a", "<img src='/1.jpg'>", "b", "<img src='/2.jpg'>", "c")
    source = write(
        tmp_path / "a.warc",
        response("/plain", shown),
        response("/no", shown, "text/html", "X-Robots-Tag: noai"),
        response("/reserved", shown, "text/html", "TDM-Reservation: 1"),
        response("/text", shown, "text/html", "X-Robots-Tag: noarchive", "X-Robots-Tag: noimageai"),
        response("/other", shown, "text/html", "X-Robots-Tag: otherbot: noai"),
        response("/1.jpg", jpeg("1"), "image/jpeg", "X-Robots-Tag: noai"),
        response("/2.jpg", jpeg("2"), "image/jpeg"),
    )
    examples, verdicts = read_source(source)
    assert list(verdicts.values()) == ["kept", "robots_opt_out", "robots_opt_out", "kept", "kept", "sidecar", "sidecar"]
    assert [len(example.images) for example in examples] == [1, 0, 1]


def test_texts_extracted_by_others_are_read(tmp_path: Path, read_source: Any) -> None:
    conversion = record("conversion", f"{SITE}/page", prose("wet", 4).encode(), "text/plain")
    (example,), verdicts = read_source(write(tmp_path / "a.warc.wet.gz", INFO, conversion))
    assert list(verdicts.values()) == ["kept"]
    assert (example.text[0].text, example.meta.url) == (prose("wet", 4), f"{SITE}/page")


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def _chunked(data: bytes, size: int = 1000) -> bytes:
    pieces = (data[i : i + size] for i in range(0, len(data), size))
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


BODY = page("encoded")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(BODY), ("Content-Encoding: gzip",)),
        (BODY, ("Content-Encoding: gzip",)),  # undone without saying so
        (BODY, ("Content-Encoding: br", "Transfer-Encoding: chunked")),
        (zlib.compress(BODY), ("Content-Encoding: deflate",)),
        (_deflated(BODY), ("Content-Encoding: deflate",)),
        (_chunked(BODY), ("Transfer-Encoding: chunked",)),
        (_chunked(gzip.compress(BODY), 7), ("Transfer-Encoding: chunked", "Content-Encoding: x-gzip")),
        (gzip.compress(zlib.compress(BODY)), ("Content-Encoding: deflate, gzip",)),
    ],
)
def test_encodings_are_undone(tmp_path: Path, body: bytes, headers: tuple[str, ...]) -> None:
    write(tmp_path / "a.warc", response("/", body, "text/html", *headers))
    (capture,) = read_captures(str(tmp_path / "a.warc"), 1 << 20)
    assert capture.data == BODY


def test_brotli_is_undone(tmp_path: Path) -> None:
    from fastwarc.stream_io import BrotliWriter

    long = BODY * 300
    writer = BrotliWriter(str(tmp_path / "body.br"))
    writer.write(long)
    writer.close()
    packed = (tmp_path / "body.br").read_bytes()
    write(tmp_path / "a.warc", response("/", packed, "text/html", "Content-Encoding: br"))
    (capture,) = read_captures(str(tmp_path / "a.warc"), 1 << 20)
    assert capture.data == long
    (capture,) = read_captures(str(tmp_path / "a.warc"), 1 << 17)
    assert capture.fault is not None
    assert capture.fault.reason == "member_too_large"


def test_faults_of_records_are_named_and_cost_only_them(tmp_path: Path, read_source: Any) -> None:
    bomb = gzip.compress(bytes(20 << 20))
    good = response("/good", page("good"))
    wrong = response("/wrong", page("wrong")).replace(b"<article>", b"<ARTICLE>")
    source = write(
        tmp_path / "a.warc.gz",
        response("/bomb", bomb, "text/html", "Content-Encoding: gzip"),
        response("/large", b"x" * 300_000),
        response("/cut", gzip.compress(BODY)[:-20], "text/html", "Content-Encoding: gzip"),
        response("/chunks", _chunked(BODY)[:-400], "text/html", "Transfer-Encoding: chunked"),
        response("/zstd", b"\x28\xb5\x2f\xfd\x00", "text/html", "Content-Encoding: zstd"),
        response("/charset", "日本".encode("euc-jp") * 60),
        wrong,
        record("response", f"{SITE}/http", b"no http at all", "application/http; msgtype=response"),
        good,
    ).model_copy(update={"max_picture_bytes": 200_000, "max_page_bytes": 200_000})
    _, verdicts = read_source(source)
    assert list(verdicts.values()) == [
        "member_too_large",
        "member_too_large",
        "compression_damaged",
        "compression_damaged",
        "compression_damaged",
        "invalid_utf8",
        "digest_mismatch",
        "http_malformed",
        "kept",
    ]


def ending(path: Path, data: bytes) -> list[str]:
    """What becomes of the records of an archive with these bytes."""
    path.write_bytes(data)
    source = WarcSource(type="warc", name="archive", path=str(path))
    (unit,) = source.units()
    found = []
    for outcome in read_records(source.read, unit):
        try:
            outcome.record.decode()
            found.append("kept" if outcome.rejection is None else outcome.rejection.reason)
        except BadRecord as fault:
            found.append(fault.reason)
    return found


def test_damaged_archives_are_named_after_what_could_be_read(tmp_path: Path) -> None:
    whole = INFO + response("/1", page("1")) + response("/2", page("2"))
    assert ending(tmp_path / "a.warc", whole) == ["kept", "kept"]
    assert ending(tmp_path / "b.warc", whole[:-100]) == ["kept", "archive_truncated", "archive_truncated"]
    assert ending(tmp_path / "c.warc", whole[: whole.rindex(b"WARC/1.0") + 60]) == [
        "kept",
        "archive_damaged",
        "archive_truncated",
    ]
    assert ending(tmp_path / "d.warc", b"no archive" * 50) == ["archive_unreadable"]
    assert ending(tmp_path / "e.warc", b"") == ["archive_truncated"]
    second = whole.rindex(b"WARC/1.0")
    assert ending(tmp_path / "f.warc", whole[:second] + b"XXXX" + whole[second:]) == ["kept", "archive_damaged"]
    packed = gzip.compress(whole)
    assert ending(tmp_path / "g.warc.gz", packed[: len(packed) // 2])[-1] == "compression_damaged"
    lying = whole.replace(b"Content-Length: ", b"Content-Length: 99999999999", 1)
    assert "kept" not in ending(tmp_path / "h.warc", lying)
    header = b"WARC/1.0\r\nWARC-Type: response\r\nX: " + b"a" * (8 << 20)
    assert ending(tmp_path / "i.warc", header + b"\r\nContent-Length: 0\r\n\r\n\r\n\r\n") == ["archive_unreadable"]


_WHOLE = (
    INFO + response("/1", page("1")) + response("/1.jpg", jpeg("1", 32, 32), "image/jpeg") + response("/2", page("2"))
)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, len(_WHOLE)), st.integers(0, 40), st.binary(max_size=20)), max_size=6))
def test_no_damage_breaks_the_reader(tmp_path_factory: Any, damage: list[tuple[int, int, bytes]]) -> None:
    data = bytearray(_WHOLE)
    for place, length, new in damage:
        data[place : place + length] = new
    path = tmp_path_factory.getbasetemp() / "damaged.warc"
    path.write_bytes(data)
    captures = []
    try:
        captures.extend(read_captures(str(path), 1 << 20))
    except BadRecord as fault:
        assert fault.reason in ("archive_unreadable", "archive_damaged", "archive_truncated")
    assert len(captures) <= 3 + sum(new.count(b"WARC") for _, _, new in damage)
    if not damage:
        assert [capture.fault for capture in captures] == [None] * 3


def test_real_archives_are_read(realdata: Path, read_source: Any) -> None:
    if (realdata / "html" / "warc").exists():
        _, verdicts = read_source(WarcSource(type="warc", name="archive", path=str(realdata / "html"), opt_outs=()))
        assert sorted(set(verdicts.values())) == ["kept", "unsupported_type"]
        assert list(verdicts.values()).count("kept") == 24


def test_a_store_that_fails_is_no_verdict_on_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.warc", *(response(f"/{i}", page(str(i))) for i in range(400)))

    class Failing:
        def __init__(self, stream: Any) -> None:
            self.stream, self.reads = stream, 0

        def read(self, size: int = -1) -> bytes:
            self.reads += 1
            if self.reads > 3:
                raise StoreUnavailable("no answer for minutes")
            return bytes(self.stream.read(size))

    @contextmanager
    def failing(url: str) -> Iterator[Failing]:
        with Path(url).open("rb") as stream:
            yield Failing(stream)

    monkeypatch.setattr(files, "open_expanded", failing)
    with pytest.raises(StoreUnavailable):
        list(read_captures(str(tmp_path / "a.warc"), 1 << 20))
