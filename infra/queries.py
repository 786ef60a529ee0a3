"""What people ask lineage for: a file, URL, digest or id; or a domain, licence or source with all that came from it.

One place says which rows a query means: :meth:`Query.rows` of a table of examples. What the index finds is held
against it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnimill.errors import ConfigError
from omnimill.hosts import domains_of, host_of, plain_host
from omnimill.infra import storage
from omnimill.infra.index_keys import named_values, plain_address
from omnimill.rng import Int64s

Kind = Literal["value", "domain", "licence", "source"]

_EXAMPLE_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def looks_like_example_id(query: str) -> bool:
    return bool(_EXAMPLE_ID.fullmatch(query))


def looks_like_digest(query: str) -> bool:
    return bool(_DIGEST.fullmatch(query))


@dataclass(frozen=True)
class Query:
    """A question.

    text: as it was asked. kind: what is meant: a value that names single rows, or what many rows have in common.
    name: the value, domain, licence ("" for rows that state none) or source.
    """

    text: str
    kind: Kind
    name: str

    @cached_property
    def digests(self) -> frozenset[str]:
        """Ids and digests that are meant; of a file that exists here, that of its content too."""
        found = {self.name} if looks_like_digest(self.name) or looks_like_example_id(self.name) else set()
        if Path(self.name).is_file():
            found.add(storage.digest_file(self.name))
        return frozenset(found)

    @cached_property
    def values(self) -> tuple[str, ...]:
        """What the index is asked for: the ways in which what is meant may have been written down."""
        plain = plain_address(self.name)
        found = {*self.digests, self.name, plain}
        if "://" not in plain:
            path = Path(plain)
            found |= {_absolute(plain), str(Path.cwd() / path)}
            if path.is_absolute() and path.is_relative_to(Path.cwd()):
                found.add(str(path.relative_to(Path.cwd())))
        return tuple(sorted(found))

    def address(self, uri: str | None) -> bool:
        """Whether a path or URL is meant."""
        if uri is None:
            return False
        if self.kind == "domain":
            return self.name in domains_of(host_of(uri))
        return self.kind == "value" and (uri == self.name or _absolute(uri) == self._path)

    def rows(self, table: pa.Table) -> Int64s:
        """Which rows of a table of examples, or of records that were turned down, are meant; sorted."""
        if self.kind == "source":
            return places_where(table.column("source").combine_chunks(), self.name.__eq__)
        if self.kind == "licence":
            licences = pc.struct_field(table.column("meta"), "licence").combine_chunks()
            return places_where(pc.fill_null(licences, ""), self.name.__eq__)
        places = [np.empty(0, np.int64)]
        for owners, kind, values in named_values(table):
            if kind == "address":
                places.append(owners[places_where(values, self.address)])
            elif self.kind == "value":
                places.append(owners[places_where(values, self._names)])
        return np.unique(np.concatenate(places))

    def _names(self, value: str) -> bool:
        return value in self.digests or value == self.name

    @cached_property
    def _path(self) -> str:
        return _absolute(self.name)


def parse_query(text: str) -> Query:
    """What a text asks for: ``domain:example.org``, ``licence:CC-BY-4.0``, ``source:name``, or a value.

    ``licence:`` alone is what states none.

    Raises:
        ConfigError: a domain or source is not named.
    """
    kind, colon, name = text.partition(":")
    if not colon or kind not in ("domain", "licence", "source"):
        return Query(text, "value", text)
    if kind == "domain":
        name = plain_host(name)
    if not name and kind != "licence":
        raise ConfigError(f"query: found {text!r}, allowed: {kind}:NAME")
    return Query(text, kind, name)  # type: ignore[arg-type]  # it is one of the three


def places_where(values: pa.Array, said: Callable[[str], bool]) -> Int64s:
    """Places of strings that are meant; each distinct one is looked at once."""
    encoded = values.dictionary_encode()
    hits = [number for number, value in enumerate(encoded.dictionary.to_pylist()) if said(value)]
    if not hits:
        return np.empty(0, np.int64)
    codes = pc.fill_null(encoded.indices, -1).to_numpy()
    return np.flatnonzero(np.isin(codes, hits)).astype(np.int64)


def _absolute(uri: str) -> str:
    if "://" in uri and not uri.startswith("file://"):
        return uri
    return str(Path(uri.removeprefix("file://")).resolve())
