"""A table of ids: named ranges that follow each other without gaps, and rows padded to a multiple."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from omnimill.errors import OmnimillError


@dataclass(frozen=True)
class TokenRange:
    """Consecutive ids of one kind of token.

    name: the kind. A kind that grew has several ranges; each holds the indices from `first` on.
    size: ids. start: the lowest of them. descending: the range's first index has its highest id.
    form: how index i reads: names of all, or a pattern for the number `label` + i - `first`; None: pieces of text.
    """

    name: str
    size: int
    first: int = 0
    descending: bool = False
    form: str | tuple[str, ...] | None = None
    label: int = 0
    start: int = 0

    @property
    def stop(self) -> int:
        """One more than the highest id."""
        return self.start + self.size

    @property
    def last(self) -> int:
        """The highest index."""
        return self.first + self.size - 1

    def id(self, index: int) -> int:
        """Id of an index of this range."""
        position = index - self.first
        return self.stop - 1 - position if self.descending else self.start + position

    def index(self, token: int) -> int:
        """Index of an id of this range."""
        return self.first + (self.stop - 1 - token if self.descending else token - self.start)

    def surface(self, index: int) -> str | None:
        """The readable form of an index; None for a piece of text."""
        position = index - self.first
        if isinstance(self.form, tuple):
            return self.form[position]
        return None if self.form is None else self.form.format(self.label + position)


@dataclass(frozen=True)
class TokenTable:
    """An id space: every id below `size` belongs to exactly one range, ids up to `rows` are padding.

    Built by :meth:`lay_out`.
    """

    name: str
    ranges: tuple[TokenRange, ...]
    row_multiple: int = 1

    @classmethod
    def lay_out(cls, name: str, ranges: Iterable[TokenRange], row_multiple: int) -> Self:
        """A table of ranges in the given order; empty ones are left out."""
        placed: list[TokenRange] = []
        for block in ranges:
            if block.size:
                placed.append(replace(block, start=placed[-1].stop if placed else 0))
        return cls(name, tuple(placed), row_multiple)

    @property
    def size(self) -> int:
        """Ids in use."""
        return self.ranges[-1].stop if self.ranges else 0

    @property
    def rows(self) -> int:
        """Rows of the embedding table."""
        return -(-self.size // self.row_multiple) * self.row_multiple

    def count(self, name: str) -> int:
        """Tokens of a kind."""
        return sum(block.size for block in self._by_name.get(name, ()))

    def id(self, name: str, index: int = 0) -> int:
        """Id of a token.

        Raises:
            OmnimillError: the table has no such token.
        """
        blocks = self._by_name.get(name, ())
        for block in blocks:
            if block.first <= index <= block.last:
                return block.id(index)
        if not blocks:
            kinds = ", ".join(self._by_name)
            raise OmnimillError(f"the {self.name} table has no tokens {name!r}; it has {kinds}")
        raise OmnimillError(f"{name} {index} does not exist; allowed: 0 to {self.count(name) - 1}")

    def locate(self, token: int) -> tuple[str, int]:
        """Kind and index of an id in use.

        Raises:
            OmnimillError: the id is not in use.
        """
        block = self._block(token)
        if block is None:
            raise OmnimillError(f"id {token} is not in use; the {self.name} table has ids 0 to {self.size - 1}")
        return block.name, block.index(token)

    def surface(self, token: int) -> str | None:
        """The readable form of an id; None for a piece of text.

        Ids that are not in use (padding rows) are written ``<unused_ID>``.
        """
        block = self._block(token)
        return f"<unused_{token}>" if block is None else block.surface(block.index(token))

    def extends(self, old: TokenTable) -> bool:
        """Whether every token of an older table has the same id and the same surface form here."""
        return all(self._holds(block) for block in old.ranges)

    def as_json(self) -> dict[str, Any]:
        """The shape that ``--json`` prints."""
        return {
            "table": self.name,
            "size": self.size,
            "rows": self.rows,
            "ranges": [
                {
                    "range": block.name,
                    "first_id": block.start,
                    "last_id": block.stop - 1,
                    "size": block.size,
                    "first_index": block.index(block.start),
                    "last_index": block.index(block.stop - 1),
                    "first_surface": self.surface(block.start),
                    "last_surface": self.surface(block.stop - 1),
                }
                for block in self.ranges
            ],
        }

    @cached_property
    def _by_name(self) -> dict[str, list[TokenRange]]:
        found: dict[str, list[TokenRange]] = {}
        for block in self.ranges:
            found.setdefault(block.name, []).append(block)
        return found

    @cached_property
    def _starts(self) -> list[int]:
        return [block.start for block in self.ranges]

    def _block(self, token: int) -> TokenRange | None:
        if not 0 <= token < self.size:
            return None
        return self.ranges[bisect_right(self._starts, token) - 1]

    def _holds(self, old: TokenRange) -> bool:
        """A range is linear in its index, so equal ends make all of its ids equal."""
        block = self._block(old.start)
        if block is None or block.name != old.name or old.stop > block.stop:
            return False
        ends = (old.first, old.last)
        if isinstance(old.form, tuple):
            ends = tuple(range(old.first, old.last + 1))  # type: ignore[assignment]
        return all(
            block.first <= i <= block.last and block.id(i) == old.id(i) and block.surface(i) == old.surface(i)
            for i in ends
        )
