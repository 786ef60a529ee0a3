"""What is wrong with a mixture, and where in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omnimill.config import Location
from omnimill.errors import ConfigError


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. where: keys and list indices that lead to it in the mixture."""

    where: Location
    message: str


class MixtureFaults(ConfigError):
    """Everything that is wrong with a mixture, without the places in its files."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(fault.message for fault in faults))
        self.faults = list(faults)
