"""What the data turned out to be: languages, licences, and facts that sources and operators noted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from omnimill.infra.report.sampled import Piece

_EXAMPLES = 3
# Facts are shown that sort examples into so many kinds at most, of at least so many examples on average.
_TAG_VALUES = 12
_TAG_EXAMPLES = 4
# A tag with more values than this in what was looked at is not followed further.
_VALUES_FOLLOWED = 2000
_MISLABELLED = "mislabelled"
_MISLABELLED_SHOWN = 20


@dataclass(frozen=True)
class Tag:
    """A fact that `count` examples of a source share, with the keys of a few of them."""

    source: str
    name: str
    value: str
    count: int
    keys: list[str]


@dataclass(frozen=True)
class Findings:
    """languages, licences: examples by value, by source. mislabelled: files that are not what their names say."""

    languages: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    licences: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    mislabelled: list[Tag] = field(default_factory=list)
    tags: list[Tag] = field(default_factory=list)


class Finder:
    """Collects them while pieces of a version of examples go by."""

    def __init__(self) -> None:
        self._languages: dict[str, Counter[str | None]] = {}
        self._licences: dict[str, Counter[str | None]] = {}
        self._counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._keys: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)

    def look(self, piece: Piece) -> None:
        """Take in a piece."""
        meta = piece.rows.column("meta")
        for name, found in (("language", self._languages), ("licence", self._licences)):
            values = pc.value_counts(pc.struct_field(meta, name)).to_pylist()
            found.setdefault(piece.source, Counter()).update({one["values"]: one["counts"] for one in values})
        for key, name, value in _tagged(piece.rows.column("key"), pc.struct_field(meta, "tags")):
            counts = self._counts[piece.source, name]
            if value not in counts and len(counts) >= _VALUES_FOLLOWED:
                continue
            counts[value] += 1
            shown = self._keys[piece.source, name, value]
            if len(shown) < _MISLABELLED_SHOWN:
                shown.append(key)

    def findings(self) -> Findings:
        """What was found."""
        return Findings(
            languages=_known(self._languages),
            licences=_known(self._licences),
            mislabelled=list(
                self._tags(_MISLABELLED_SHOWN, [which for which in self._counts if which[1] == _MISLABELLED])
            ),
            tags=list(self._tags(_EXAMPLES, [which for which in self._counts if self._telling(which)])),
        )

    def _tags(self, shown: int, which: Sequence[tuple[str, str]]) -> Iterator[Tag]:
        for source, name in sorted(which):
            for value, count in sorted(self._counts[source, name].items(), key=lambda item: (-item[1], item[0])):
                yield Tag(source, name, value, count, sorted(self._keys[source, name, value])[:shown])

    def _telling(self, which: tuple[str, str]) -> bool:
        """Whether a tag groups examples: one with a value of its own for nearly every example says nothing."""
        counts = self._counts[which]
        return which[1] != _MISLABELLED and len(counts) <= _TAG_VALUES and counts.total() >= _TAG_EXAMPLES * len(counts)


def _tagged(keys: pa.Array, tags: pa.Array) -> Iterator[tuple[str, str, str]]:
    """(key of the example, name, value) of every tag."""
    for key, row in zip(keys.to_pylist(), tags.to_pylist(), strict=True):
        for name, value in row or ():
            yield key, name, value


def _known(counts: Mapping[str, Counter[str | None]]) -> dict[str, list[tuple[str, int]]]:
    """Of sources of which anything is known."""
    return {
        source: [(value or "not known", count) for value, count in found.most_common()]
        for source, found in sorted(counts.items())
        if set(found) - {None}
    }
