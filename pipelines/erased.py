"""Records that were asked to be erased come in again: they are dropped, whatever else is to be said about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from omnimill.infra.dataset import Dataset, InputRef
from omnimill.infra.erasures import register
from omnimill.pipelines.base import Source
from omnimill.pipelines.verdicts import Drop, Outcome, Rejection

_OPERATOR = "erase"


class Erased:
    """What is erased, by the time that a unit is begun, of what it reads.

    Args:
        dataset: that the unit goes into; the requests are those of its root.
    """

    def __init__(self, dataset: Dataset, source: Source, inputs: Sequence[InputRef]) -> None:
        self._rules = register(dataset.root).rules
        self._source = source.name
        self._all = self._rules.unit(source.name, inputs)

    def dropped(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Judged records; those that are erased dropped, and of others the examples that are."""
        for outcome in outcomes:
            if self._rules:
                self._judge(outcome)
            yield outcome

    def _judge(self, outcome: Outcome) -> None:
        record = outcome.record
        erased = [self._rules.example(example) for example in outcome.examples]
        kept = [example for example, gone in zip(outcome.examples, erased, strict=True) if not gone]
        everything = any(erased) and not kept and not outcome.drops
        if everything or self._all or self._rules.record(self._source, record.key, record.provenance):
            outcome.rejection = Rejection("dropped", _OPERATOR, "erased")
            outcome.examples, outcome.drops = [], []
            return
        outcome.drops += [
            Drop(example.key, _OPERATOR, "erased")
            for example, gone in zip(outcome.examples, erased, strict=True)
            if gone
        ]
        outcome.examples = kept
