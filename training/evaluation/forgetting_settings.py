"""What a run says about tasks that its parents knew and that it must not forget."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from omnimill.config import Config
from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture
from omnimill.training.evaluation.settings import EvaluationSettings


class ForgettingSettings(Config):
    """The gate at the end of a run.

    parents: checkpoints that knew something (a folder, a run's: its newest checkpoint; or the name of a run under the
        root), each with the held-out tasks of the run's mixture that it is measured on.
    margin: nats of a target token that the run's last loss of such a task may be above its parent's.
    """

    parents: dict[str, tuple[str, ...]] = Field(min_length=1)
    margin: PositiveFloat


def check_forgetting(settings: ForgettingSettings, evaluation: EvaluationSettings, mixture: Mixture) -> None:
    """Are the tasks there, and is there an evaluation at the run's end?

    Raises:
        ConfigError: they are not.
    """
    if evaluation.every is None:
        raise ConfigError("forgetting: needs an evaluation at the run's end: evaluation.every is not set")
    known = [task.name for task in mixture.held_out]
    for parent, tasks in settings.parents.items():
        for task in tasks:
            if task not in known:
                raise ConfigError(
                    f"forgetting.parents.{parent}: the mixture does not hold out {task!r}; allowed: {', '.join(known)}"
                )
