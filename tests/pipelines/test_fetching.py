"""The client behind URL lists: where it connects to, where it stops, and what it calls what went wrong."""

from __future__ import annotations

import datetime
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_server import ImageServer, gzip_bomb, picture, serving
from pydantic import ValidationError

from omnimill.errors import BadRecord, RecordDropped
from omnimill.pipelines.fetching.addresses import networks, permitted
from omnimill.pipelines.fetching.client import Client
from omnimill.pipelines.fetching.robots import opts_out
from omnimill.pipelines.fetching.scratch import scratch_folder
from omnimill.pipelines.fetching.settings import FetchSettings
from omnimill.pipelines.fetching.urls import parse_url


@pytest.fixture(scope="module")
def server() -> Iterator[ImageServer]:
    gzip_bomb()  # made once, and not while a client waits
    with serving() as running:
        yield running


def client(**options: Any) -> Client:
    settings = {"allow_networks": "127.0.0.1", "timeout_seconds": 0.4, "retries": 0, "backoff_seconds": 0.01}
    return Client(FetchSettings.model_validate(settings | options))


def reason(fetching: Client, url: str) -> str:
    with pytest.raises((BadRecord, RecordDropped)) as verdict:
        fetching.fetch(url)
    return str(verdict.value.reason)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.31.255.1",
        "192.168.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "fe80::1%eth0",
        "fec0::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "2001::1",
        "2002:7f00:1::1",
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not permitted(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "151.101.1.140", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_not(address: str) -> None:
    assert permitted(address)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_what_python_calls_private_is_never_permitted(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if address.is_private or address.is_loopback or address.is_multicast or address.is_link_local:
        mapped = getattr(address, "ipv4_mapped", None)
        assert not permitted(str(address)) or (mapped is not None and permitted(str(mapped)))


def test_networks_that_are_named_are_permitted() -> None:
    allowed = networks(("10.1.0.0/16", "fd00::/8", "127.0.0.1"))
    assert [permitted(a, allowed) for a in ("10.1.2.3", "10.2.0.1", "fd00::9", "127.0.0.1", "::ffff:10.1.2.3")] == [
        True,
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (" http://Example.ORG ", "http://example.org/"),
        ("https://example.org:443/a b.jpg#part", "https://example.org/a%20b.jpg"),
        ("http://example.org:8080/ä?q=ü&x=%20", "http://example.org:8080/%C3%A4?q=%C3%BC&x=%20"),
        ("http://bücher.example/x", "http://xn--bcher-kva.example/x"),
        ("http://[2606:4700::1111]:81/x", "http://[2606:4700::1111]:81/x"),
        ("http://example.org/a\r\nHost: evil", "http://example.org/aHost:%20evil"),
    ],
)
def test_urls_are_spelt_for_the_wire(url: str, expected: str) -> None:
    assert parse_url(url).url == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///etc/passwd", "scheme_refused"),
        ("ftp://example.org/x", "scheme_refused"),
        ("data:image/png;base64,AAAA", "scheme_refused"),
        ("/local/path.jpg", "scheme_refused"),
        ("", "scheme_refused"),
        ("http://", "url_invalid"),
        ("http://user:secret@example.org/", "url_invalid"),
        ("http://example.org:99999/", "url_invalid"),
        ("http://[::1/", "url_invalid"),
        ("http://exa mple.org/", "url_invalid"),
        ("http://" + "a" * 70 + "ü.example/", "url_invalid"),
        ("http://example.org/" + "a" * 9000, "url_invalid"),
    ],
)
def test_urls_that_are_not_fetched(url: str, expected: str) -> None:
    with pytest.raises(BadRecord) as verdict:
        parse_url(url)
    assert verdict.value.reason == expected


@given(st.text())
def test_any_text_is_a_url_or_a_verdict(text: str) -> None:
    for url in (text, f"http://{text}", f"https://example.org/{text}"):
        try:
            target = parse_url(url)
        except BadRecord:
            continue
        assert target.url.isascii()
        assert not any(character.isspace() for character in target.url)
        assert parse_url(target.url) == target


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["noai"], True),
        (["all"], False),
        (["NOINDEX, nofollow"], True),
        (["max-snippet:0, noai"], True),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST", "noimageai"], True),
        (["otherbot: noai"], False),
        (["otherbot: noindex, noai"], False),
        (["omnimill: noai"], True),
        (["otherbot: nofollow, omnimill: noindex"], True),
        (["*: noindex"], True),
        (["noaibot"], False),
        (["", ",", ":"], False),
    ],
)
def test_robots_directives(values: list[str], expected: bool) -> None:
    assert opts_out(values, "omnimill", ("noai", "noimageai", "noindex", "noimageindex")) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/status/404/a", "http_client_error"),
        ("/status/403/a", "http_client_error"),
        ("/status/408/a", "http_server_error"),
        ("/status/500/a", "http_server_error"),
        ("/status/503/a", "http_server_error"),
        ("/status/304/a", "http_client_error"),
        ("/slow/0.8/a", "fetch_timeout"),
        ("/drip/body", "fetch_timeout"),
        ("/driphead/a", "fetch_timeout"),
        ("/truncated/a", "connection_broken"),
        ("/reset/a", "connection_broken"),
        ("/nonsense/a", "http_malformed"),
        ("/manyheaders/a", "http_malformed"),
        ("/brotli/a", "http_malformed"),
        ("/huge/a", "response_too_large"),
        ("/endless/a", "response_too_large"),
        ("/gzipbomb/a", "response_too_large"),
        ("/loop/a", "redirect_refused"),
        ("/to/a", "redirect_refused"),
        ("/to/a?url=file:///etc/passwd", "scheme_refused"),
        ("/to/a?url=ftp://example.org/a", "scheme_refused"),
        ("/to/a?url=http://10.0.0.1/a", "address_refused"),
        ("/to/a?url=http://169.254.169.254/latest/meta-data/", "address_refused"),
        ("/to/a?url=http://[::ffff:169.254.169.254]/", "address_refused"),
        ("/to/a?url=http://2852039166/", "address_refused"),
        ("/robots/a?value=noai", "robots_opt_out"),
        ("/robots/a?value=omnimill:%20noindex", "robots_opt_out"),
        ("/reserved/1/a", "robots_opt_out"),
    ],
)
def test_what_a_server_does_has_a_name(server: ImageServer, path: str, expected: str) -> None:
    started = time.monotonic()
    assert reason(client(), server.url + path) == expected
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "path", ["/picture/1.jpg", "/mistyped/1.jpg", "/gzipped/1.jpg", "/robots/1?value=otherbot: noai", "/reserved/0/1"]
)
def test_pictures_come_as_they_were_sent(server: ImageServer, path: str) -> None:
    fetching = client(user_agent="tester (+mailto:me@example.org)")
    assert fetching.fetch(server.url + path).read() == picture(1)
    assert fetching.fetch(f"{server.url}/to/a?url={server.url}{path}").read() == picture(1)
    assert "tester (+mailto:me@example.org)" in server.agents


def test_a_response_beyond_the_limit_is_never_held(server: ImageServer) -> None:
    fetching = client(max_bytes=1 << 20, timeout_seconds=5)
    tracemalloc.start()
    for path in ("/endless/a", "/huge/a", "/gzipbomb/a"):
        assert reason(fetching, server.url + path) == "response_too_large"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_nothing_listens_and_no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert reason(client(), f"http://127.0.0.1:{port}/") == "connect_failed"
    for number, expected in ((socket.EAI_NONAME, "dns_failure"), (socket.EAI_AGAIN, "dns_unavailable")):
        monkeypatch.setattr(socket, "getaddrinfo", failing(socket.gaierror(number, "in words")))
        assert reason(client(), "http://example.org/") == expected


def failing(error: Exception) -> Callable[..., Any]:
    def call(*args: Any, **named: Any) -> Any:
        raise error

    return call


def test_a_name_that_changes_its_address_gains_nothing(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    port = server.server_address[1]
    answers = iter([["127.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["10.0.0.1"], ["::1"]])
    asked = []

    def resolve(host: str, *args: Any, **named: Any) -> list[Any]:
        asked.append(host)
        kinds = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(kinds[":" in found], socket.SOCK_STREAM, 6, "", (found, port)) for found in next(answers)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = f"http://rebind.example:{port}/picture/1.jpg"
    fetching = client()
    for _ in range(2):
        assert fetching.fetch(url).read() == picture(1)
    assert asked == ["rebind.example"]  # once: what was checked is what was connected to
    assert client().fetch(url).read() == picture(1)  # only the address that is permitted
    assert reason(client(), url) == "address_refused"
    assert reason(client(), url) == "address_refused"
    assert len(asked) == 4


def test_an_address_that_does_not_answer_leaves_time_for_the_others(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server.server_address[1]
    with socket.socket() as full:
        full.bind(("127.0.0.2", port))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.2", port))
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **named: found)
        fetching = client(allow_networks="127.0.0.0/8", timeout_seconds=1)
        assert fetching.fetch(f"http://two.example:{port}/picture/1.jpg").read() == picture(1)
        for one in waiting:
            one.close()


def test_failures_that_pass_are_tried_again_and_others_are_not(server: ImageServer) -> None:
    fetching = client(retries=2)
    for status in (500, 503, 429, 408):
        assert fetching.fetch(f"{server.url}/flaky/2/{status}/a.jpg").read() == picture(1)
    assert reason(fetching, f"{server.url}/flaky/3/502/a.jpg") == "http_server_error"
    assert reason(fetching, f"{server.url}/status/404/once") == "http_client_error"
    assert server.hits["/status/404/once"] == 1
    assert server.hits["/flaky/3/502/a.jpg"] == 3


def test_a_host_that_asks_for_a_pause_gets_it(server: ImageServer) -> None:
    fetching = client(retries=1, timeout_seconds=3)
    started = time.monotonic()
    assert fetching.fetch(f"{server.url}/flaky/1/503/b.jpg?after=1").read() == picture(1)
    assert time.monotonic() - started > 0.9
    assert reason(fetching, f"{server.url}/status/429/a?after=86400") == "http_rate_limited"
    assert reason(fetching, f"{server.url}/picture/41.jpg") == "http_rate_limited"
    assert server.hits["/picture/41.jpg"] == 0  # it asked to be left alone


def test_a_host_sees_a_few_fetches_at_once() -> None:
    fetching = client(max_per_host=3, timeout_seconds=5)
    with serving() as server:
        urls = [f"{server.url}/slow/0.03/{i}" for i in range(12)]
        threads = [threading.Thread(target=fetching.fetch, args=(url,)) for url in urls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.most_at_once <= 4  # a response is over for the client a little before it is for the server
    assert all(server.hits[f"/slow/0.03/{i}"] == 1 for i in range(12))


def test_a_unit_has_an_end(server: ImageServer) -> None:
    fetching = client(unit_seconds=0.3, timeout_seconds=10, retries=5)
    started = time.monotonic()
    assert reason(fetching, f"{server.url}/slow/2/a") == "fetch_timeout"
    assert reason(fetching, f"{server.url}/picture/1.jpg") == "fetch_budget_spent"
    assert time.monotonic() - started < 1
    small = client(unit_bytes=3000)
    assert small.fetch(f"{server.url}/picture/1.jpg").read() == picture(1)
    assert reason(small, f"{server.url}/picture/1.jpg") == "fetch_budget_spent"


def test_certificates_are_checked_for_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate_for("localhost", tmp_path))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        port = server.server_address[1]
        assert reason(client(timeout_seconds=3), f"https://localhost:{port}/picture/1.jpg") == "tls_failed"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        trusting = client(timeout_seconds=3)
        assert trusting.fetch(f"https://localhost:{port}/picture/1.jpg").read() == picture(1)
        assert reason(trusting, f"https://127.0.0.1:{port}/picture/1.jpg") == "tls_failed"
        assert reason(client(), f"https://localhost:{port}/slow/1/a") == "fetch_timeout"


def certificate_for(name: str, folder: Path) -> Path:
    """A certificate that signs itself, with its key, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(encoding, form, serialization.NoEncryption()) + certificate.public_bytes(encoding)
    )
    return path


def test_settings_bound_memory_and_name_networks() -> None:
    assert FetchSettings(allow_networks="10.0.0.0/8, 127.0.0.1").allow_networks == ("10.0.0.0/8", "127.0.0.1")  # type: ignore[arg-type]
    assert FetchSettings(allow_networks="").allow_networks == ()  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="intranet"):
        FetchSettings(allow_networks=("intranet",))
    with pytest.raises(ValidationError, match="may wait in memory"):
        FetchSettings(threads=512, max_bytes=64 << 20)
    with pytest.raises(ValidationError):
        FetchSettings(user_agent="two\r\nlines")


def test_the_folder_of_a_killed_process_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import time\nfrom omnimill.pipelines.fetching.scratch import scratch_folder\n"
        "with scratch_folder() as folder:\n    (folder / '0.tar').write_bytes(bytes(1000))\n"
        "    print(folder, flush=True)\n    time.sleep(60)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as beside:
        assert left.exists()  # it is in use
        assert beside != left
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with scratch_folder() as folder:
        assert not left.exists()
        assert folder.exists()
    assert list(tmp_path.iterdir()) == []
