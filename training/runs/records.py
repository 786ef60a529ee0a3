"""What worker 0 writes about a run: its history, its ledger, and the records of its checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from omnimill.config import allowed
from omnimill.errors import ConfigError
from omnimill.mixtures.ledger import Held, Ledger, Update, updates
from omnimill.mixtures.online import decide
from omnimill.training.checkpoints.checkpoint import CheckpointRecord, measured
from omnimill.training.runs.history import HistoryWriter, read_history
from omnimill.training.runs.inputs import TrainInputs
from omnimill.training.runs.notices import Notices


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


class Books:
    """What worker 0 writes while a run trains, and where it looks for what the run is told.

    Args:
        run: the run's folder. ledger: as :func:`go_on` left it.
        record: of the checkpoint that the run goes on from; None: it begins.
        mlflow_run: recorded in checkpoints.

    Raises:
        OmnimillError: the history does not reach up to the checkpoint.
    """

    def __init__(
        self, run: Path, inputs: TrainInputs, ledger: Ledger, record: CheckpointRecord | None, mlflow_run: str | None
    ) -> None:
        self.notices = Notices(run)
        self._run, self._inputs, self._ledger, self._mlflow_run = run, inputs, ledger, mlflow_run
        self._history = HistoryWriter(run, record.step if record else 0)
        self._decisions = Decisions(inputs, ledger, run) if inputs.config.online else None
        self._examples = Counter(record.examples if record else {})
        self._last: Mapping[str, Any] = {}

    def saw(self, line: dict[str, Any]) -> None:
        """Write the history's line of an update."""
        self._history.append(line)
        self._examples.update(line["examples"])
        if self._decisions:
            self._decisions.saw(line)
        self._last = line

    def decide(self, done: int) -> Update | None:
        """The decision of online mixing after `done` updates, which is then in the ledger; None: rates are fixed."""
        return self._decisions.decide(done) if self._decisions else None

    def record(self, plan: Mapping[str, Any]) -> CheckpointRecord:
        """Of a checkpoint after the last update, which the history holds on disk from then on.

        Args:
            plan: the loader's state over all streams.

        Raises:
            ConfigError: the best are to be kept by a metric that evaluations do not have.
        """
        self._history.to_disk()
        return CheckpointRecord(
            **dict(self._inputs),
            run=self._run.name,
            step=self._last["step"] + 1,
            plan=dict(plan),
            ledger=self._ledger.held()[-1].digest,
            examples=dict(sorted(self._examples.items())),
            evaluation=self._evaluation(),
            mlflow_run=self._mlflow_run,
        )

    def _evaluation(self) -> dict[str, float | None]:
        """What was measured after the last update; refuses to keep the best by what nothing measures."""
        found = measured(self._last.get("evaluation", {}))
        best = self._inputs.config.checkpoints.keep_best
        if found and best and best.metric not in found:
            choices = allowed(best.metric, list(found))
            raise ConfigError(f"checkpoints.keep_best.metric: found {best.metric!r}; {choices}")
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._history.close()
