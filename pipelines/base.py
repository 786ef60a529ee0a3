"""What a source and an operator are: typed configurations, named in YAML, that know how to do their work.

A **source** lists its units on the driver and reads one unit on a worker, as records. A **record** is decoded into
examples (one, or many: a film into runs of segments). **Operators** then keep or drop examples with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import ClassVar, Self

from pydantic import Field

from omnimill.config import Config
from omnimill.infra import storage
from omnimill.infra.dataset import Dataset, InputRef, Unit
from omnimill.schema import Example, Provenance


@dataclass(frozen=True)
class Record:
    """One source record, not decoded yet.

    key: unique in its source, stable between runs.
    decode: makes the examples; raises :class:`~omnimill.errors.BadRecord` (quarantine) or
        :class:`~omnimill.errors.RecordDropped` (turned down by a rule). Called in a thread, once.
    data: the record's own bytes when it has them in hand and they are small, kept in quarantine if it is bad.
    """

    key: str
    provenance: Provenance
    decode: Callable[[], Sequence[Example]]
    data: bytes | None = None


@dataclass(frozen=True)
class Parent:
    """A dataset version that a source reads. digest: of its manifest. selections: digests by name."""

    dataset: Dataset
    digest: str
    selections: Mapping[str, str] = field(default_factory=dict)


class Operator(Config):
    """Base of operators; a subclass narrows `op` to ``Literal["its_name"]`` and adds its settings.

    version: raised when the operator's outcome changes for the same settings, so that units are done again.
    per_example: says the same about an example whatever stands beside it, and is called from several threads at once:
        then it is asked in the thread that decoded the example, while the pixels are at hand.
    reads, writes: example columns that the operator looks at and changes.
    """

    version: ClassVar[int] = 1
    per_example: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ()

    op: str

    def __call__(self, examples: Sequence[Example]) -> Sequence[str | None]:
        """For every example None to keep it, or the reason (snake_case code) to drop it.

        May change columns named in `writes` in place (scores, re-encoded media); nothing else.
        """
        raise NotImplementedError

    def looks_at(self, width: int, height: int) -> tuple[int, int]:  # noqa: ARG002 - subclasses use them
        """How large (width, height) a picture of this size has to be at hand for it; (0, 0) if it sees no pixels.

        A hint that saves work: an operator that asks for more gets it.
        """
        return 0, 0


class Source(Config):
    """Base of sources; a subclass narrows `type` to ``Literal["its_type"]``, adds its settings, `units` and `read`.

    version: raised when what is read from the same unit changes, so that units are done again.
    selection: settings that only choose which units there are; a change of them does no unit again.
    name: the source's name in the dataset, in mixtures and in lineage.
    licence: recorded on every example that does not bring its own.
    """

    version: ClassVar[int] = 1
    selection: ClassVar[tuple[str, ...]] = ()

    type: str
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    licence: str | None = None

    def pinned(self) -> Self:
        """The source with the versions named that it reads now, so that a run reads no other; on the driver."""
        return self

    def parents(self) -> Sequence[Parent]:
        """The datasets that the units were ingested to before; on the driver."""
        return ()

    def units(self) -> Iterator[Unit]:
        """List the units, on the driver, without reading content. The same source always lists the same units."""
        raise NotImplementedError

    def inputs(self, unit: Unit) -> list[InputRef]:
        """What the unit depends on, by content; on a worker. A source that reads a slice of a file hashes the slice."""
        digests = storage.digest_files(unit.files)
        sizes = storage.stats(unit.files)
        return [
            InputRef(uri=uri, digest=digest, bytes=int((sizes[uri] or storage.stat(uri))["bytes"]))
            for uri, digest in zip(unit.files, digests, strict=True)
        ]

    def read(self, unit: Unit) -> Iterator[Record]:
        """The unit's records, on a worker. An exception in mid-iteration quarantines the unread rest as one record."""
        raise NotImplementedError


class VolatileSource(Source):
    """Base of sources that read what may be gone, or be something else, at another time: what is fetched from the web.

    When a unit is done again on demand, records that were kept or dropped stand, and only the others are read (see
    `settled.Settled`). So a record has a key of its own in its unit, comes in the same place each time, and is decoded
    into one example of the same key.
    """

    def read(self, unit: Unit, settled: AbstractSet[str] = frozenset()) -> Iterator[Record]:
        """As of any source; records whose keys are in `settled` come in their places with key and uri, but unread."""
        raise NotImplementedError
