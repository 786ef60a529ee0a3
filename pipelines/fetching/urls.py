"""URLs from strangers' lists: which can be fetched, and their spelling on the wire."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from omnimill.errors import BadRecord

_MAX_CHARACTERS = 8192
# Reserved characters and escapes stay; everything else that a request line cannot hold is escaped.
_SAFE = "/%:=&?~#+!$,;'@()*[]"
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")


@dataclass(frozen=True)
class Target:
    """Where a request goes. host: ASCII, lower case, without brackets. path: with the query, escaped."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = self.port == (443 if self.scheme == "https" else 80)
        return f"{self.scheme}://{host}{'' if default else f':{self.port}'}{self.path}"


def parse_url(url: str) -> Target:
    """A URL as it can be fetched: an international name in its ASCII form, other characters escaped, no fragment.

    Raises:
        BadRecord: ``scheme_refused`` for anything but http and https (``file:`` and ``data:`` among them);
            ``url_invalid`` without host, with a name or password, or with a port that is none.
    """
    text = url.strip()
    if len(text) > _MAX_CHARACTERS:
        raise BadRecord("url_invalid", f"{len(text)} characters; at most {_MAX_CHARACTERS}")
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError as fault:
        raise BadRecord("url_invalid", f"{text[:200]!r}: {fault}") from None
    if scheme not in ("http", "https"):
        raise BadRecord("scheme_refused", f"{scheme or 'no'} scheme in {text[:200]!r}; only http and https are fetched")
    if not host or parts.username is not None or parts.password is not None or port == 0:
        raise BadRecord(
            "url_invalid", f"{text[:200]!r}: a host is needed; a name, a password or port 0 is not accepted"
        )
    path = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
    return Target(scheme, _ascii(host), port or (443 if scheme == "https" else 80), path)


def _ascii(host: str) -> str:
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError as fault:
        raise BadRecord("url_invalid", f"host {host[:200]!r}: {fault}") from None
    if not _HOST.fullmatch(name):
        raise BadRecord("url_invalid", f"host {host[:200]!r} is no name and no address")
    return name.lower()
