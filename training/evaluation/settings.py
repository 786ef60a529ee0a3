"""What a training run says about its evaluations."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from omnimill.config import Config
from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture


class EvaluationSettings(Config):
    """Evaluations of a run while it trains, on the tasks that its mixture holds out.

    every: evaluate after every so many updates, and at the end; null: never. Each evaluated step has a checkpoint.
    examples: of every task at most, drawn from all its rows, the same ones every time.
    sequences: packed sequences in one forward pass.
    generate: of these examples, how many are answered by the model and judged by the metrics of their task's family.
    """

    every: PositiveInt | None = None
    examples: PositiveInt = 64
    sequences: PositiveInt = 4
    generate: NonNegativeInt = 0

    def due(self, done: int, steps: int) -> bool:
        """Whether there is an evaluation after `done` of `steps` updates."""
        return self.every is not None and (done % self.every == 0 or done == steps)


def check_evaluation(settings: EvaluationSettings, mixture: Mixture) -> None:
    """Does the mixture hold out what is to be evaluated?

    Raises:
        ConfigError: it holds no task out.
    """
    if settings.every is not None and not mixture.held_out:
        raise ConfigError(
            "evaluation.every: the mixture holds no task out, so there is nothing to evaluate on; give one of its "
            "tasks `held_out: true`, or leave `evaluation` out"
        )
