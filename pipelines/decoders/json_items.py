"""The items of a JSON document of any size, one after the other, without the document in memory.

Annotation files are single documents of gigabytes: one object that holds a few long lists.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from omnimill.errors import BadRecord

_CHUNK = 4 << 20
# No single item of a known format comes near this.
_MAX_ITEM = 256 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
# An error so near to the end of what has been read may be due to that end.
_NEAR_END = 16
_HALF_EXPONENT = 2
_decode = json.JSONDecoder().raw_decode

Item = tuple[str, str | int, Any]


def json_items(stream: BinaryIO, *paths: str) -> Iterator[Item]:
    """Children of lists and objects in a JSON document, in the document's order.

    Args:
        stream: the document, UTF-8.
        paths: where the lists and objects lie: names of members with dots between, "" for the document itself. What
            lies elsewhere is passed over.

    Yields:
        The path, the child's key or number, and the child.

    Raises:
        BadRecord: ``invalid_json``, ``invalid_utf8``; ``missing_field`` at the end when a path led nowhere.
    """
    reader = _Reader(stream)
    found: set[str] = set()
    yield from _container(reader, "", frozenset(paths), found)
    if reader.peek():
        raise reader.fault("something follows the document")
    if missing := [path for path in paths if path not in found]:
        raise BadRecord("missing_field", f"no list or object {', '.join(map(repr, missing))}")


def _container(reader: _Reader, path: str, wanted: frozenset[str], found: set[str]) -> Iterator[Item]:
    """The wanted items in the value that comes next."""
    opening = reader.peek()
    if opening not in ("[", "{"):
        reader.value()
        return
    reader.skip(opening)
    closing = "]" if opening == "[" else "}"
    is_wanted = path in wanted
    found.update({path} & wanted)
    number = 0
    while reader.peek() != closing:
        if number:
            reader.skip(",")
        key: str | int = number
        if opening == "{":
            key = reader.value()
            if not isinstance(key, str):
                raise reader.fault("a member's name is no text")
            reader.skip(":")
        number += 1
        inner = f"{path}.{key}" if path else str(key)
        if is_wanted:
            yield path, key, reader.value()
        elif opening == "{" and any(one == inner or one.startswith(f"{inner}.") for one in wanted):
            yield from _container(reader, inner, wanted, found)
        elif reader.peek() in ("[", "{"):
            _pass_over(reader)
        else:
            reader.value()
    reader.skip(closing)


def _pass_over(reader: _Reader) -> None:
    """Go past a container child by child, as the whole may be large."""
    for _ in _container(reader, "", frozenset([""]), set()):
        pass


class _Reader:
    """Text of a stream, decoded as far as it is needed."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._before = 0

    def peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self, character: str) -> None:
        if (found := self.peek()) != character:
            raise self.fault(f"{character!r} should stand here, not {found!r}")
        self._at += 1

    def value(self) -> Any:
        """The value that comes next, as a whole."""
        self.peek()
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as fault:
                cut_off = fault.msg.startswith("Unterminated") or fault.pos >= len(self._text) - _NEAR_END
                if not (cut_off and self._more()):
                    raise self.fault(fault.msg) from None
            except (ValueError, RecursionError) as fault:
                raise self.fault(str(fault)) from None
            else:
                # A number near the end of what was read may go on behind it: "1.5e+" alone is 1.5.
                if end + _HALF_EXPONENT < len(self._text) or not self._more():
                    self._at = end
                    return value

    def fault(self, message: str) -> BadRecord:
        return BadRecord("invalid_json", f"character {self._before + self._at}: {message}")

    def _more(self) -> bool:
        """Read on; False, and nothing has changed, at the end of the stream."""
        rest = self._text[self._at :]
        if len(rest) > _MAX_ITEM:
            raise self.fault(f"an item of more than {_MAX_ITEM} characters")
        # As much as waits already, so that a long item is gone over a few times only.
        data = self._stream.read(max(_CHUNK, len(rest)))
        try:
            text = self._utf8.decode(data, final=not data)
        except UnicodeDecodeError as fault:
            raise BadRecord("invalid_utf8", f"behind character {self._before + self._at}: {fault.reason}") from None
        if data:
            self._before += self._at
            self._text, self._at = rest + text, 0
        return bool(data)
