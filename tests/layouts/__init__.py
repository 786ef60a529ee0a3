"""Small copies of the layouts that real sources have, made from nothing, for DAGs to run on.

Every module has ``LAYOUTS``: from the name of a DAG in ``pipelines/dags/pretrain`` to a function that writes what the
DAG reads below a folder and says what has to come out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Expected:
    """The accounts after ingestion. quarantined, dropped: of records; examples_dropped: of examples; all by reason.

    environment: variables that the DAG needs besides DATA.
    """

    records: int
    examples: int
    quarantined: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    examples_dropped: dict[str, int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


Layout = Callable[[Path], Expected]
