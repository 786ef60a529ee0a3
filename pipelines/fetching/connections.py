"""Connections to strangers' servers: to addresses that were checked, and with an end to how long they take."""

from __future__ import annotations

import errno
import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from omnimill.errors import BadRecord
from omnimill.pipelines.fetching.addresses import Network, permitted
from omnimill.pipelines.fetching.urls import Target

_REMEMBERED_SECONDS = 300.0
# What the resolver says when asking again may help.
_TRY_AGAIN = (socket.EAI_AGAIN,)
# Failures of this machine, which say nothing about the other one.
_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


class Deadline:
    """A moment on the monotonic clock."""

    def __init__(self, at: float) -> None:
        self.at = at

    def left(self) -> float:
        """Seconds until then, more than 0; TimeoutError when it is past."""
        seconds = self.at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds


Address = tuple[int, Any]


class Resolver:
    """Names to addresses, remembered for a while: lists name the same hosts again and again. Used by many threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[float, list[Address] | BadRecord]] = {}

    def addresses(self, target: Target) -> list[Address]:
        """Families and socket addresses of a host.

        Raises:
            BadRecord: ``dns_failure``, ``dns_unavailable``.
        """
        name = (target.host, target.port)
        until, found = self._known.get(name, (0.0, []))
        if time.monotonic() > until:
            found = _resolve(target)
            if not isinstance(found, BadRecord) or found.reason == "dns_failure":
                self._known[name] = (time.monotonic() + _REMEMBERED_SECONDS, found)
        if isinstance(found, BadRecord):
            raise BadRecord(found.reason, found.message)
        return found


def open_connection(
    target: Target, deadline: Deadline, resolver: Resolver, allowed: Sequence[Network], context: ssl.SSLContext
) -> http.client.HTTPConnection:
    """A connection of which every operation ends at the deadline.

    The host's name is resolved, its addresses are checked, and the socket is connected to one of those that passed: a
    name that answers differently the next time gains nothing. Certificates are checked for the name.

    Raises:
        BadRecord: ``dns_failure``, ``dns_unavailable``, ``address_refused``, ``connect_failed`` and, while it is used
            inside `network_faults`, ``tls_failed`` and the like.
        TimeoutError: at the deadline.
    """
    kind = _TlsConnection if target.scheme == "https" else _Connection
    options: dict[str, Any] = {"context": context} if target.scheme == "https" else {}
    connection = kind(target.host, target.port, **options)
    connection.connected = _connect(target, deadline, resolver, allowed)
    connection.response_class = lambda sock, *args, **named: http.client.HTTPResponse(  # type: ignore[assignment]
        _Timed(sock, deadline),  # type: ignore[arg-type]
        *args,
        **named,
    )
    try:
        connection.connected.settimeout(deadline.left())
        connection.connect()
    except BaseException:
        connection.connected.close()
        connection.close()
        raise
    return connection


@contextmanager
def network_faults() -> Iterator[None]:
    """Whatever a network operation raises, as a verdict on the URL."""
    try:
        yield
    except TimeoutError as fault:
        raise BadRecord("fetch_timeout", "the response took longer than allowed") from fault
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as fault:
        raise BadRecord("connection_broken", "the encrypted connection ended early") from fault
    except ssl.SSLError as fault:
        words = fault.verify_message if isinstance(fault, ssl.SSLCertVerificationError) else fault.reason
        raise BadRecord("tls_failed", str(words)) from fault
    except (http.client.IncompleteRead, http.client.RemoteDisconnected) as fault:
        raise BadRecord("connection_broken", "the response ended early") from fault
    except (http.client.HTTPException, ValueError) as fault:
        raise BadRecord("http_malformed", f"{type(fault).__name__}: {str(fault)[:200]!r}") from fault
    except OSError as fault:
        if fault.errno in _MACHINE:
            raise
        raise BadRecord("connection_broken", _words(fault)) from fault


def _connect(target: Target, deadline: Deadline, resolver: Resolver, allowed: Sequence[Network]) -> socket.socket:
    addresses = resolver.addresses(target)
    accepted = [address for address in addresses if permitted(str(address[1][0]), allowed)]
    if not accepted:
        found = ", ".join(sorted({str(address[1][0]) for address in addresses})[:3])
        raise BadRecord("address_refused", f"{target.host} is at {found}, which is not a public address")
    for place, (family, address) in enumerate(accepted):
        connection = socket.socket(family, socket.SOCK_STREAM)
        # One address that does not answer must not use up the time of the others.
        connection.settimeout(deadline.left() / (len(accepted) - place))
        try:
            connection.connect(address)
        except OSError as fault:
            connection.close()
            if fault.errno in _MACHINE:
                raise
            last = fault
        else:
            return connection
    if isinstance(last, TimeoutError):
        raise last
    raise BadRecord("connect_failed", _words(last))


def _resolve(target: Target) -> list[Address] | BadRecord:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except socket.gaierror as fault:
        reason = "dns_unavailable" if fault.errno in _TRY_AGAIN else "dns_failure"
        return BadRecord(reason, f"{target.host}: {fault.strerror}")
    except UnicodeError:
        return BadRecord("dns_failure", f"{target.host}: no valid name")
    return list(dict.fromkeys((entry[0], entry[4]) for entry in found))


def _words(fault: OSError) -> str:
    return fault.strerror or type(fault).__name__


class _Connection(http.client.HTTPConnection):
    """A connection over a socket that is connected already."""

    connected: socket.socket

    def connect(self) -> None:
        self.connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self.connected


class _TlsConnection(http.client.HTTPSConnection, _Connection):
    """The same with TLS: HTTPSConnection connects by the class behind it and wraps the socket that it gets."""


class _Timed:
    """What HTTPResponse needs of a socket: a file, here one that keeps the deadline at every single read.

    A socket's own timeout would start again with every byte of a server that sends one now and then.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock, self._deadline = sock, deadline

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 - always "rb"
        return io.BufferedReader(_TimedFile(self._sock, self._deadline), 64 << 10)


class _TimedFile(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock, self._deadline = sock, deadline
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.left())
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()
