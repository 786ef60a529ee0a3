"""The rows of tables about recordings: CSV, TSV and other separated text, JSON Lines, JSON, YAML, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from omnimill.errors import ConfigError
from omnimill.infra import storage
from omnimill.pipelines import files
from omnimill.pipelines.sources.table_notes import LabelNames, Separated, TableSettings

_MAX_LINE_BYTES = 64 << 20
_MAX_JSON_BYTES = 1 << 30
_MAX_YAML_BYTES = 64 << 20
_DELIMITERS = {"csv": ",", "tsv": "\t", "txt": " "}
# csv refuses longer fields; the limit is the module's own for the whole process.
csv.field_size_limit(_MAX_LINE_BYTES)


def rows_of(settings: TableSettings, uri: str) -> Iterator[dict[str, Any]]:
    """The rows of one file of a table, as objects of columns.

    Raises:
        ConfigError: a file that is not what its ending or the settings say.
    """
    form = _form(uri)
    if form == "parquet":
        items: Iterator[Any] = _parquet_rows(uri)
    elif form in ("jsonl", "ndjson"):
        items = _json_lines(uri)
    elif form == "json":
        items = _json(uri)
    elif form in ("yaml", "yml"):
        items = _yaml(uri)
    elif form in _DELIMITERS:
        items = separated_rows(settings, uri)
    else:
        allowed = ".csv, .tsv, .txt, .jsonl, .json, .yaml or .parquet"
        raise ConfigError(f"{uri}: a table is {allowed}")
    path = settings.rows.split(".") if settings.rows else []
    for item in items:
        for row in _inside(item, path, {}):
            yield from _apart(row, settings.parallel, uri)


def label_names(settings: LabelNames | None, uri: str | None) -> dict[str, str]:
    """The names of labels; none without a table of them.

    Raises:
        ConfigError: a column is missing.
    """
    if settings is None or uri is None:
        return {}
    names = {}
    for row in separated_rows(settings, uri):
        missing = {settings.key, settings.name} - set(row)
        if missing:
            raise ConfigError(f"{uri}: no column {', '.join(sorted(missing))}")
        names[row[settings.key]] = row[settings.name]
    return names


def separated_rows(settings: Separated, uri: str) -> Iterator[dict[str, Any]]:
    """The rows of a file of separated text.

    Raises:
        ConfigError: it is none.
    """
    comment = settings.comment
    delimiter = settings.delimiter or _DELIMITERS.get(_form(uri), ",")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if settings.quoted else csv.QUOTE_NONE
    with files.open_expanded(uri) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
        lines = (line.replace("\0", "") for line in text if comment is None or not line.startswith(comment))
        reader = csv.DictReader(lines, settings.columns, delimiter=delimiter, skipinitialspace=True, quoting=quoting)
        try:
            for row in reader:
                row.pop(None, None)  # cells beyond the last column
                yield row
        except csv.Error as error:
            raise ConfigError(f"{uri}: line {reader.line_num}: {error}") from None


def _form(uri: str) -> str:
    return next((part for part in reversed(uri.lower().split(".")) if part not in ("gz", "zst", "bz2")), "")


def _json_lines(uri: str) -> Iterator[Any]:
    with files.open_expanded(uri) as stream:
        for line in files.read_lines(stream, _MAX_LINE_BYTES):
            try:
                yield json.loads(line.data or b"")
            except (ValueError, RecursionError):
                raise ConfigError(f"{uri}: no JSON at byte {line.offset}") from None


def _json(uri: str) -> Iterator[Any]:
    with files.open_expanded(uri) as stream:
        data = stream.read(_MAX_JSON_BYTES + 1)
    if len(data) > _MAX_JSON_BYTES:
        raise ConfigError(f"{uri}: more than {_MAX_JSON_BYTES >> 30} GiB; make JSON Lines of it")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{uri}: no JSON: {error}") from None
    yield from content if isinstance(content, list) else [content]


def _yaml(uri: str) -> Iterator[Any]:
    with files.open_expanded(uri) as stream:
        data = stream.read(_MAX_YAML_BYTES + 1)
    if len(data) > _MAX_YAML_BYTES:
        raise ConfigError(f"{uri}: more than {_MAX_YAML_BYTES >> 20} MiB; make JSON Lines of it")
    try:
        content = yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{uri}: no YAML: {str(error)[:200]}") from None
    yield from content if isinstance(content, list) else [content]


def _parquet_rows(uri: str) -> Iterator[Any]:
    with storage.open_read(uri) as stream:
        try:
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=4096):
                yield from batch.to_pylist()
        except pa.ArrowException as error:
            raise ConfigError(f"{uri}: no Parquet that is read: {str(error)[:200]}") from None


def _inside(item: Any, path: Sequence[str], around: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows at a path inside an item; what stands around them comes along."""
    if isinstance(item, dict):
        around = around | {name: value for name, value in item.items() if not path or name != path[0]}
    if not path:
        if isinstance(item, dict):
            yield around
        return
    step, rest = path[0], path[1:]
    if isinstance(item, list):
        children: list[tuple[Any, Any]] = [(None, child) for child in item] if step == "*" else []
    elif isinstance(item, dict):
        all_of_them = step == "*" or step.startswith("{")
        children = list(item.items()) if all_of_them else [(step, item[step])] if step in item else []
        if all_of_them:
            around = {name: value for name, value in around.items() if name not in item}
    else:
        children = []
    for key, child in children:
        named = {step.strip("{}"): key} if step.startswith("{") else {}
        yield from _inside(child, rest, around | named)


def _apart(row: dict[str, Any], parallel: Sequence[str], uri: str) -> Iterator[dict[str, Any]]:
    """A row with lists side by side as one row for every place in them."""
    if not parallel:
        yield row
        return
    lists = [row.get(name) for name in parallel]
    if any(not isinstance(values, list) or len(values) != len(lists[0] or ()) for values in lists):
        raise ConfigError(f"{uri}: {', '.join(parallel)} are not lists of one length")
    for values in zip(*lists, strict=True):
        yield row | dict(zip(parallel, values, strict=True))
