"""Errors a user can meet, and the exit code of each.

Exit codes of every command: 0 done, 1 failed, 2 bad arguments or configuration, 143 told to stop and did.
"""

from __future__ import annotations


class OmnimillError(Exception):
    """A failure with a message meant for the user: what happened, where, and what to do next."""

    exit_code = 1


class ConfigError(OmnimillError):
    """A configuration the program cannot accept. Names file, line, key, found and allowed."""

    exit_code = 2


class BadRecord(OmnimillError):
    """Input that cannot be read. It is data, not a crash: the record goes to quarantine.

    Args:
        reason: short stable code in snake_case, e.g. ``image_truncated``; see docs/ingest.md.
        message: what was seen, with the value.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[BadRecord], tuple[str, str]]:
        return BadRecord, (self.reason, self.message)


class RecordDropped(OmnimillError):
    """A rule of its source turns a readable record down (a side-car file, a split that is not wanted).

    Args:
        reason: short stable code in snake_case.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Stopped(OmnimillError):
    """A command was told to stop, and did where it can go on from."""

    exit_code = 143


class StoreUnavailable(OmnimillError):
    """A store of files that still fails after being tried for minutes. It says nothing about the data."""


class IntegrityError(OmnimillError):
    """Stored bytes that do not match the digest or the version they were published under."""
