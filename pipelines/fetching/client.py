"""The HTTP client behind img2dataset: what ``urllib.request.urlopen`` does where strangers' URLs are fetched."""

from __future__ import annotations

import http.client
import io
import json
import ssl
import threading
import time
import urllib.request
import urllib.response
import zlib
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin

from omnimill import rng
from omnimill.errors import BadRecord, RecordDropped
from omnimill.pipelines.fetching.addresses import networks
from omnimill.pipelines.fetching.connections import Deadline, Resolver, network_faults, open_connection
from omnimill.pipelines.fetching.hosts import MAX_WAIT_SECONDS, Hosts, budget_spent
from omnimill.pipelines.fetching.robots import headers_said, opts_out
from omnimill.pipelines.fetching.settings import FetchSettings
from omnimill.pipelines.fetching.urls import Target, parse_url

MAX_REDIRECTS = 5
# Verdicts that another try may change: soon, inside a run, or when quarantined records are tried again.
TRANSIENT = frozenset(
    {
        "connect_failed",
        "connection_broken",
        "dns_unavailable",
        "fetch_budget_spent",
        "fetch_timeout",
        "http_rate_limited",
        "http_server_error",
    }
)
_CHUNK = 256 << 10
_MOVED = (301, 302, 303, 307, 308)
# Of the 4xx: request timeout, too early.
_LATER = (408, 425)
_INFLATED = ("gzip", "x-gzip", "deflate")


class Told(Exception):
    """A verdict in words that img2dataset passes on: of an exception it keeps the text alone."""

    def __init__(self, verdict: str, reason: str, message: str) -> None:
        super().__init__(json.dumps([verdict, reason, message]))

    @staticmethod
    def understood(text: str) -> BadRecord | RecordDropped | None:
        """The verdict that a text tells; None when it is the text of another exception."""
        try:
            verdict, reason, message = json.loads(text)
        except ValueError:
            return None
        return RecordDropped(reason) if verdict == "dropped" else BadRecord(reason, message)


class Client(urllib.request.OpenerDirector):
    """An opener for ``urllib.request.install_opener``: every fetch of its process goes through it.

    It has no handlers: no ``file:``, ``ftp:`` or ``data:``, and no proxy of the environment (behind one, the address
    that is connected to could not be checked).
    """

    def __init__(self, settings: FetchSettings) -> None:
        super().__init__()
        self._settings = settings
        self._allowed = networks(settings.allow_networks)
        self._ends = time.monotonic() + settings.unit_seconds
        self._hosts = Hosts(settings.max_per_host, self._ends)
        self._resolver = Resolver()
        self._context = ssl.create_default_context()
        self._lock = threading.Lock()
        self._bytes_left = settings.unit_bytes

    def open(self, fullurl: Any, data: Any = None, timeout: Any = None) -> Any:  # noqa: ARG002
        """The response to a GET of ``fullurl.full_url``, its body in memory; `data` and `timeout` are not used.

        Raises:
            Told: the verdict on the URL, see `fetch`.
        """
        try:
            return self.fetch(fullurl.full_url)
        except BadRecord as fault:
            raise Told("quarantined", fault.reason, fault.message) from fault
        except RecordDropped as dropped:
            raise Told("dropped", dropped.reason, "") from dropped

    def fetch(self, url: str) -> urllib.response.addinfourl:
        """Fetch a URL, again where that may help.

        Raises:
            RecordDropped: ``robots_opt_out``.
            BadRecord: a reason of `TRANSIENT`; or ``scheme_refused``, ``url_invalid``, ``dns_failure``,
                ``address_refused``, ``tls_failed``, ``http_client_error``, ``http_malformed``, ``redirect_refused``,
                ``response_too_large``.
        """
        for attempt in range(self._settings.retries + 1):
            try:
                return self._follow(url)
            except BadRecord as fault:
                last = attempt == self._settings.retries
                if last or fault.reason not in TRANSIENT or fault.reason == "fetch_budget_spent":
                    raise
                pause = self._settings.backoff_seconds * 2**attempt * (0.5 + rng.uniform("backoff", url, attempt))
                if time.monotonic() + pause > self._ends:
                    raise
                time.sleep(pause)
        raise AssertionError

    def _follow(self, url: str) -> urllib.response.addinfourl:
        """Fetch a URL once, through its redirects."""
        deadline = None
        for _ in range(MAX_REDIRECTS + 1):
            target = parse_url(url)
            with self._hosts.slot(target.host), network_faults():
                # Waiting for a host's turn is not held against the response.
                deadline = deadline or self._deadline()
                answer = self._get(target, deadline)
            if not isinstance(answer, str):
                return answer
            url = urljoin(target.url, answer)
        raise BadRecord("redirect_refused", f"more than {MAX_REDIRECTS} redirects")

    def _deadline(self) -> Deadline:
        now = time.monotonic()
        if now >= self._ends:
            raise budget_spent("seconds")
        return Deadline(min(now + self._settings.timeout_seconds, self._ends))

    def _get(self, target: Target, deadline: Deadline) -> urllib.response.addinfourl | str:
        """The response, or where it redirects to."""
        connection = open_connection(target, deadline, self._resolver, self._allowed, self._context)
        try:
            headers = {
                "User-Agent": self._settings.user_agent,
                "Accept": "*/*",
                "Accept-Encoding": "identity",
                "Connection": "close",
            }
            connection.request("GET", target.path, headers=headers)
            response = connection.getresponse()
            if response.status in _MOVED:
                return _location(response)
            self._check_status(target, response)
            robots, reservations = (response.headers.get_all(name, []) for name in ("X-Robots-Tag", "tdm-reservation"))
            said = headers_said(robots, reservations)
            if opts_out(said, self._settings.user_agent_token, self._settings.opt_out_directives):
                raise RecordDropped("robots_opt_out")
            body = self._body(response)
            return urllib.response.addinfourl(io.BytesIO(body), response.headers, target.url, response.status)
        finally:
            connection.close()

    def _check_status(self, target: Target, response: http.client.HTTPResponse) -> None:
        status = response.status
        if 200 <= status < 300:
            return
        pause = _retry_after(response)
        if pause is not None and status in (429, 503):
            self._hosts.pause(target.host, min(pause, 2 * MAX_WAIT_SECONDS))
        if status == 429:
            raise BadRecord("http_rate_limited", "HTTP 429")
        raise BadRecord(
            "http_server_error" if status >= 500 or status in _LATER else "http_client_error", f"HTTP {status}"
        )

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        limit = self._settings.max_bytes
        declared = response.length
        if declared is not None and declared > limit:
            raise BadRecord("response_too_large", f"declares {declared} bytes; at most {limit}")
        encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
        if encoding != "identity" and encoding not in _INFLATED:
            raise BadRecord("http_malformed", f"content encoding {encoding[:40]!r} was not asked for")
        inflater = zlib.decompressobj(wbits=47) if encoding in _INFLATED else None
        pieces, received, size = [], 0, 0
        while chunk := response.read(_CHUNK):
            received += len(chunk)
            self._spend(len(chunk))
            piece = chunk if inflater is None else _inflate(inflater, chunk, limit - size + 1)
            size += len(piece)
            if size > limit or received > limit:
                raise BadRecord("response_too_large", f"more than {limit} bytes")
            pieces.append(piece)
        # http.client takes the end of the connection for the end of a body that is read in pieces.
        if (declared is not None and received < declared) or (inflater is not None and received and not inflater.eof):
            raise BadRecord("connection_broken", "the response ended early")
        return b"".join(pieces)

    def _spend(self, count: int) -> None:
        with self._lock:
            self._bytes_left -= count
            spent = self._bytes_left < 0
        if spent:
            raise budget_spent("bytes")


def _location(response: http.client.HTTPResponse) -> str:
    location = response.headers.get("Location")
    if not location:
        raise BadRecord("redirect_refused", f"HTTP {response.status} without a location")
    # http.client reads headers as Latin-1; servers send UTF-8.
    try:
        return location.encode("latin-1").decode()
    except UnicodeError:
        return location


def _retry_after(response: http.client.HTTPResponse) -> float | None:
    """Seconds of the ``Retry-After`` header, in either of its forms (RFC 9110, section 10.2.3)."""
    value = (response.headers.get("Retry-After") or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _inflate(inflater: Any, chunk: bytes, most: int) -> bytes:
    try:
        return inflater.decompress(chunk, most)  # type: ignore[no-any-return]
    except zlib.error as fault:
        raise BadRecord("http_malformed", f"content encoding: {fault}") from None
