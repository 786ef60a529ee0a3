"""The mixture language: what a person may write in a mixture's file. See docs/mixtures.md.

`omnimill.mixtures.inheritance` puts files together that extend one another, `omnimill.mixtures.resolve` makes a
`Mixture` of the outcome.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from omnimill.config import Config
from omnimill.mixtures.config import Kind, RateUnit, Stream
from omnimill.mixtures.objectives import ObjectiveName

_NAME = r"^[a-z0-9][a-z0-9_-]*$"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kmb])")
_UNITS = {"k": 10**3, "m": 10**6, "b": 10**9}
# Settings of a mixture that only say how its file came about: they are gone once the files are put together.
INHERITANCE = ("extends", "change", "remove")

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _size(value: Any) -> Any:
    """``6.8m`` is 6,800,000: published tables count in thousands, millions and billions."""
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return int(Decimal(match[1]) * _UNITS[match[2]])
    return value


Size = Annotated[int, BeforeValidator(_size), Field(ge=1)]


class RateChange(Config):
    """From `step` on the rate is `rate`; with `until` it gets there in a straight line, at step `until`."""

    step: NonNegativeInt
    until: PositiveInt | None = None
    rate: Rate


class Rated(Config):
    """What has a share of what it is in.

    rate: relative to the rates beside it. A group without one has the sum of its own; in a group with an `alpha` it
        is a factor, 1 if not given.
    schedule: later rates, in order. warm_in: steps over which the rate rises from 0 in a straight line.
    """

    rate: Rate | None = None
    schedule: tuple[RateChange, ...] = ()
    warm_in: PositiveInt | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        free = self.warm_in or 0
        for change in self.schedule:
            if change.step < free:
                raise ValueError(f"changes of a rate follow one another; one at step {change.step} is before {free}")
            if change.until is not None and change.until <= change.step:
                raise ValueError(f"a ramp ends after it begins; found step {change.step}, until {change.until}")
            free = change.until or change.step + 1
        if self.warm_in and self.rate is None:
            raise ValueError("warm_in needs a rate to rise to")
        if self.schedule and self.rate is None and self.schedule[0].step > 0:
            raise ValueError("a schedule needs a rate for the steps before it")
        return self


class Shared(Config):
    """What a task takes over from the groups that it is in, the innermost first, where it says nothing itself.

    family: whose defaults tasks have. dataset: of the catalog, whose sources, size and prompts they have.
    """

    family: str | None = None
    kind: Kind | None = None
    dataset: str | None = None
    sources: tuple[str, ...] | None = None
    max_epochs: PositiveFloat | None = None
    keep_optional: float | None = Field(default=None, ge=0, le=1)
    held_out: bool | None = None


class TaskSpec(Rated, Shared):
    """One task; the fields that `Task` has too mean what they mean there.

    prompts: instead of the family's or the dataset's; more_prompts: besides them.
    group: a label for tables, for a task that is in no group.
    """

    name: str = Field(pattern=_NAME)
    group: str | None = None
    objective: ObjectiveName | None = None
    inputs: tuple[Stream, ...] | None = None
    optional: tuple[Stream, ...] | None = None
    target: str | None = None
    prompts: tuple[str, ...] | None = None
    more_prompts: tuple[str, ...] = ()
    size: Size | None = None
    tokens: PositiveFloat | None = None


class CatalogTasks(Config):
    """A task for every dataset of the catalog that serves a family, called ``<family>-<dataset>``.

    only: those datasets and no others. without: not those. kind: only tasks of this kind (forms of a family can differ
    in it). unknown_size: examples of datasets that nobody counted.
    """

    family: str
    kind: Kind | None = None
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    unknown_size: Size | None = None


class Members(Config):
    """Tasks and groups that share a whole.

    total: what their rates must add up to, such as 100; gap: how far off they are, where a published table is rounded.
    alpha: rates are multiplied by size to this power: 1 samples in proportion to size, 0.5 to its root, 0 alike.
    """

    total: PositiveFloat | None = None
    gap: Rate = 0
    alpha: float | None = Field(default=None, ge=0, le=1)
    tasks: tuple[TaskSpec, ...] = ()
    groups: tuple[GroupSpec, ...] = ()

    @model_validator(mode="after")
    def _total_of_rates(self) -> Self:
        if self.total is not None and self.alpha is not None:
            raise ValueError("total is of rates, and with an alpha rates are factors: leave one of them out")
        if self.gap and self.total is None:
            raise ValueError("gap is what rates are off a total: say which")
        return self


class GroupSpec(Members, Rated, Shared):
    """A group of tasks and groups, which share its rate.

    title: for tables. size, datasets: examples in one pass and number of datasets, as stated by whoever is quoted;
    a task that takes its sources over from the group takes the size over as well.
    """

    name: str = Field(pattern=_NAME)
    title: str | None = None
    size: Size | None = None
    datasets: PositiveInt | None = None
    catalog: CatalogTasks | None = None


class MixtureSpec(Members):
    """A whole mixture; see `Mixture` for the fields that it has too.

    datasets: token datasets, besides those of tasks that name a dataset of the catalog.
    ramp_levels: steps of the staircase that stands for a ramp.
    """

    datasets: tuple[str, ...] = ()
    selections: tuple[str, ...] = ()
    seed: int = 0
    window: PositiveInt = 256
    rate_unit: RateUnit = "examples"
    ramp_levels: PositiveInt = 64


class Settings(Config):
    """What a change sets: anything that its task or group has. Only what it adds can be checked by itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    tasks: tuple[TaskSpec, ...] | None = None
    groups: tuple[GroupSpec, ...] | None = None
    catalog: CatalogTasks | None = None


class MixtureFile(MixtureSpec):
    """A mixture as it is written.

    extends: a file, seen from this one's folder, of which this is a variant. What is set here replaces what is set
        there; tasks and groups come on top of those there.
    change: settings by name of task or group; null takes a setting away, `tasks` and `groups` come on top.
    remove: names of tasks and groups.
    """

    extends: str | None = None
    change: Mapping[str, Settings] = {}
    remove: tuple[str, ...] = ()
