"""Text from untrusted bytes: strict UTF-8, strict JSON, and the readable text of HTML pages."""

from __future__ import annotations

import codecs
import json
import re
from html.parser import HTMLParser
from typing import Any

from omnimill.errors import BadRecord

_META_CHARSET = re.compile(rb"<meta[^>]{1,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:-]{2,40})", re.IGNORECASE)
# What browsers take these names for.
_BROWSER_CODECS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
# One damaged character is borne with among so many.
_INTACT = 1000
_UNSEEN = {"head", "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "select", "button"}
_BLOCKS = {"address", "article", "aside", "blockquote", "br", "caption", "dd", "details", "div", "dl", "dt", "figure"}
_BLOCKS |= {"figcaption", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav"}
_BLOCKS |= {"ol", "p", "pre", "section", "table", "td", "th", "tr", "ul"}


def utf8(data: bytes) -> str:
    """Text of UTF-8 bytes, without a byte order mark.

    Raises:
        BadRecord: ``invalid_utf8`` with the place of the first fault.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        where = data[fault.start : fault.start + 8].hex(" ")
        raise BadRecord("invalid_utf8", f"byte {fault.start}: {fault.reason} ({where})") from None


def plain_text(data: bytes) -> str:
    """Text of a file that should hold nothing else.

    Raises:
        BadRecord: ``binary_file`` when there are NUL bytes in it, ``invalid_utf8``.
    """
    if b"\0" in data:
        raise BadRecord("binary_file", f"NUL at byte {data.index(0)}")
    return utf8(data)


def parse_json(text: str | bytes) -> Any:
    """A JSON value.

    Raises:
        BadRecord: ``invalid_json``, ``invalid_utf8``.
    """
    try:
        return json.loads(utf8(text) if isinstance(text, bytes) else text)
    except (ValueError, RecursionError) as fault:
        raise BadRecord("invalid_json", str(fault)) from None


def text_value(value: Any, field: str) -> str:
    """A value of a record that must be text which can be stored.

    Raises:
        BadRecord: ``missing_field`` for None, ``wrong_type``, ``invalid_utf8`` for half of a surrogate pair.
    """
    if value is None:
        raise BadRecord("missing_field", f"no {field!r}")
    if not isinstance(value, str):
        raise BadRecord("wrong_type", f"{field!r} is {type(value).__name__}, not text")
    try:
        value.encode()
    except UnicodeEncodeError as fault:
        raise BadRecord("invalid_utf8", f"{field!r}: character {fault.start}: {fault.reason}") from None
    return value


def html_text(data: bytes) -> str:
    """The readable text of an HTML page: what a browser would show, block elements on lines of their own.

    Raises:
        BadRecord: ``invalid_utf8`` when it is neither UTF-8 nor in the encoding that it declares.
    """
    parser = _Readable()
    parser.feed(html_source(data))
    parser.close()
    return parser.text()


def html_source(data: bytes, charset: str | None = None) -> str:
    """The text of an HTML file.

    UTF-8 where it is that, else by a UTF-16 mark, the charset that HTTP names or the one that the file declares, under
    the names that browsers use (Encoding Standard, section 4.2). One character in a thousand may be damaged, and
    becomes U+FFFD.

    Raises:
        BadRecord: ``invalid_utf8`` when it is none of these.
    """
    try:
        return utf8(data)
    except BadRecord as fault:
        strict = fault
    declared = _META_CHARSET.search(data[:4096])
    labels = ["utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else None, charset]
    labels += [declared.group(1).decode() if declared else None, "utf-8"]
    for label in labels:
        codec = _codec(label)
        if codec is not None:
            text = data.decode(codec, "replace")
            if text.count("\ufffd") * _INTACT <= len(text):
                return text
    said = ", ".join(repr(label) for label in labels[1:3] if label)
    raise BadRecord("invalid_utf8", f"neither UTF-8 nor what is declared ({said or 'nothing'}): {strict.message}")


def _codec(label: str | None) -> str | None:
    if label is None:
        return None
    try:
        name = codecs.lookup(label.strip().strip("\"'")).name
    except (LookupError, ValueError):
        return None
    # Codecs from bytes to bytes have names, too.
    return _BROWSER_CODECS.get(name, name) if getattr(codecs.lookup(name), "_is_text_encoding", True) else None


class _Readable(HTMLParser):
    """Collects text outside of elements that are not shown."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._pieces: list[str] = []
        self._unseen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag == "body":
            self._unseen.clear()  # a head that was never closed ends here
        if tag in _UNSEEN:
            self._unseen.append(tag)
        elif tag in _BLOCKS:
            self._pieces.append("\n")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag in _BLOCKS:
            self._pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._unseen:
            del self._unseen[self._unseen.index(tag) :]
        elif tag in _BLOCKS:
            self._pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._pieces.append(data)

    def text(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self._pieces).split("\n"))
        return "\n".join(line for line in lines if line)
