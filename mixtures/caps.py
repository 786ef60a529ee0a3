"""How often a run would see each task's examples, and which of them more often than they may be seen."""

from __future__ import annotations

from collections.abc import Sequence

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.faults import Fault

# A cap that is met to within this share of an epoch is kept: the draws of a step are an average.
_SLACK = 1e-9


def expected_epochs(
    mixture: Mixture, sizes: Sequence[int | None], draws_per_step: float, steps: int
) -> list[float | None]:
    """Passes through each task's examples in the first `steps` steps, caps disregarded; None where a size is None.

    Args:
        sizes: examples of each task.
        draws_per_step: streams times examples in a packed sequence.

    Raises:
        ConfigError: the mixture's rates are shares of tokens.
    """
    if mixture.rate_unit == "tokens":
        raise ConfigError("rate_unit: found 'tokens', allowed: 'examples'; see `in_examples`")
    phases = mixture.phases
    ends = [*(phase.first_step for phase in phases[1:]), steps]
    draws = [0.0] * len(mixture.tasks)
    for phase, end in zip(phases, ends, strict=True):
        length = max(0, min(end, steps) - phase.first_step)
        draws = [all_draws + length * draws_per_step * rate for all_draws, rate in zip(draws, phase.rates, strict=True)]
    return [None if size is None else drawn / size for drawn, size in zip(draws, sizes, strict=True)]


def cap_faults(mixture: Mixture, epochs: Sequence[float | None], steps: int) -> list[Fault]:
    """Tasks that would be drawn beyond their `max_epochs`, by the epochs of :func:`expected_epochs`."""
    found = []
    for number, (task, seen) in enumerate(zip(mixture.tasks, epochs, strict=True)):
        cap = task.max_epochs
        if cap is None or (seen is not None and seen <= cap + _SLACK):
            continue
        after = f"in {steps:,} steps"
        message = (
            "max_epochs: the number of its examples is not known"
            if seen is None
            else f"found {seen:.2f} epochs {after}, allowed: {cap:g}; lower its rate, take fewer steps or raise the cap"
        )
        found.append(Fault(("tasks", number, "max_epochs"), f"task {task.name!r}: {message}"))
    return found
