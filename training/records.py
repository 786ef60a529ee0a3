"""What a run writes into its ledger: what holds when it goes on, and the decisions of online mixing."""

from __future__ import annotations

from pathlib import Path

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


def counters(state: dict[str, object]) -> dict[str, object]:
    """Of a planner's state, the sampler's."""
    return {key: state[key] for key in ("draws", "taken", "joined") if key in state}


def decide_online(inputs: TrainInputs, ledger: Ledger, run: Path, done: int) -> Update:
    """Decide from the run's history, and write the decision down. Called when the history reaches up to `done`."""
    assert inputs.config.online is not None
    past = updates([held.entry for held in ledger.held()])
    since = past[-1].decided if past else 0
    steps = [
        {name: loss for name, loss in line["loss_by_task"].items() if loss is not None}
        for line in read_history(run)
        if line["step"] >= since
    ]
    update = decide(inputs.config.online, inputs.mixture, past, steps, done)
    ledger.append(update)
    return update
