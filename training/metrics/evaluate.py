"""A family's metrics over what a model put out for its examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omnimill.tokenizers.store import Tokenizers
from omnimill.training.metrics.families import Measure, Network, NetworkName, measures, network_scores, scores
from omnimill.training.metrics.reading import (
    TEXT_READINGS,
    Reading,
    Shown,
    as_reference,
    read_canvas,
    read_codes,
    read_sound,
    read_text,
)
from omnimill.training.metrics.score import Score

# Pictures or sounds that a network is given at a time.
_AT_ONCE = 256


@dataclass(frozen=True)
class Case:
    """One example of a task, answered.

    output: text ids without EOS, or codes from 0, as generated. wanted: the same of the task's own target.
    texts: every text that is right, for answers and captions; empty: what `wanted` says.
    loss: of the target, the sum over its tokens in nats and the sum of their weights; None: not measured.
    """

    output: Sequence[int]
    wanted: Sequence[int]
    shown: Shown = field(default_factory=Shown)
    texts: tuple[str, ...] = ()
    loss: tuple[float, float] | None = None


def evaluate(
    family: str, cases: Sequence[Case], tokenizers: Tokenizers, networks: Mapping[NetworkName, Network] | None = None
) -> list[Score]:
    """What the metrics of a family say of some answered examples, in the order of `families.FAMILIES`.

    Metrics that need a network that is not given are left out; so are the perplexity when a case has no loss, and the
    metrics of cuboids when a case has no camera. Of what a network is given only its features are held, so tens of
    thousands of pictures are possible where a family has no other metrics of pictures.
    Structures in pictures and sound are compared with what the networks make of the target's own codes: how well these
    codes show the target is the tokenizers' matter (``tokenizer eval``).

    Raises:
        ConfigError: no metrics are known for the family.
        ValueError: a target cannot be read as what its family says.
        OmnimillError: codes are to be read, and the tokenizers have no network for them.
    """
    found: list[Score] = []
    read: dict[Reading, tuple[list[Any], list[Any]]] = {}
    for measure in _computable(measures(family), cases, networks or {}):
        if measure.network is not None:
            starts = range(0, len(cases), _AT_ONCE)
            parts = (_read(measure.reading, cases[start : start + _AT_ONCE], tokenizers) for start in starts)
            found += network_scores(measure, parts, (networks or {})[measure.network])
            continue
        if measure.reading not in read:
            read[measure.reading] = _read(measure.reading, cases, tokenizers)
        found += scores(measure, *read[measure.reading])
    return found


def _computable(
    wanted: Sequence[Measure], cases: Sequence[Case], networks: Mapping[NetworkName, Network]
) -> Iterator[Measure]:
    for measure in wanted:
        measured = {
            "loss": all(case.loss is not None for case in cases),
            "cuboids": all(case.shown.camera is not None for case in cases),
        }.get(measure.reading, True)
        if measured and (measure.network is None or measure.network in networks):
            yield measure


def _read(reading: Reading, cases: Sequence[Case], tokenizers: Tokenizers) -> tuple[list[Any], list[Any]]:
    """Predictions and references of a reading."""
    if reading == "loss":
        return [case.loss for case in cases], [None] * len(cases)
    made = _outputs(reading, [case.output for case in cases], cases, tokenizers)
    wanted = _outputs(reading, [case.wanted for case in cases], cases, tokenizers)
    if reading == "text":
        return made, [case.texts or (own,) for case, own in zip(cases, wanted, strict=True)]
    return made, [as_reference(reading, own, case.shown) for case, own in zip(cases, wanted, strict=True)]


def _outputs(
    reading: Reading, ids: Sequence[Sequence[int]], cases: Sequence[Case], tokenizers: Tokenizers
) -> list[Any]:
    if reading == "sound":
        return list(read_sound(ids, tokenizers))
    if reading in TEXT_READINGS:
        return [read_text(reading, one, case.shown, tokenizers) for one, case in zip(ids, cases, strict=True)]
    canvases = read_codes(ids, tokenizers)
    return [read_canvas(reading, canvas, case.shown) for canvas, case in zip(canvases, cases, strict=True)]
