"""What ``omnimill dedup`` runs, as written in YAML: a dataset, the steps that judge its rows, the selection's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field, SerializeAsAny

from omnimill.config import Config
from omnimill.pipelines.dedup.base import ScoreStep, Step
from omnimill.pipelines.dedup.prefer import Prefer
from omnimill.pipelines.dedup.steps.cap import Cap
from omnimill.pipelines.dedup.steps.decontaminate import Decontaminate
from omnimill.pipelines.dedup.steps.exact import Exact
from omnimill.pipelines.dedup.steps.image_near import ImageNear
from omnimill.pipelines.dedup.steps.model_scorer import ModelScorer
from omnimill.pipelines.dedup.steps.text_near import TextNear
from omnimill.pipelines.dedup.steps.threshold import Threshold

# Every step that a configuration can name; adding one is a line here.
STEP_TYPES: tuple[type[Step], ...] = (
    Cap,
    Decontaminate,
    Exact,
    ImageNear,
    ModelScorer,
    TextNear,
    Threshold,
)

if TYPE_CHECKING:
    AnyStep = Step
else:
    AnyStep = SerializeAsAny[Annotated[Union[STEP_TYPES], Field(discriminator="step")]]  # noqa: UP007


class Dedup(Config):
    """What to judge and how.

    dataset: name of an examples dataset under the root. selection: name that the result is published under.
    steps: asked in this order, each about the rows that the ones before kept.
    prefer: which of several twins is kept.
    partition_bytes: of one partition of keyed rows, see docs/dedup.md; has no influence on the result.
    """

    dataset: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    selection: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    steps: tuple[AnyStep, ...] = Field(min_length=1)
    prefer: Prefer = Prefer()
    partition_bytes: int = Field(256 << 20, ge=1 << 10)

    def decides(self) -> dict[str, Any]:
        """The settings that the selection depends on, with the versions of the steps."""
        settings = self.model_dump(mode="json", exclude={"partition_bytes", "steps"})
        # A step that decides nothing is known by what it measures.
        unused = [set(step.decides) if isinstance(step, ScoreStep) else set() for step in self.steps]
        steps = [step.model_dump(mode="json", exclude=names) for step, names in zip(self.steps, unused, strict=True)]
        versions = [{**values, "version": step.version} for step, values in zip(self.steps, steps, strict=True)]
        return {**settings, "steps": versions}
