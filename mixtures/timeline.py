"""Which sampler holds at which step: rates, rows and tasks that change while a run goes on.

A stream draws ahead: what it draws while packing step s may be packed at s or later. A change "from step s" holds for
the draws made while packing step s and all later ones; what waits in the stream's pool by then stays there.

The tasks of a timeline are all that were ever in the mixture, by name, in the order in which they came; those that
are not in it at a step have rate 0 then. So a stream's counters go through every change: each task goes on in its share
where the stream left it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Self

from omnimill.mixtures.config import Mixture
from omnimill.mixtures.sampler import Sampler, StreamState


class Timeline:
    """The samplers of a run.

    Args:
        phases: (first step, sampler), the first from step 0, in the order of their steps.
    """

    def __init__(self, phases: Sequence[tuple[int, Sampler]]) -> None:
        self._first = [step for step, _ in phases]
        self._samplers = [sampler for _, sampler in phases]

    @classmethod
    def of(cls, mixture: Mixture, sizes: Sequence[int], streams: int) -> Self:
        """The timeline of a mixture that does not change but by its own schedule."""
        names, caps = [task.name for task in mixture.tasks], [task.max_epochs for task in mixture.tasks]
        return cls(
            [
                (phase.first_step, Sampler(phase.rates, sizes, streams, mixture.seed, names, mixture.window, caps))
                for phase in mixture.phases
            ]
        )

    def sampler(self, step: int) -> Sampler:
        """What the draws are that are made while packing a step."""
        return self._samplers[bisect_right(self._first, step) - 1]

    def carry(self, stream: int, state: StreamState, step: int) -> StreamState:
        """A stream's state as the sampler of a step goes on from it; call it before the step's first draw.

        It changes nothing but where tasks were added or rows joined since the state was left, and nothing when it is
        called again.
        """
        return self.sampler(step).carry(stream, state)

    def start(self, stream: int) -> StreamState:
        """The state of a stream before its first draw."""
        return self._samplers[0].start(stream)
