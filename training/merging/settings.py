"""What a merge file says: which checkpoints, by which method."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from omnimill.config import Config
from omnimill.training.backbone.towers_config import LinkForm


class UniformMerge(Config):
    """A weighted mean of all weights, of any number of parents of one shape. weights: of the parents, in their order,
    that sum to 1; null: all alike. With two parents they are lambda and 1 - lambda."""

    name: Literal["uniform"]
    weights: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.weights is not None and abs(sum(self.weights) - 1) > 1e-9:
            raise ValueError(f"weights must sum to 1; found {sum(self.weights)}")
        return self


class FourierMerge(Config):
    """A mean in the frequency domain, of any number of parents of one shape: of the Fourier coefficients along a
    tensor's last dimension the harmonic mean of the magnitudes and the mean of the phases. The domain is MM-Lego's
    (arXiv 2405.19950), which merges latents in it; the means, and weights in their place, are a choice of ours."""

    name: Literal["fourier"]


class WidthMerge(Config):
    """Two parents of one shape side by side: twice as wide, with as many layers (JAM-Width, arXiv 2309.15564).

    init: of a matrix with the parents' blocks A and B: ``blockdiag``: [A 0; 0 B]. ``duplicate``: [A A; B B].
        ``avg_offdiag``: [A M; M B] with the mean M of both.
    norm: ``grouped``: each half by itself. ``full``: over the whole width.
    """

    name: Literal["width"]
    init: Literal["blockdiag", "duplicate", "avg_offdiag"] = "blockdiag"
    norm: Literal["grouped", "full"] = "grouped"


class CrossMerge(Config):
    """Two parents as towers that look at each other (JAM-Cross, arXiv 2309.15564): see `TowersConfig`, output
    ``joined``. Rows of text of the shared table are the first parent's, those of picture codes the second's.

    every: layers from one pair of links to the next. link: what links are made of.
    join: what the linear map over both outputs starts as: ``mean`` of both, the ``first``, or the ``second``.
    """

    name: Literal["cross"]
    every: PositiveInt = 1
    link: LinkForm = "attention"
    join: Literal["mean", "first", "second"] = "mean"


class LinksMerge(Config):
    """Two parents of any width and depth with gated links from one to the other, or both ways: see `TowersConfig`.

    to_first, to_second: after every how many layers the tower looks at the other; null: never.
    output: ``by_modality``: text by the first, picture codes by the second (Zipper, arXiv 2405.18669). ``first``:
        everything by the first (Flamingo, arXiv 2204.14198).
    """

    name: Literal["links"]
    to_first: PositiveInt | None = 1
    to_second: PositiveInt | None = None
    link: LinkForm = "attention"
    output: Literal["by_modality", "first"] = "by_modality"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.to_first is None and self.to_second is None:
            raise ValueError("at least one tower must look at the other: to_first or to_second")
        return self


class LogitsMerge(Config):
    """Parents kept whole, their log-probabilities added up with `weights`: see `VotingConfig`."""

    name: Literal["logits"]
    weights: tuple[float, ...]


Method = Annotated[
    UniformMerge | FourierMerge | WidthMerge | CrossMerge | LinksMerge | LogitsMerge, Field(discriminator="name")
]


class ReportSettings(Config):
    """What is measured before any training, on the parents and on what they were merged to.

    mixture: a mixture file whose held-out tasks are measured; null: those of the parents' own mixtures.
    examples: of every task at most; 0: nothing is measured.
    """

    mixture: str | None = None
    examples: NonNegativeInt = 64


class MergeConfig(Config):
    """name: of the merged model, which is kept like a run, under ``<root>/runs``. parents: names of runs
    under the root, ``<run>`` or ``<run>/step-00000050``, or folders of checkpoints or of runs; of a run the newest
    checkpoint. method: how. seed: of weights that no parent has. report: see `ReportSettings`.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    parents: tuple[str, ...] = Field(min_length=2)
    method: Method
    seed: int = 0
    report: ReportSettings = ReportSettings()
