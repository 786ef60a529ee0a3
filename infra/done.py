"""What became of a unit that was handed out."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from omnimill.errors import OmnimillError
from omnimill.infra.dataset import Commit, Unit


@dataclass(frozen=True)
class Done:
    """A unit that came back: its commit; or what was raised (`error`); or neither: its worker died on every try.

    observed: what the worker tells about this one execution.
    """

    unit: Unit
    commit: Commit | None
    error: str | None = None
    observed: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def failed(cls, unit: Unit, fault: Exception) -> Self:
        """A unit whose work raised; with the traceback where the fault is not one that a user can meet."""
        if isinstance(fault, OmnimillError):
            return cls(unit, None, str(fault))
        return cls(unit, None, "".join(traceback.format_exception(fault)))

    @property
    def crashed(self) -> bool:
        return self.commit is None and self.error is None
