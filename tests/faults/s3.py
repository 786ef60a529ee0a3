"""An S3 server over HTTP, and a proxy before it that answers with faults on a fixed schedule."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import s3fs
from moto.server import ThreadedMotoServer

FAULTS = ("500", "503", "reset", "lost", "slow", "cut", "short")

_XML = "<?xml version='1.0'?><Error><Code>{}</Code><Message>made by a test</Message></Error>"
_ERRORS = {"500": (500, "InternalError"), "503": (503, "SlowDown")}

# Which fault the n-th request (from 0) meets, by its method and path with query; None for none.
Schedule = Callable[[int, str, str], str | None]


def every(step: int, faults: tuple[str, ...] = FAULTS) -> Schedule:
    """Every `step`-th request meets a fault, one after the other."""

    def choose(n: int, method: str, path: str) -> str | None:
        return None if n % step else faults[n // step % len(faults)]

    return choose


class Proxy:
    """Passes requests on to a server, some with a fault.

    500, 503: an error instead; the server never hears of it. reset: the connection breaks before, lost: after the
    server did it. slow: late. cut: a body that ends before its stated length; short: a body that is cut off and whose
    stated length fits.

    met: how often each fault was given.
    """

    def __init__(self, host: str, port: int) -> None:
        self.met: Counter[str] = Counter()
        self.schedule: Schedule = lambda n, method, path: None
        self._lock = threading.Lock()
        self._requests = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy.answer(self, host, port)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def start(self, schedule: Schedule) -> None:
        with self._lock:
            self.schedule, self._requests = schedule, 0
            self.met.clear()

    def _fault(self, method: str, path: str) -> str | None:
        with self._lock:
            fault = self.schedule(self._requests, method, path)
            self._requests += 1
            if fault in ("cut", "short") and method != "GET":
                fault = "reset"
            if fault is not None:
                self.met[fault] += 1
            return fault

    def answer(self, request: BaseHTTPRequestHandler, host: str, port: int) -> None:
        body = _body(request)
        fault = self._fault(request.command, request.path)
        if fault in _ERRORS:
            status, code = _ERRORS[fault]
            _send(request, status, {"Content-Type": "application/xml"}, _XML.format(code).encode())
            return
        if fault == "reset":
            _reset(request)
            return
        if fault == "slow":
            time.sleep(0.3)
        server = http.client.HTTPConnection(host, port)
        server.request(request.command, request.path, body, dict(request.headers))
        response = server.getresponse()
        data = response.read()
        server.close()
        if fault == "lost":
            _reset(request)
            return
        headers = {name: value for name, value in response.getheaders() if name.lower() not in _OF_CONNECTION}
        if fault == "short":
            data = data[: len(data) // 2]
            headers = {name: value for name, value in headers.items() if "checksum" not in name.lower()}
        length = response.getheader("Content-Length") if request.command == "HEAD" else None
        _send(request, response.status, headers, data, int(length) if length else None, cut=fault == "cut")


_OF_CONNECTION = {"connection", "content-length", "transfer-encoding", "server", "date"}


def _body(request: BaseHTTPRequestHandler) -> bytes | None:
    if request.headers.get("Expect", "").lower() == "100-continue":
        request.send_response_only(100)
        request.end_headers()
    if "chunked" not in request.headers.get("Transfer-Encoding", ""):
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))
    raise NotImplementedError("chunked requests")


def _send(
    request: BaseHTTPRequestHandler,
    status: int,
    headers: Mapping[str, str],
    data: bytes,
    length: int | None = None,
    cut: bool = False,
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(data) if length is None else length))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(data[: len(data) // 2] if cut else data)
    if cut:
        request.close_connection = True


def _reset(request: BaseHTTPRequestHandler) -> None:
    """Close the connection with a RST instead of a FIN."""
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.close_connection = True
    request.connection.close()
    request.wfile = request.rfile = open("/dev/null", "r+b")  # noqa: PTH123, SIM115 - the handler flushes it at its end


@contextmanager
def s3_server(faulty: bool = False) -> Iterator[Proxy | None]:
    """An S3 server with an empty bucket ``bucket``, which ``s3://bucket`` leads to; through a proxy when `faulty`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    forget = http.client.HTTPConnection(host, port)  # servers of one process share what they store
    forget.request("POST", "/moto-api/reset")
    forget.getresponse().read()
    forget.close()
    proxy = Proxy(host, port) if faulty else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url if proxy else f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "2")  # the client's own; its pauses are long
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield proxy
        s3fs.S3FileSystem.clear_instance_cache()
    if proxy:
        proxy.server.shutdown()
    server.stop()
