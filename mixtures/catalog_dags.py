"""Datasets of the catalog as a DAG that ``omnimill ingest`` takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml

from omnimill.mixtures.catalog_entries import NOT_STATED, Entry

_PRETRAIN = Path(__file__).parents[1] / "pipelines" / "dags" / "pretrain"
_WIDTH = 116


class _Dumper(yaml.SafeDumper):
    """Writes what is referred to twice twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the base class asks about one object
        return True


def dag_sources(entry: Entry) -> list[dict[str, Any]]:
    """The entry's sources as a DAG has them, variables unexpanded; each with the entry's licence if it says none."""
    found = [dict(source) for source in entry.sources] or _dag_file(entry)["sources"]
    licence = {} if entry.licence == NOT_STATED else {"licence": entry.licence}
    return [source if source.get("licence") else {**source, **licence} for source in found]


def dag_text(entries: Sequence[Entry], dataset: str) -> str:
    """A DAG that ingests these datasets into one, with what each is, where it is from and which files it needs.

    Args:
        dataset: name of the examples dataset.
    """
    others: dict[str, Any] = {}
    for entry in entries:
        if entry.dag:
            others |= {key: value for key, value in _dag_file(entry).items() if key not in ("dataset", "sources")}
    parts = [_dump({"dataset": dataset, **others}), "sources:\n"]
    for entry in entries:
        parts += [f"  # {line}\n" for line in _about(entry)]
        for source in dag_sources(entry):
            block = _dump([source]).splitlines()
            parts += [f"  {line}\n" for line in block]
            parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def _about(entry: Entry) -> Iterator[str]:
    """Lines of comment."""
    yield f"{entry.title}: {entry.home}" if entry.home else entry.title
    yield from wrap(f"Licence: {entry.licence}", _WIDTH, subsequent_indent="  ")
    if entry.note:
        yield from wrap(f"Note: {entry.note}", _WIDTH, subsequent_indent="  ")
    yield f"Files below {entry.folder}:"
    for path, what in entry.files.items():
        yield from wrap(f"  {path}: {what}", _WIDTH, subsequent_indent="    ")


def _dag_file(entry: Entry) -> dict[str, Any]:
    with (_PRETRAIN / f"{entry.dag}.yaml").open(encoding="utf-8") as stream:
        content: dict[str, Any] = yaml.safe_load(stream)
    return content


def _dump(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
    return text
