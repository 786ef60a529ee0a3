"""Filters of trajectories and of views of objects. Every one passes examples of other kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from omnimill.pipelines.base import Operator
from omnimill.schema import Example


class TrajectoryStatic(Operator):
    """Drops a run of steps in which nothing moves.

    Measures, for every number of the state, its largest less its smallest value over the run; the largest of these is
    the score ``trajectory_motion``, in the state's own units. A single step tells nothing and passes.
    """

    reads: ClassVar[tuple[str, ...]] = ("trajectory",)
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["trajectory_static"]
    min_motion: float = Field(1e-3, ge=0)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        states = np.array(example.trajectory.states if example.trajectory else [], dtype=np.float64)
        if len(states) < 2 or states.size == 0:
            return None
        motion = float(np.ptp(states, axis=0).max())
        example.meta.scores["trajectory_motion"] = motion
        return "trajectory_static" if motion < self.min_motion else None


class ViewsEmpty(Operator):
    """Drops an object that covers too little of one of its pictures, by the score ``view_coverage`` of its source.

    min_coverage: share of the picture's pixels.
    """

    reads: ClassVar[tuple[str, ...]] = ("views", "meta")

    op: Literal["views_empty"]
    min_coverage: float = Field(0.01, ge=0, le=1)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        coverage = example.meta.scores.get("view_coverage")
        return "views_empty" if example.views and coverage is not None and coverage < self.min_coverage else None
