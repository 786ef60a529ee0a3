"""A mixture from its file, and where in which file each of its settings stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnimill.config import Location, Places
from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.faults import Fault, MixtureFaults
from omnimill.mixtures.inheritance import read_spec
from omnimill.mixtures.language import MixtureSpec
from omnimill.mixtures.resolve import resolve


@dataclass(frozen=True)
class MixtureSource:
    """A mixture with what it was made of.

    where: of each task, the drawn ones and then those held out, in the specification. places: of everything in it.
    """

    mixture: Mixture
    spec: MixtureSpec
    where: tuple[Location, ...]
    places: Places

    def describe(self, found: Sequence[Fault]) -> list[str]:
        """Messages as ``file:line: key: what is wrong`` of faults in the mixture, as `Fault.where` leads to them."""
        return [_describe(self._written(fault), self.places) for fault in found]

    def _written(self, fault: Fault) -> Fault:
        """A fault in a task of the mixture, as one in the specification."""
        if len(fault.where) > 1 and fault.where[0] in ("tasks", "held_out"):
            number = int(fault.where[1]) + (len(self.mixture.tasks) if fault.where[0] == "held_out" else 0)
            return Fault((*self.where[number], *fault.where[2:]), fault.message)
        return fault


def load_mixture(path: str | Path) -> Mixture:
    """The mixture that a file stands for.

    Raises:
        ConfigError: names every fault as ``file:line: key: what is wrong; found …; allowed …``.
    """
    return read_mixture(path).mixture


def read_mixture(path: str | Path) -> MixtureSource:
    """A mixture and where all of it stands; raises as :func:`load_mixture`."""
    spec, places = read_spec(path)
    try:
        resolved = resolve(spec)
    except MixtureFaults as error:
        raise ConfigError("\n".join(_describe(fault, places) for fault in error.faults)) from None
    return MixtureSource(resolved.mixture, spec, resolved.where, places)


def _describe(fault: Fault, places: Places) -> str:
    # What is taken over from a family or the catalog has no place of its own: the task's is the nearest.
    known = fault.where
    while known not in places:
        known = known[:-1]
    key = ".".join(map(str, known)) or "(top level)"
    return f"{places[known]}: {key}: {fault.message}"
