"""How large the sources of the reference's pre-training corpus are."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path(__file__).with_name("corpus.csv")


@dataclass(frozen=True)
class CorpusSource:
    """A row of Table 10 of Unified-IO 2 (Lu et al., arXiv 2312.17172), rounded there to two or three digits.

    dag: name of its file in ``pipelines/dags/pretrain`` and of the dataset that this makes. examples: in one pass.
    """

    dag: str
    group: str
    name: str
    examples: int


def corpus() -> dict[str, CorpusSource]:
    """The thirty sources, by the name of their DAG."""
    with _TABLE.open(encoding="utf-8", newline="") as stream:
        rows = (
            CorpusSource(row["dag"], row["group"], row["name"], int(row["examples"])) for row in csv.DictReader(stream)
        )
        return {row.dag: row for row in rows}
