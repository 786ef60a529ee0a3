"""The report of step 0: perplexities of the parents and of what they were merged to, before any training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from omnimill.errors import ConfigError
from omnimill.mixtures.loading import load_mixture
from omnimill.mixtures.versions import current_versions
from omnimill.training.backbone.build import AnyBackbone
from omnimill.training.backbone.model import TokenLosses
from omnimill.training.evaluation.losses import Evaluator
from omnimill.training.evaluation.settings import EvaluationSettings
from omnimill.training.loading.batch import DecoderModality, PackedBatch
from omnimill.training.merging.settings import ReportSettings
from omnimill.training.runs.inputs import TrainInputs


@dataclass(frozen=True)
class Perplexities:
    """exp of the mean NLL of a target token, by modality and by task; what nothing was asked of is missing."""

    modalities: dict[str, float]
    tasks: dict[str, float]


@dataclass(frozen=True)
class AloneModel:
    """A model that losses are asked of, without a learner around it."""

    model: AnyBackbone
    device: torch.device

    @torch.no_grad()
    def losses(self, batch: PackedBatch) -> TokenLosses:
        """Of a batch on `device`."""
        found: TokenLosses = self.model(batch)
        return found


class StepZero:
    """Measures models on the same held-out examples.

    Args:
        inputs: of one parent; its mixture and versions are those of all.
        root: where the token datasets lie.

    Raises:
        ConfigError: no task is held out.
    """

    def __init__(self, inputs: TrainInputs, root: str, settings: ReportSettings) -> None:
        if settings.mixture is not None:
            mixture = load_mixture(settings.mixture)
            inputs = inputs.model_copy(update={"mixture": mixture, "versions": current_versions(root, mixture)})
        if not inputs.mixture.held_out:
            raise ConfigError(
                "report: no task is held out that the merged model could be measured on; name a mixture with held-out "
                "tasks (report.mixture), or measure nothing (report.examples: 0)"
            )
        evaluation = EvaluationSettings(every=1, examples=settings.examples)
        config = inputs.config.model_copy(update={"evaluation": evaluation})
        self._device = torch.device("cpu")
        self._tasks = [task.name for task in inputs.mixture.held_out]
        self._evaluator = Evaluator(inputs.model_copy(update={"config": config}), root, self._device)

    def measure(self, model: AnyBackbone) -> Perplexities:
        """Of one model, which lies on the CPU."""
        sums = self._evaluator.own_sums(AloneModel(model, self._device)).sum(0)
        tasks, modalities = len(self._tasks), [modality.name.lower() for modality in DecoderModality]
        nll, weight, by_modality, of_modality = torch.split(sums, [tasks, tasks, len(modalities), len(modalities)])
        return Perplexities(
            modalities=_perplexities(dict(zip(modalities, (by_modality / of_modality).tolist(), strict=True))),
            tasks=_perplexities(dict(zip(self._tasks, (nll / weight).tolist(), strict=True))),
        )


def _perplexities(losses: Mapping[str, float]) -> dict[str, float]:
    return {name: math.exp(min(loss, 700.0)) for name, loss in losses.items() if math.isfinite(loss)}
