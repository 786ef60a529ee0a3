"""Rows of annotation files: JSON documents, JSON Lines, CSV and plain lines, read one after the other."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from typing import Any

from omnimill.errors import BadRecord, ConfigError
from omnimill.infra import storage
from omnimill.pipelines import files
from omnimill.pipelines.decoders.json_items import Item, json_items
from omnimill.pipelines.decoders.text import parse_json, utf8

_MAX_LINE_BYTES = 64 << 20


def annotation_paths(root: str, names: Sequence[str], **fields: str) -> list[str]:
    """URLs of annotation files below `root`, in the order of `names`; of a glob in the last part, sorted.

    Args:
        names: with ``{field}`` for each of `fields`.

    Raises:
        ConfigError: a name, or every file that a glob asks for, is not there.
    """
    found: list[str] = []
    for name in names:
        url = storage.join(root, name.format(**fields))
        folder, last = url.rsplit("/", 1)
        if any(mark in last for mark in "*?["):
            fitting = [storage.join(folder, file) for file in storage.list_folder(folder) if fnmatch(file, last)]
        else:
            fitting = [url] if storage.exists(url) else []
        if not fitting:
            raise ConfigError(f"{url}: no such annotation file")
        found += fitting
    return list(dict.fromkeys(found))


def json_rows(uri: str, *paths: str) -> Iterator[Item]:
    """Items of a JSON document, plain or compressed, see `json_items`."""
    with files.open_expanded(uri) as stream:
        yield from json_items(stream, *paths)


def json_lines(uri: str) -> Iterator[tuple[int, Any]]:
    """The byte offset of every line of a JSON Lines file and its value, a `BadRecord` where it cannot be read."""
    with files.open_expanded(uri) as stream:
        for line in files.read_lines(stream, _MAX_LINE_BYTES):
            yield line.offset, _parsed(line)


def csv_rows(uri: str, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str] | BadRecord]]:
    """The number of every row of a CSV file and its fields by the names in the first row; raises as `csv_lines`."""
    rows = csv_lines(uri, delimiter)
    names = next(rows, [])
    for number, values in enumerate(rows):
        if len(values) == len(names):
            yield number, dict(zip(names, values, strict=True))
        else:
            yield number, BadRecord("list_row_malformed", f"{len(values)} fields; there are {len(names)} columns")


def csv_lines(uri: str, delimiter: str = ",") -> Iterator[list[str]]:
    """The fields of every row of a CSV file.

    Raises:
        BadRecord: ``invalid_utf8``, ``list_row_malformed``: the file cannot be read (any further).
    """
    with files.open_expanded(uri) as stream:
        try:
            yield from csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), delimiter=delimiter)
        except UnicodeDecodeError as fault:
            raise BadRecord("invalid_utf8", f"{uri}: {fault.reason}") from None
        except csv.Error as fault:
            raise BadRecord("list_row_malformed", f"{uri}: {fault}") from None


def text_lines(uri: str) -> Iterator[tuple[int, str]]:
    """The byte offset of every line of a text file that is not blank, and the line.

    Raises:
        BadRecord: ``invalid_utf8``, ``line_too_long``: the file cannot be read (any further).
    """
    with files.open_expanded(uri) as stream:
        for line in files.read_lines(stream, _MAX_LINE_BYTES):
            if line.data is None:
                raise BadRecord("line_too_long", f"{line.length} bytes; at most {_MAX_LINE_BYTES}")
            yield line.offset, utf8(line.data)


def _parsed(line: files.Line) -> Any:
    if line.data is None:
        return BadRecord("line_too_long", f"{line.length} bytes; at most {_MAX_LINE_BYTES}")
    try:
        return parse_json(line.data)
    except BadRecord as fault:
        return fault
