"""Hosts of web addresses and the domains that they lie in."""

from __future__ import annotations

from urllib.parse import urlsplit

_LEAST_LABELS = 2


def host_of(url: str) -> str:
    """The host of a URL: lower case, IDNA for names beyond ASCII, without port and final dot; "" if it has none."""
    try:
        return plain_host(urlsplit(url).hostname or "")
    except ValueError:
        return ""


def plain_host(host: str) -> str:
    """A host as it is compared: lower case, IDNA, without the final dot."""
    host = host.strip().lower().rstrip(".")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host


def domains_of(host: str) -> list[str]:
    """A host and every domain above it that has a dot: ``a.b.org`` lies in ``a.b.org`` and ``b.org``."""
    labels = host.split(".")
    if labels[-1].isdigit() or ":" in host:  # an address lies in nothing
        return [host]
    return [".".join(labels[i:]) for i in range(max(len(labels) - _LEAST_LABELS + 1, 1))]
