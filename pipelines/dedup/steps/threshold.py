"""Rows by a score: one that examples carry, or one that an earlier step measured."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from omnimill.pipelines.dedup.base import RowStep
from omnimill.pipelines.dedup.verdicts import verdicts


class Threshold(RowStep):
    """Leaves out rows whose score is below `min` (reason ``score_low``) or above `max` (``score_high``).

    score: its name in ``meta.scores`` or among the scores of an earlier step; or ``pixels``, of the largest picture.
    min, max: still kept. missing: what becomes of rows without the score (reason ``score_missing``).
    """

    decides: ClassVar[tuple[str, ...]] = ("score", "min", "max", "missing")

    reasons: ClassVar[tuple[str, ...]] = ("score_low", "score_high", "score_missing")

    step: Literal["threshold"]
    score: str
    min: float | None = Field(None, allow_inf_nan=False)
    max: float | None = Field(None, allow_inf_nan=False)
    missing: Literal["keep", "drop"] = "keep"

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("min, max or both must be given")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing would be left")
        return self

    def wanted_scores(self) -> tuple[str, ...]:
        return (self.score,)

    def judge(self, rows: pa.Table) -> pa.Table:
        value = rows.column(f"score:{self.score}")
        # Not a number is no score.
        value = pc.if_else(pc.is_nan(value), pa.scalar(None, pa.float64()), value)
        rows = rows.set_column(rows.column_names.index(f"score:{self.score}"), "value", value)
        found = []
        if self.min is not None:
            found.append(("score_low", pc.less(value, self.min)))
        if self.max is not None:
            found.append(("score_high", pc.greater(value, self.max)))
        if self.missing == "drop":
            found.append(("score_missing", pc.is_null(value)))
        parts = [(reason, rows.filter(mask)) for reason, mask in found]
        return pa.concat_tables(verdicts(part, reason, score=part.column("value")) for reason, part in parts)
