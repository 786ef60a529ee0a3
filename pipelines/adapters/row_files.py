"""What adapters of annotations that are rows share: Parquet, JSON Lines, JSON documents, CSV and TSV in units."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from omnimill.pipelines.base import Source


class RowFiles(Source):
    """Base of adapters whose records are rows of files; a unit is a slice of a file.

    path: a file, or a folder of files chosen by `include` and `exclude`: ``.parquet``, ``.jsonl`` (also compressed: a
        unit each), ``.json`` (a list, or an object with the list under `rows_field`), ``.csv``, ``.tsv``.
    rows_per_unit: of Parquet and JSON documents. bytes_per_unit: of lines.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "rows_per_unit", "bytes_per_unit")

    path: str
    include: tuple[str, ...] = ("**/*.parquet", "**/*.jsonl", "**/*.jsonl.gz", "**/*.jsonl.zst", "**/*.json")
    exclude: tuple[str, ...] = ()
    rows_field: str = "data"
    rows_per_unit: int = Field(1000, ge=1)
    bytes_per_unit: int = Field(8 << 20, ge=1)
