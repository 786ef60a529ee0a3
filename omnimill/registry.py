"""Names to implementations: the one way that YAML selects a source, an operator or an objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from omnimill.errors import ConfigError

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A mapping filled by decorator.

    Args:
        kind: what the entries are, for messages, e.g. ``"operator"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds its argument under `name`; a name can be taken only once."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            allowed = ", ".join(sorted(self._entries))
            raise ConfigError(f"unknown {self.kind}: found {name!r}, allowed: {allowed}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
