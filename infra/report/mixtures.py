"""What the page says about the mixture of a training run: plain values for the template.

Another room makes them, for what a mixture draws is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from omnimill.infra.report.charts import Chart


@dataclass(frozen=True)
class MixtureTask:
    """A task of a mixture.

    asked, drawn: shares of draws; packed: of the examples that are in sequences, which lacks what waits to be packed.
    rows: that it has. epochs: how often they were read, on average; most: its cap, None: it has none.
    tokens: of an example, on average. token_share: of all tokens.
    """

    name: str
    group: str
    reads: str
    writes: str
    asked: float
    drawn: float
    packed: float
    rows: int
    epochs: float
    most: float | None
    tokens: float
    token_share: float


@dataclass(frozen=True)
class MixtureSource:
    """A source over all tasks: rows, examples that were read, and how often each on average."""

    name: str
    rows: int
    examples: int
    epochs: float


@dataclass(frozen=True)
class MixtureCard:
    """The mixture of a run. basis: what the figures rest on, in words. rendered: examples as the model reads and writes
    them. missing: why something is not shown."""

    name: str
    digest: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    basis: str = ""
    tasks: Sequence[MixtureTask] = ()
    sources: Sequence[MixtureSource] = ()
    charts: list[Chart] = field(default_factory=list)
    rendered: Markup = field(default_factory=Markup)
    missing: list[str] = field(default_factory=list)
