"""Captures of web archives (WARC, ISO 28500): what was fetched from where, its bytes within limits, damage named."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

from omnimill.errors import BadRecord
from omnimill.pipelines import files
from omnimill.pipelines.decoders.tars import gunzip
from omnimill.pipelines.fetching.robots import headers_said

_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w:.-]{1,40})", re.IGNORECASE)
_END = b"\r\n\r\n"
_CAPTURES = ("response", "resource", "conversion", "revisit")


@dataclass(frozen=True)
class Capture:
    """A record of what was fetched: of type response, resource, conversion (extracted text) or revisit (seen before).

    number: of the record in its archive. offset: of the record in the (decompressed) archive, in bytes.
    status: of HTTP, None when it is no HTTP response. content_type: in lower case, without parameters.
    robots: values of ``X-Robots-Tag``, and ``tdm-reservation`` when rights are reserved.
    data: the decoded body, None when `fault` says what is wrong.
    """

    number: int
    offset: int
    kind: str
    url: str
    date: str | None
    status: int | None = None
    content_type: str = ""
    charset: str | None = None
    robots: tuple[str, ...] = ()
    data: bytes | None = None
    fault: BadRecord | None = None


def read_captures(url: str, max_bytes: int) -> Iterator[Capture]:
    """The captures of an archive, plain or compressed as a whole or record by record, in order.

    Records that say how an archive was made (warcinfo, request, metadata) are no captures and left out.

    Args:
        max_bytes: of a body, encoded and decoded; larger ones come with the fault ``member_too_large`` and other
            damage with ``archive_truncated``, ``compression_damaged``, ``digest_mismatch`` or ``http_malformed``.

    Raises:
        BadRecord: where reading cannot go on, after all captures before it: ``archive_unreadable``,
            ``archive_damaged``, ``archive_truncated``, ``compression_damaged``.
    """
    try:
        from fastwarc.warc import ArchiveIterator  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError(f"web archives need the extra 'web': pip install 'omnimill[web]' ({error})") from None
    number = -1
    with files.open_expanded(url) as expanded:
        stream: Any = _Watched(expanded)
        try:
            for number, record in enumerate(ArchiveIterator(stream, parse_http=False, stream_detect=False)):
                kind = str(record.record_type)
                if kind in _CAPTURES:
                    yield _capture(record, number, kind, max_bytes)
        except GeneratorExit:
            raise
        except BaseException as fault:
            if stream.fault is not None:
                raise stream.fault from None
            if not isinstance(fault, OSError | ValueError) and type(fault).__name__ != "PanicException":
                raise
            raise BadRecord(f"archive_{'unreadable' if number < 0 else 'damaged'}", str(fault)) from None
        if stream.tail != _END:
            raise BadRecord("archive_truncated", "the last record has no end")


class _Watched:
    """A reader that remembers the last bytes it gave, and what went wrong below the one that reads from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._place = 0
        self.tail = b""
        self.fault: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._stream.read(size)
        except Exception as fault:
            self.fault = fault
            raise
        self._place += len(data)
        self.tail = (self.tail + data[-len(_END) :])[-len(_END) :]
        return data

    def tell(self) -> int:
        return self._place


def _capture(record: Any, number: int, kind: str, max_bytes: int) -> Capture:
    headers = record.headers
    found: dict[str, Any] = {
        "number": number,
        "offset": record.stream_pos,
        "kind": kind,
        "url": (headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">"),
        "date": headers.get("WARC-Date"),
    }
    try:
        if "Content-Length" not in headers:
            raise BadRecord("archive_damaged", "a record without its length")
        declared = record.content_length
        if declared > max_bytes:
            raise BadRecord("member_too_large", f"{declared} bytes; at most {max_bytes}")
        record.freeze()
        if record.content_length < declared:
            raise BadRecord("archive_truncated", f"{record.content_length} of {declared} bytes")
        if "WARC-Block-Digest" in headers and not record.verify_block_digest():
            raise BadRecord("digest_mismatch", f"its bytes are not those of {headers['WARC-Block-Digest']}")
        content_type = headers.get("Content-Type") or ""
        if record.is_http and kind in ("response", "revisit"):
            content_type = _read_http(record, found)
        body = record.reader.read()
        if kind == "response" and found.get("status") is not None:
            body = _decoded(body, record.http_headers, max_bytes)
        found["data"] = body
        charset = _CHARSET.search(content_type)
        found |= {
            "content_type": content_type.partition(";")[0].strip().lower(),
            "charset": charset[1] if charset else None,
        }
    except BadRecord as fault:
        found["fault"] = fault
    except (OSError, ValueError) as fault:
        found["fault"] = BadRecord("archive_truncated", str(fault))
    return Capture(**found)


def _read_http(record: Any, found: dict[str, Any]) -> str:
    """Read the head of an HTTP response into `found`; its content type."""
    try:
        record.parse_http()
        http = record.http_headers
        found["status"] = http.status_code
    except (OSError, ValueError) as fault:
        raise BadRecord("http_malformed", str(fault)) from None
    if found["status"] is None:
        raise BadRecord("http_malformed", "no status line")
    found["robots"] = headers_said(http.get_multiple("X-Robots-Tag"), http.get_multiple("tdm-reservation"))
    return http.get("Content-Type") or ""


def _decoded(body: bytes, http: Any, max_bytes: int) -> bytes:
    """A body without its transfer and content encodings, which many archives have undone without saying so."""
    if "chunked" in (http.get("Transfer-Encoding") or "").lower():
        body = _dechunked(body)
    for encoding in reversed((http.get("Content-Encoding") or "").lower().split(",")):
        body = _expanded(body, encoding.strip(), max_bytes)
    return body


def _dechunked(body: bytes) -> bytes:
    pieces: list[bytes] = []
    place = 0
    while True:
        end = body.find(b"\r\n", place, place + 256)
        head = body[place : max(end, place)].partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", head):
            if not pieces:
                return body  # it is whole already
            raise BadRecord("compression_damaged", f"no chunk at byte {place}")
        size = int(head, 16)
        pieces.append(body[end + 2 : end + 2 + size])
        place = end + 4 + size
        if size == 0:
            return b"".join(pieces)
        if place > len(body):
            raise BadRecord("compression_damaged", "the last chunk is cut off")


def _expanded(body: bytes, encoding: str, max_bytes: int) -> bytes:
    if encoding in ("", "identity") or not _CONTROL.search(body[:1024]):
        return body
    if encoding in ("gzip", "x-gzip"):
        return gunzip(body, max_bytes) if body.startswith(b"\x1f\x8b") else body
    if encoding == "deflate":
        # RFC 9110 means zlib streams; many servers send bare ones.
        inflater = zlib.decompressobj(wbits=15 if body[:1] == b"\x78" else -15)
        return _bounded(lambda: inflater.decompress(body, max_bytes + 1), encoding, max_bytes)
    if encoding == "br":
        from fastwarc.stream_io import BrotliReader  # noqa: PLC0415 - optional

        reader = BrotliReader(BytesIO(body))
        return _bounded(lambda: _read_all(reader, max_bytes + 1), encoding, max_bytes)
    raise BadRecord("compression_damaged", f"content encoding {encoding!r} is not read")


def _read_all(reader: Any, most: int) -> bytes:
    data = bytearray()
    while len(data) < most and (piece := reader.read(most - len(data))):
        data += piece
    return bytes(data)


def _bounded(expand: Any, encoding: str, max_bytes: int) -> bytes:
    try:
        data = bytes(expand())
    except (zlib.error, OSError, ValueError) as fault:
        raise BadRecord("compression_damaged", f"{encoding}: {fault}") from None
    if len(data) > max_bytes:
        raise BadRecord("member_too_large", f"more than {max_bytes} bytes uncompressed")
    return data
