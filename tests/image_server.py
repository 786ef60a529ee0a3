"""A web server for tests of fetching: pictures, and everything that goes wrong with them on the real web."""

from __future__ import annotations

import gzip
import io
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image


@cache
def picture(seed: int, width: int = 96, height: int = 72, form: str = "JPEG") -> bytes:
    """An encoded picture of smooth noise; the same seed gives the same bytes."""
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(stream, form)
    return stream.getvalue()


def bomb_png(side: int = 20_000) -> bytes:
    """A PNG of a few kB that declares `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@cache
def gzip_bomb() -> bytes:
    """200 MiB of zeros in 200 kB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()


class ImageServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1 in threads of its own.

    hits: requests by path. most_at_once: requests that were answered at the same time. away: paths that are answered
    with a status alone, for now.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hits: Counter[str] = Counter()
        self.away: dict[str, int] = {}
        self.agents: set[str] = set()
        self.lock = threading.Lock()
        self.busy = self.most_at_once = 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up as they like."""


@contextmanager
def serving() -> Iterator[ImageServer]:
    server = ImageServer()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """``/<behaviour>/<argument>``; the last part of an argument does not matter, so that URLs can differ."""

    server: ImageServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        with self.server.lock:
            self.server.hits[self.path] += 1
            self.server.agents.add(self.headers["User-Agent"])
            self.server.busy += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.busy)
        try:
            if self.path in self.server.away:
                self.answer(b"no picture", self.server.away[self.path])
                return
            behaviour, _, argument = parts.path.removeprefix("/").partition("/")
            getattr(self, f"do_{behaviour}")(argument, {k: v[0] for k, v in parse_qs(parts.query).items()})
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Type": "image/jpeg", "Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_picture(self, argument: str, query: dict[str, str]) -> None:
        """``/picture/7.jpg``, ``/picture/7.png``."""
        seed, form = argument.rsplit("/", 1)[-1].split(".")
        self.answer(picture(int(seed), form={"jpg": "JPEG"}.get(form, form.upper())))

    def do_large(self, argument: str, query: dict[str, str]) -> None:
        self.answer(picture(int(argument.split(".", maxsplit=1)[0]), 640, 480))

    def do_status(self, argument: str, query: dict[str, str]) -> None:
        headers = {"Retry_After": query["after"]} if "after" in query else {}
        self.answer(b"no picture", int(argument.split("/", maxsplit=1)[0]), **headers)

    def do_flaky(self, argument: str, query: dict[str, str]) -> None:
        """``/flaky/2/503/x.jpg``: twice 503, then a picture."""
        times, status, _ = argument.split("/")
        if self.server.hits[self.path] <= int(times):
            self.answer(b"later", int(status), **({"Retry_After": query["after"]} if "after" in query else {}))
        else:
            self.do_picture("1.jpg", {})

    def do_slow(self, argument: str, query: dict[str, str]) -> None:
        time.sleep(float(argument.split("/", maxsplit=1)[0]))
        self.do_picture("1.jpg", {})

    def do_drip(self, argument: str, query: dict[str, str]) -> None:
        """A byte now and then, of the header or of the body."""
        self.send_response(200)
        self.end_headers()
        if argument.startswith("header"):
            self.wfile.write(b"")
        for _ in range(200):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)

    def do_driphead(self, argument: str, query: dict[str, str]) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Long: ")
        for _ in range(200):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)

    def do_truncated(self, argument: str, query: dict[str, str]) -> None:
        body = picture(1)
        self.answer(body[: len(body) // 2], Content_Length=str(len(body)))

    def do_reset(self, argument: str, query: dict[str, str]) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def do_loop(self, argument: str, query: dict[str, str]) -> None:
        self.answer(b"", 302, Location=self.path)

    def do_to(self, argument: str, query: dict[str, str]) -> None:
        """``/to/x?url=…``: a redirect; without a url one without a location."""
        self.answer(b"", 302, **({"Location": query["url"]} if "url" in query else {}))

    def do_huge(self, argument: str, query: dict[str, str]) -> None:
        self.answer(b"x", Content_Length=str(10**12))

    def do_endless(self, argument: str, query: dict[str, str]) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(10_000):
            self.wfile.write(bytes(1 << 16))

    def do_gzipped(self, argument: str, query: dict[str, str]) -> None:
        self.answer(gzip.compress(picture(int(argument.split(".", maxsplit=1)[0]))), Content_Encoding="gzip")

    def do_gzipbomb(self, argument: str, query: dict[str, str]) -> None:
        self.answer(gzip_bomb(), Content_Encoding="gzip")

    def do_brotli(self, argument: str, query: dict[str, str]) -> None:
        self.answer(b"\x0b\x02\x80", Content_Encoding="br")

    def do_html(self, argument: str, query: dict[str, str]) -> None:
        self.answer(b"<!DOCTYPE html><html><body>Please log in</body></html>")

    def do_empty(self, argument: str, query: dict[str, str]) -> None:
        self.answer(b"")

    def do_bomb(self, argument: str, query: dict[str, str]) -> None:
        self.answer(bomb_png())

    def do_robots(self, argument: str, query: dict[str, str]) -> None:
        """``/robots/x?value=noai``."""
        self.answer(picture(1), X_Robots_Tag=query["value"])

    def do_reserved(self, argument: str, query: dict[str, str]) -> None:
        """``/reserved/1/x``."""
        self.answer(picture(1), TDM_Reservation=argument.split("/", maxsplit=1)[0])

    def do_mistyped(self, argument: str, query: dict[str, str]) -> None:
        self.answer(picture(int(argument.split(".", maxsplit=1)[0])), Content_Type="text/plain")

    def do_nonsense(self, argument: str, query: dict[str, str]) -> None:
        self.wfile.write(b"\x00\x01\x02 this is not HTTP\r\n\r\n")

    def do_manyheaders(self, argument: str, query: dict[str, str]) -> None:
        self.answer(picture(1), **{f"X_{i}": "x" for i in range(200)})
