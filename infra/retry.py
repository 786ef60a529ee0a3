"""Calls to a store that fails for a while: tried again after growing, jittered pauses, for a bounded time."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Literal, TypeVar

from omnimill import rng
from omnimill.errors import StoreUnavailable

T = TypeVar("T")

# No call is given longer than this in all; it has to outlast a store that throttles or restarts.
GIVE_UP_SECONDS = 300.0
# Pauses are drawn evenly between 0 and a bound that doubles from the first to the longest ("full jitter", as AWS's
# Architecture Blog calls it in "Exponential Backoff And Jitter").
_FIRST_SECONDS = {"transient": 0.1, "throttled": 1.0}
_LONGEST_SECONDS = 20.0

_THROTTLED_CODES = {
    "SlowDown",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "429",
    "503",
}
_TRANSIENT_CODES = {
    "InternalError",
    "RequestTimeout",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "OperationAborted",
    "NoSuchUpload",
    "408",
    "500",
    "502",
    "504",
}
_TRANSIENT_ERRNO = {
    errno.EIO,
    errno.EREMOTEIO,
    errno.EAGAIN,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
}
# Packages whose own exceptions tell about the connection.
_TRANSPORTS = {"aiohttp", "aiobotocore", "botocore", "requests", "urllib3"}

Kind = Literal["throttled", "transient"]


class Truncated(OSError):
    """A store answered with fewer bytes than the file has."""


def patiently(what: str, call: Callable[[], T]) -> T:
    """``call()``, again and again while it fails in a way that may pass.

    Args:
        what: the action and its URL, for the message.

    Raises:
        StoreUnavailable: it still failed after 300 seconds.
        Exception: any other fault of the call, at once.
    """
    started, tries = time.monotonic(), 0
    while True:
        try:
            return call()
        except Exception as error:
            kind = passing(error)
            if kind is None:
                raise
            tries += 1
            spent = time.monotonic() - started
            if spent > GIVE_UP_SECONDS:
                raise StoreUnavailable(
                    f"{what}: {kind} for {spent:.0f} s, {tries} tries, last {type(error).__name__}: {error}"
                ) from error
            time.sleep(_pause(kind, tries))


def passing(error: BaseException) -> Kind | None:
    """How a fault may pass: the store asks for fewer requests, or something broke on the way; None if it will not."""
    for one in _causes(error):
        code = _code(one)
        if code in _THROTTLED_CODES:
            return "throttled"
        if code in _TRANSIENT_CODES:
            return "transient"
    if isinstance(error, Truncated | TimeoutError | ConnectionError):
        return "transient"
    if isinstance(error, OSError) and error.errno is not None:
        # s3fs says EBUSY for SlowDown and ServiceUnavailable.
        return "throttled" if error.errno == errno.EBUSY else "transient" if error.errno in _TRANSIENT_ERRNO else None
    return "transient" if type(error).__module__.partition(".")[0] in _TRANSPORTS and not _code(error) else None


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__
    return found


def _code(error: BaseException) -> str:
    """The store's own code for an error: botocore's, or the HTTP status that other clients give."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return str(status) if isinstance(status, int | str) else ""


def _pause(kind: Kind, tries: int) -> float:
    bound = min(_FIRST_SECONDS[kind] * 2.0 ** (tries - 1), _LONGEST_SECONDS)
    return bound * rng.uniform("pause", socket.gethostname(), os.getpid(), threading.get_ident(), tries)
