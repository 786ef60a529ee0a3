"""What a run writes into its ledger: what holds when it goes on, and the decisions of online mixing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnimill.mixtures.ledger import Held, Ledger, Update, updates
from omnimill.mixtures.online import decide
from omnimill.training.checkpoint import CheckpointRecord
from omnimill.training.history import read_history
from omnimill.training.inputs import TrainInputs


def go_on(ledger: Ledger, inputs: TrainInputs, record: CheckpointRecord | None) -> list[Held]:
    """Let the ledger say what holds from here on; the entries that hold.

    Args:
        record: of the checkpoint that the run goes on from; None: it begins.
    """
    now = inputs.change(record.step if record else 0)
    if record is not None:
        states = (record.plan["streams"][str(stream)] for stream in range(inputs.config.streams))
        now = now.model_copy(update={"streams": tuple(counters(state) for state in states)})
    return ledger.go_on(now, record.ledger if record else None)


def counters(state: Mapping[str, Any]) -> dict[str, Any]:
    """Of a planner's state, the sampler's."""
    return {key: state[key] for key in ("draws", "taken", "joined") if key in state}


class Decisions:
    """The decisions of online mixing, as worker 0 makes them.

    Args:
        run: its history reaches up to the update that the run goes on with.
    """

    def __init__(self, inputs: TrainInputs, ledger: Ledger, run: Path) -> None:
        assert inputs.config.online is not None
        self._config, self._mixture, self._ledger = inputs.config.online, inputs.mixture, ledger
        self._past = updates([held.entry for held in ledger.held()])
        since = self._past[-1].decided if self._past else 0
        self._steps: list[dict[str, float]] = []
        for line in read_history(run):
            if line["step"] >= since:
                self.saw(line)

    def saw(self, line: Mapping[str, Any]) -> None:
        """Take in a line of the history."""
        self._steps.append({name: loss for name, loss in line["loss_by_task"].items() if loss is not None})

    def decide(self, done: int) -> Update:
        """Decide after `done` updates, and write the decision down."""
        update = decide(self._config, self._mixture, self._past, self._steps, done)
        self._ledger.append(update)
        self._past.append(update)
        self._steps = []
        return update
