"""Records become examples, and every record and example gets a verdict: kept, dropped by a rule or quarantined."""

from __future__ import annotations

import errno
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Literal, Protocol

from omnimill.errors import (
    BadRecord,
    ConfigError,
    IntegrityError,
    OmnimillError,
    RecordDropped,
    StoreUnavailable,
)
from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Operator, Record
from omnimill.pipelines.decoders.pixels import Picture, settle, wanting
from omnimill.pipelines.timing import DECODE, ENCODE, Laps, StepTimes
from omnimill.schema import Example, Provenance

BATCH_EXAMPLES = 256
BATCH_BYTES = 32 << 20
GROUP_RECORDS = 32
GROUP_BYTES = 1 << 20
MESSAGE_CHARACTERS = 2000

# `Source.read`, perhaps without what need not be read.
Read = Callable[[Unit], Iterator[Record]]

_MACHINE_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
# Parts of a message that differ from one run to the next: addresses of objects and names of temporary files.
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
_TEMPORARY = re.compile(r"\btmp[a-z0-9_]{8}\b")


@dataclass(frozen=True)
class Rejection:
    """Why a whole record is not in the dataset.

    operator: the step that said so: read, decode or an operator's name. tries: how often it was tried.
    """

    verdict: Literal["quarantined", "dropped"]
    operator: str
    reason: str
    message: str = ""
    tries: int = 1


@dataclass(frozen=True)
class Drop:
    """An example of a kept record that an operator turned down."""

    key: str
    operator: str
    reason: str


@dataclass
class Outcome:
    """What became of one record; a rejected one has neither examples nor drops.

    number: of the record in its unit. settled: what became of it stands from before, so that nobody decodes it.
    """

    record: Record
    rejection: Rejection | None = None
    examples: list[Example] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    number: int = 0
    settled: bool = False


class Walk(Protocol):
    """A way to go through the records of a unit; all ways give the same outcomes in the same batches."""

    def read(self, read: Read, unit: Unit) -> Iterator[Outcome]:
        """The unit's records in order, not decoded yet."""

    def judged(self, records: Iterable[Outcome], operators: Sequence[Operator]) -> Iterator[list[Outcome]]:
        """Batches of decoded records that all operators were asked about."""


@dataclass(frozen=True)
class ThreadedWalk:
    """The way units are done: decoding, and the judgement of single examples, in a pool of threads; then batches.

    times: where what each step took is added up.
    """

    threads: int
    times: StepTimes = field(default_factory=StepTimes)

    def read(self, read: Read, unit: Unit) -> Iterator[Outcome]:
        return read_records(read, unit)

    def judged(self, records: Iterable[Outcome], operators: Sequence[Operator]) -> Iterator[list[Outcome]]:
        _, rest = by_example(operators)
        for batch in batches(decode_in_order(records, self.threads, operators, self.times)):
            laps = Laps()
            judge(batch, rest, laps)
            settle_batch(batch)
            laps.lap(ENCODE)
            self.times.add(laps)
            yield batch


def quarantined(error: Exception, operator: str, reason: str = "unexpected_error") -> Rejection:
    """The verdict on a record that raised `error`; `reason` is used when the error brings none.

    Raises:
        Exception: `error` itself, when it tells about this machine or the configuration and not about the record (no
            memory, no disk space, a missing optional package, a store that does not answer): committing it would make
            the outcome of a unit depend on where and when it ran.
    """
    if isinstance(error, BadRecord):
        return Rejection("quarantined", operator, error.reason, _stable(error.message))
    machine = isinstance(error, OSError) and error.errno in _MACHINE_ERRNO
    if machine or isinstance(error, MemoryError | ImportError | ConfigError | IntegrityError | StoreUnavailable):
        raise error
    return Rejection("quarantined", operator, reason, _stable(f"{type(error).__name__}: {error}"))


def unread(unit: Unit, records_before: int = 0) -> Record:
    """The part of a unit that could not be read, as one record."""
    uri = unit.files[0] if unit.files else unit.source
    return Record(f"{unit.id}#unread-after-{records_before}", Provenance(uri=uri, digest=""), decode=list)


def read_records(read: Read, unit: Unit) -> Iterator[Outcome]:
    """The unit's records in order, not decoded yet; those that are unreadable or doubled come rejected."""
    seen: set[str] = set()
    count = 0
    try:
        for record in read(unit):
            count += 1
            doubled = Rejection("quarantined", "read", "duplicate_key", f"key {record.key!r} came before in its unit")
            yield Outcome(record, doubled if record.key in seen else None)
            seen.add(record.key)
    except Exception as error:  # noqa: BLE001 - turned into a verdict, or raised again, by `quarantined`
        yield Outcome(unread(unit, count), quarantined(error, "read", "unreadable_unit"))


def by_example(operators: Sequence[Operator]) -> tuple[Sequence[Operator], Sequence[Operator]]:
    """The operators up to the first that wants batches, which are asked about one record at a time; and the rest."""
    count = next((i for i, operator in enumerate(operators) if not operator.per_example), len(operators))
    return operators[:count], operators[count:]


def decode_in_order(
    records: Iterable[Outcome], threads: int, operators: Sequence[Operator] = (), times: StepTimes | None = None
) -> Iterator[Outcome]:
    """Decode in a pool of threads, at most two groups of records per thread ahead, results in the order of `records`.

    The leading operators that judge single examples are asked in the same threads.

    Args:
        times: where what each step took is added up.
    """
    times = times or StepTimes()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        ahead: deque[Future[list[Outcome]]] = deque()
        for group in _groups(records):
            ahead.append(pool.submit(_decode_and_judge, group, operators, times))
            if len(ahead) > 2 * threads:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()


def _groups(records: Iterable[Outcome]) -> Iterator[list[Outcome]]:
    """Small records by the handful, since handing over a line of text takes longer than decoding it."""
    group: list[Outcome] = []
    size = 0
    for outcome in records:
        group.append(outcome)
        size += GROUP_BYTES if outcome.record.data is None else len(outcome.record.data)
        if size >= GROUP_BYTES or len(group) >= GROUP_RECORDS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _decode_and_judge(group: list[Outcome], operators: Sequence[Operator], times: StepTimes) -> list[Outcome]:
    first, rest = by_example(operators)
    laps = Laps()
    for outcome in group:  # one after the other, while its pixels are at hand
        decode(outcome, operators)
        laps.lap(DECODE)
        judge([outcome], first, laps)
        if not rest:
            settle_batch([outcome])
            laps.lap(ENCODE)
    times.add(laps)
    return group


def decode(outcome: Outcome, operators: Sequence[Operator]) -> Outcome:
    """Decode a record that nothing was decided about yet; the same outcome, changed in place.

    Pictures bring pixels as the operators, all of those that will be asked, look at them.
    """
    if outcome.rejection is not None or outcome.settled:
        return outcome
    try:
        with wanting(partial(_wanted_by, operators)):
            outcome.examples = list(outcome.record.decode())
    except RecordDropped as dropped:
        outcome.rejection = Rejection("dropped", "decode", dropped.reason)
    except Exception as error:  # noqa: BLE001 - see `quarantined`
        outcome.rejection = quarantined(error, "decode")
    else:
        if not outcome.examples:
            outcome.rejection = Rejection("dropped", "decode", "no_examples")
    return outcome


def _wanted_by(operators: Sequence[Operator], width: int, height: int) -> tuple[int, int]:
    sizes = [operator.looks_at(width, height) for operator in operators]
    return max((wide for wide, _ in sizes), default=0), max((high for _, high in sizes), default=0)


def settle_batch(batch: Iterable[Outcome]) -> None:
    """Encode what is still to be encoded, and let go of pixels."""
    for outcome in batch:
        for example in outcome.examples:
            settle(example)


def batches(outcomes: Iterable[Outcome]) -> Iterator[list[Outcome]]:
    """Whole records in batches for operators, bounded by examples and by encoded bytes; never depends on timing."""
    batch: list[Outcome] = []
    examples = size = 0
    for outcome in outcomes:
        batch.append(outcome)
        examples += len(outcome.examples)
        size += sum(payload_bytes(example) for example in outcome.examples)
        if examples >= BATCH_EXAMPLES or size >= BATCH_BYTES or len(batch) >= 4 * BATCH_EXAMPLES:
            yield batch
            batch, examples, size = [], 0, 0
    if batch:
        yield batch


def payload_bytes(example: Example) -> int:
    """Media, masks, steps and text of an example in memory, in bytes (text counted in characters)."""
    images = sum(image.held_bytes if isinstance(image, Picture) else len(image.data) for image in example.images)
    masks = sum(len(item.mask) for item in example.annotations if item.mask is not None)
    run = example.trajectory
    steps = 0 if run is None else 8 * sum(map(len, chain(run.states, run.actions)))
    clips = sum(len(clip.data) for clip in example.audio)
    return images + masks + steps + clips + sum(len(item.text) for item in example.text)


def judge(batch: Sequence[Outcome], operators: Sequence[Operator], laps: Laps | None = None) -> None:
    """Ask the operators in order, each about the examples that are left; outcomes are changed in place.

    Args:
        laps: gets the time of each operator.
    """
    for operator in operators:
        asked = [(outcome, example) for outcome in batch for example in outcome.examples]
        if not asked:
            return
        verdicts = _ask(operator, [example for _, example in asked])
        for outcome in batch:
            outcome.examples = []
        for (outcome, example), verdict in zip(asked, verdicts, strict=True):
            if outcome.rejection is not None:
                continue
            if isinstance(verdict, Rejection):
                outcome.rejection, outcome.examples, outcome.drops = verdict, [], []
            elif verdict is None:
                outcome.examples.append(example)
            else:
                outcome.drops.append(Drop(example.key, operator.op, verdict))
        if laps is not None:
            laps.lap(operator.op)


def _ask(operator: Operator, examples: list[Example]) -> Sequence[str | Rejection | None]:
    """An operator's answers; when it fails, each example alone, so that only the one at fault suffers."""
    try:
        verdicts = operator(examples)
    except Exception as error:  # noqa: BLE001 - see `quarantined`
        if len(examples) == 1:
            return [quarantined(error, operator.op)]
        return [verdict for example in examples for verdict in _ask(operator, [example])]
    if len(verdicts) != len(examples):
        raise OmnimillError(f"operator {operator.op} gave {len(verdicts)} verdicts for {len(examples)} examples")
    return verdicts


def _stable(message: str) -> str:
    return _TEMPORARY.sub("tmp…", _ADDRESS.sub("0x…", message))[:MESSAGE_CHARACTERS]
