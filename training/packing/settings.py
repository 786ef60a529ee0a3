"""Settings of packing."""

from __future__ import annotations

from pydantic import Field

from omnimill.config import Config
from omnimill.training.planning.lengths import Budgets


class PackingSettings(Config):
    """budgets: room in one packed sequence. pool: pending examples of a stream to choose from.

    patience: an example that more draws were made after opens the next sequence, the oldest first.
    """

    budgets: Budgets = Budgets()
    pool: int = Field(default=128, ge=1)
    patience: int = Field(default=1024, ge=0)
