"""What a training run says about its checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, PositiveInt

from omnimill.config import Config
from omnimill.infra.model_names import check_alias, check_name


class BestSettings(Config):
    """Checkpoints that are kept for what their evaluation said.

    metric: one of a history line's ``evaluation``, nested names joined by dots: ``loss``, ``loss_by_task.caption``.
    better: whether lower or higher values are. count: how many are kept; of equal ones the earlier.
    """

    metric: str = "loss"
    better: Literal["lower", "higher"] = "lower"
    count: PositiveInt = 1


class RegistrySettings(Config):
    """A registered model, and the aliases that point at its new version."""

    model: Annotated[str, AfterValidator(check_name)]
    aliases: tuple[Annotated[str, AfterValidator(check_alias)], ...] = ()


class CheckpointSettings(Config):
    """When a run writes checkpoints, and which of them it keeps: those that any of the three rules names.

    every: write one after every so many updates, and at the end.
    keep: the newest so many.
    keep_every: those whose number of updates is a multiple of this.
    keep_best: those with the best evaluation; only checkpoints of evaluated steps count.
    registry: a model in MLflow's registry that the last checkpoint becomes a version of, see docs/lineage.md.
    """

    every: PositiveInt = 1000
    keep: PositiveInt = 3
    keep_every: PositiveInt | None = None
    keep_best: BestSettings | None = None
    registry: RegistrySettings | None = None

    def due(self, done: int, steps: int) -> bool:
        """Whether one is written after `done` of `steps` updates."""
        return done % self.every == 0 or done == steps
