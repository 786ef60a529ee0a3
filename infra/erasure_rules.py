"""What is erased: the rules that examples, records and stored rows are held against. Nothing else decides that."""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnimill.hosts import domains_of, host_of
from omnimill.infra.dataset import InputRef
from omnimill.infra.index_keys import named_values, plain_address
from omnimill.infra.queries import places_where
from omnimill.rng import Int64s
from omnimill.schema import Example, Provenance

# By what a rule knows what it erases. `input`: address or digest of a file that units are read from. `licence`: "" is
# what states none.
Kind = Literal["id", "key", "uri", "digest", "input", "domain", "licence", "source"]
RuleValues = Mapping[Kind, tuple[str, ...]]

_WEB = ("http://", "https://")


class Rules:
    """The rules of some erasures, together.

    Args:
        erasures: of each the values by kind.
    """

    def __init__(self, erasures: Iterable[RuleValues]) -> None:
        self._values: dict[Kind, set[str]] = {}
        for values in erasures:
            for kind, some in values.items():
                self._values.setdefault(kind, set()).update(some)
        self._addresses = self._values.get("uri", set())
        self._domains = self._values.get("domain", set())

    def __bool__(self) -> bool:
        return any(self._values.values())

    def rows(self, table: pa.Table) -> Int64s:
        """Rows of a shard of examples or tokens that are erased, sorted; reads no medium.

        A stored row is known by its id: rules of the kind `key` are for records that are read anew.
        """
        names = self._values.get("id", set()) | self._values.get("digest", set())
        places = [np.empty(0, np.int64)]
        for owners, kind, values in named_values(table):
            if kind == "name" and names:
                places.append(owners[places_where(values, names.__contains__)])
            elif kind == "address" and (self._addresses or self._domains):
                places.append(owners[places_where(values, self.address)])
        if sources := self._values.get("source"):
            places.append(places_where(table.column("source").combine_chunks(), sources.__contains__))
        if (licences := self._values.get("licence")) and "meta" in table.column_names:
            stated = pc.struct_field(table.column("meta"), "licence").combine_chunks()
            places.append(places_where(pc.fill_null(stated, ""), licences.__contains__))
        return np.unique(np.concatenate(places))

    def example(self, example: Example) -> bool:
        """Whether an example is erased."""
        media = [(image.uri, image.digest) for image in example.images]
        media += [(clip.uri, clip.digest) for clip in example.audio]
        if example.video is not None:
            media.append((example.video.uri, example.video.digest))
        return (
            self.record(example.source, example.key, example.provenance)
            or self._holds("id", example.id)
            or self.address(example.meta.url)
            or self._holds("licence", example.meta.licence or "")
            or any(self.address(uri) or self._holds("digest", digest) for uri, digest in media)
        )

    def record(self, source: str, key: str, provenance: Provenance) -> bool:
        """Whether a record is erased, whatever it holds."""
        return (
            self._holds("source", source)
            or self._holds("key", named(source, key))
            or self.address(provenance.uri)
            or self._holds("digest", provenance.digest)
        )

    def unit(self, source: str, inputs: Iterable[InputRef]) -> bool:
        """Whether everything that a source reads from these files is erased."""
        files = self._values.get("input", set())
        return self._holds("source", source) or any(_is_one_of(ref.uri, files) or ref.digest in files for ref in inputs)

    def _holds(self, kind: Kind, value: str | None) -> bool:
        return value is not None and value in self._values.get(kind, ())

    def address(self, uri: str | None) -> bool:
        """Whether an address is erased, or a domain that it lies in."""
        if uri is None:
            return False
        if self._addresses and _is_one_of(uri, self._addresses):
            return True
        return bool(self._domains) and uri.startswith(_WEB) and not self._domains.isdisjoint(domains_of(host_of(uri)))


def named(source: str, key: str) -> str:
    """A record by its source and key, as rules of the kind `key` name it."""
    return f"{source}\x1f{key}"


def addresses(query: str) -> tuple[str, ...]:
    """The spellings under which a file or URL may have been read."""
    plain = plain_address(query)
    if "://" in plain:
        return (plain,)
    relative = os.path.relpath(plain)
    inside = () if relative.startswith("..") else (relative,)
    return tuple(dict.fromkeys((plain, _absolute(plain), os.path.realpath(plain), *inside)))


def _is_one_of(uri: str, known: set[str]) -> bool:
    plain = plain_address(uri)
    return plain in known or ("://" not in plain and _absolute(plain) in known)


def _absolute(plain: str) -> str:
    return os.path.abspath(plain)  # noqa: PTH100 - without a look at the disk, for there are millions of them
