"""What a benchmark reports: our figure beside its peers' from the same run, and how near it is to the ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

OURS = "omnimill"


@dataclass(frozen=True)
class Metric:
    """One figure. ratio_to_best_peer: above 1 is better than the best peer, whichever way the figure counts.

    ceiling: the best that is possible, where it is known; ceiling_share: how much of it is reached.
    """

    metric: str
    unit: str
    ours: float
    peers: dict[str, float]
    ratio_to_best_peer: float | None
    ceiling: float | None
    ceiling_share: float | None

    @classmethod
    def of(
        cls,
        metric: str,
        unit: str,
        values: Mapping[str, float],
        best: Literal["largest", "smallest"],
        ceiling: float | None = None,
    ) -> Self:
        """From the values of all contestants, ours under the name ``omnimill``."""
        ours = values[OURS]
        peers = {name: value for name, value in values.items() if name != OURS}
        ratio = None
        if peers:
            ratio = ours / max(peers.values()) if best == "largest" else min(peers.values()) / ours
        share = None if ceiling is None else ours / ceiling if best == "largest" else ceiling / ours
        return cls(metric, unit, ours, peers, ratio, ceiling, share)
