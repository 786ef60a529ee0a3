"""The ledger of a run: which mixture, data and weights hold from which step on.

``runs/<run>/ledger.jsonl`` only ever grows: one JSON line per entry, each naming the digest of the line before it, so
that nothing can be taken out unnoticed. A line is written whole and brought to disk before it has any effect; half a
line at the end, left by a kill, counts for nothing.

A run that goes on from a checkpoint takes back what was written after it (`Rewind`): those steps are lost and will be
done again. A checkpoint names the last entry that it stands on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from omnimill.config import Config, canonical_json, digest_json
from omnimill.errors import IntegrityError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.online_config import OnlineConfig
from omnimill.mixtures.versions import Versions

LEDGER = "ledger.jsonl"


class Change(Config):
    """From step `step` on this mixture over these data holds.

    online: how its rates are changed by losses; None: they are not.
    streams: where each stream was before it made its first draw under the change, `StreamState` as JSON; empty at
        step 0.
    """

    kind: Literal["change"] = "change"
    step: int = Field(ge=0)
    mixture: Mixture
    versions: Versions
    online: OnlineConfig | None = None
    streams: tuple[dict[str, Any], ...] = ()

    def same_as(self, other: Change) -> bool:
        """Whether both say the same of what holds, whenever it begins."""
        return (self.mixture, self.versions, self.online) == (other.mixture, other.versions, other.online)


class Update(Config):
    """Online mixing: after `decided` updates of the model, because of these losses, these weights from `step` on.

    losses: mean of each task since the update before, in nats a target token; of tasks that were seen. weights: what
    the tasks' rates are multiplied by; 1 where a task is not named.
    """

    kind: Literal["update"] = "update"
    decided: int
    step: int
    losses: dict[str, float]
    weights: dict[str, float]


class Rewind(Config):
    """Going on from step `step`: of the entries before this one, those after the entry `to` do not hold any more."""

    kind: Literal["rewind"] = "rewind"
    step: int
    to: str | None


Entry = Change | Update
_LINE: TypeAdapter[Change | Update | Rewind] = TypeAdapter(
    Annotated[Change | Update | Rewind, Field(discriminator="kind")]
)


@dataclass(frozen=True)
class Held:
    """An entry that holds, and the digest of its line."""

    digest: str
    entry: Entry


def changes(entries: Sequence[Entry]) -> list[Change]:
    """The changes among entries."""
    return [entry for entry in entries if isinstance(entry, Change)]


def updates(entries: Sequence[Entry]) -> list[Update]:
    """The updates of online mixing among entries."""
    return [entry for entry in entries if isinstance(entry, Update)]


def task_names(entries: Sequence[Entry]) -> list[str]:
    """All tasks that were ever drawn, in the order of their numbers."""
    return list(dict.fromkeys(task.name for change in changes(entries) for task in change.mixture.tasks))


class Ledger:
    """The ledger in a run's folder. Only one process may write it at a time: whoever has the run's lock."""

    def __init__(self, run: Path) -> None:
        self.path = run / LEDGER
        self._known: list[tuple[str, Change | Update | Rewind]] = []
        self._read = 0

    def held(self, upto: str | None = None) -> list[Held]:
        """The entries that hold, oldest first.

        Args:
            upto: digest of a line; what was written later is not looked at.

        Raises:
            IntegrityError: a line was changed or taken out, or there is no line `upto`.
        """
        found: list[Held] = []
        for digest, line in self._lines():
            if isinstance(line, Rewind):
                while found and found[-1].digest != line.to:
                    found.pop()
            else:
                found.append(Held(digest, line))
            if digest == upto:
                return found
        if upto is not None:
            raise IntegrityError(f"{self.path}: there is no entry {upto[:16]}, on which a checkpoint stands")
        return found

    def append(self, entry: Change | Update | Rewind) -> str:
        """Write a line; when this returns it is on disk.

        Returns:
            The line's digest.
        """
        lines = self._lines()
        body = {"previous": lines[-1][0] if lines else None, **entry.model_dump(mode="json")}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._cut_half_line()
        with self.path.open("ab") as file:
            file.write(canonical_json(body) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return digest_json(body)

    def go_on(self, now: Change, head: str | None) -> list[Held]:
        """Go on from a checkpoint with what holds now; writes what that takes.

        Args:
            now: what is to hold from `now.step` on.
            head: the last entry that the checkpoint stands on; None: the run begins.

        Returns:
            The entries that hold.

        Raises:
            IntegrityError: the ledger has no such entry, or is damaged.
        """
        held = self.held()
        base = self.held(head) if head is not None else []
        if held[: len(base)] != base:
            raise IntegrityError(f"{self.path}: a checkpoint stands on an entry that was taken back ({head})")
        last = changes([one.entry for one in base])[-1:]
        wanted: list[Entry] = [] if last and last[0].same_as(now) else [now]
        # The same launch, again: its entry is there.
        if [one.entry for one in held] == [*(one.entry for one in base), *wanted]:
            return held
        if len(held) > len(base):
            self.append(Rewind(step=now.step, to=head))
        for entry in wanted:
            self.append(entry)
        return self.held()

    def _lines(self) -> list[tuple[str, Change | Update | Rewind]]:
        """Every whole line with its digest; only what was not read before is read."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            *whole, _ = file.read().split(b"\n")
        for raw in whole:
            where = f"{self.path}:{len(self._known) + 1}"
            try:
                body = json.loads(raw)
                if not isinstance(body, dict):
                    raise ValueError("not a mapping")
                entry = _LINE.validate_python({key: value for key, value in body.items() if key != "previous"})
            except ValueError as error:
                raise IntegrityError(f"{where}: not an entry of a ledger: {error}") from None
            if body.get("previous") != (self._known[-1][0] if self._known else None):
                raise IntegrityError(f"{where}: does not follow the line before it: the ledger was changed")
            self._known.append((digest_json(body), entry))
            self._read += len(raw) + 1
        return self._known

    def _cut_half_line(self) -> None:
        """Take away what a killed writer left after the last whole line."""
        if self.path.exists() and self.path.stat().st_size > self._read:
            os.truncate(self.path, self._read)
