"""Which sampler holds at which step: rates, rows and tasks that change while a run goes on.

A stream draws ahead: what it draws while packing step s may be packed at s or later. A change "from step s" holds for
the draws made while packing step s and all later ones; what waits in the stream's pool by then stays there, but for
rows that are void from s on.

The tasks of a timeline are all that were ever in the mixture, by name, in the order in which they came; those that
are not in it at a step have rate 0 then. So a stream's counters go through every change: each task goes on in its share
where the stream left it, and nothing is skipped or repeated.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

from omnimill.errors import OmnimillError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.sampler import Sampler, StreamState

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Samplers of rates that are kept; planning goes forward, so few are in use at a time.
_SAMPLERS = 64


@dataclass(frozen=True)
class Era:
    """From step `step` on these tasks and rows are there, until the next era.

    sampler: of them. phases: (first step, rates), in order; the last one that has begun holds. void: of each task, the
    rows that are not to be used any more, sorted; draws of them count, but are passed over. weighed: whether rates are
    multiplied by the weights of :meth:`Timeline.weigh`.
    """

    step: int
    sampler: Sampler
    phases: tuple[tuple[int, tuple[float, ...]], ...]
    void: tuple[Int64s, ...] = ()
    weighed: bool = False


class Timeline:
    """The samplers of a run.

    Args:
        eras: the first from step 0, in the order of their steps; each has the tasks of the one before it, and may have
            more after them.

    Attributes:
        horizon: step from which on the rates are still to be decided; None: all are known.
    """

    def __init__(self, eras: Sequence[Era]) -> None:
        if not eras or eras[0].step or any(later.step < earlier.step for earlier, later in pairwise(eras)):
            raise ValueError(f"eras must begin at step 0 and follow one another: {[era.step for era in eras]}")
        self._eras = list(eras)
        self._begins = [era.step for era in eras]
        self._weights: list[tuple[int, tuple[float, ...]]] = []
        self.horizon: int | None = None
        self._sampler = lru_cache(maxsize=_SAMPLERS)(lambda era, rates: self._eras[era].sampler.at_rates(rates))

    @classmethod
    def of(cls, mixture: Mixture, sizes: Sequence[int], streams: int) -> Self:
        """The timeline of a mixture that does not change but by its own schedule."""
        phases = tuple((phase.first_step, phase.rates) for phase in mixture.phases)
        return cls([Era(0, Sampler.of(mixture, sizes, streams), phases)])

    @property
    def last(self) -> Sampler:
        """The sampler of the last era, in which all rows are, at its first rates."""
        return self._eras[-1].sampler

    def sampler(self, step: int) -> Sampler:
        """What the draws are that are made while packing a step.

        Raises:
            OmnimillError: the step's rates are still to be decided.
        """
        if self.horizon is not None and step >= self.horizon:
            raise OmnimillError(f"the rates of step {step} are not decided yet: known are those before {self.horizon}")
        number = self._era(step)
        era, weights = self._eras[number], self._weights
        rates = era.phases[bisect_right(era.phases, step, key=_first) - 1][1]
        decided = bisect_right(weights, step, key=_first) - 1
        if decided >= 0 and era.weighed:
            # An era before the last one may have fewer tasks than there are weights.
            rates = tuple(rate * factor for rate, factor in zip(rates, weights[decided][1], strict=False))
        return self._sampler(number, rates)

    def start(self, stream: int) -> StreamState:
        """The state of a stream before its first draw."""
        return self._eras[0].sampler.start(stream)

    def carry(self, stream: int, state: StreamState, step: int) -> StreamState:
        """A stream's state as the sampler of a step goes on from it; call it before the step's first draw.

        It changes nothing but where tasks or rows came in since the state was left, and nothing when it is called
        again. Eras that the state has not met are gone through one by one.
        """
        for era in self._eras[: self._era(step) + 1]:
            state = era.sampler.carry(stream, state)
        return state

    def begins_era(self, step: int) -> bool:
        """Whether tasks, rows or void rows change with a step; a pool has to be looked through then."""
        return step > 0 and step in self._begins

    def holds_until(self, step: int) -> int | None:
        """The first later step with which something may change, or that is not decided yet; None: there is none."""
        phases = self._eras[self._era(step)].phases
        later = [*self._begins, *map(_first, phases), *map(_first, self._weights)]
        if self.horizon is not None:
            later.append(self.horizon)
        return min((one for one in later if one > step), default=None)

    def kept(self, step: int, tasks: Int64s, rows: Int64s) -> Bools | None:
        """Which drawn rows are to be used at a step; None: all of them."""
        void = self._eras[self._era(step)].void
        if not any(len(rows_out) for rows_out in void):
            return None
        kept = np.ones(len(tasks), np.bool_)
        for task, rows_out in enumerate(void):
            drawn = np.flatnonzero(tasks == task) if len(rows_out) else np.empty(0, np.int64)
            kept[drawn] = ~np.isin(rows[drawn], rows_out)
        return kept

    def is_void(self, step: int, task: int, row: int) -> bool:
        """Whether a drawn row is not to be used at a step."""
        void = self._eras[self._era(step)].void
        if not void or not len(void[task]):
            return False
        place = int(np.searchsorted(void[task], row))
        return place < len(void[task]) and int(void[task][place]) == row

    def weigh(self, step: int, weights: Sequence[float]) -> None:
        """From `step` on, rates are multiplied by these weights, instead of by those set before, for whatever steps.

        Args:
            weights: of all tasks of the timeline.
        """
        # Another list, for other threads may be reading this one.
        self._weights = [*(earlier for earlier in self._weights if earlier[0] < step), (step, tuple(weights))]

    def _era(self, step: int) -> int:
        return bisect_right(self._begins, step) - 1


def _first(entry: tuple[int, tuple[float, ...]]) -> int:
    return entry[0]
