"""Mixture files put together: what a file extends, changes, removes and adds, with the place of every setting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnimill.config import Location, Places, allowed, check, read_yaml
from omnimill.errors import ConfigError
from omnimill.mixtures.catalog_tasks import generate
from omnimill.mixtures.language import INHERITANCE, CatalogTasks, MixtureFile, MixtureSpec

# Keys of a group that hold what is in it, so that a change adds to them.
_LISTS = ("tasks", "groups")


@dataclass
class _Node:
    """A value and where it stands. value: a dict or list of nodes, or a scalar."""

    value: Any
    place: str


def read_spec(path: str | Path) -> tuple[MixtureSpec, Places]:
    """A mixture with all that it extends, and the place of each of its settings.

    Raises:
        ConfigError: a file does not fit, extends itself, or names a task, group or dataset that does not exist.
    """
    root = _read(Path(path), ())
    places: dict[Location, str] = {}
    data = _plain(root, (), places)
    return check(data, places, MixtureSpec), places


def _read(path: Path, below: tuple[Path, ...]) -> _Node:
    if path.resolve() in below:
        chain = " -> ".join(map(str, (*below, path.resolve())))
        raise ConfigError(f"{path}: extends: a mixture cannot extend itself: {chain}")
    data, places = read_yaml(path)
    file = check(data, places, MixtureFile)
    root = _planted(data, (), places)
    own = {key: node for key, node in root.value.items() if key not in INHERITANCE}
    for group in _groups(_Node(own, root.place)):
        _expand_catalog(group)
    if file.extends is None:
        whole = _Node(own, root.place)
    else:
        whole = _read(path.parent / file.extends, (*below, path.resolve()))
        _override(whole, own)
    for name in file.change:
        node = root.value["change"].value[name]
        _change(whole, name, node)
    for number, name in enumerate(file.remove):
        _remove(whole, name, root.value["remove"].value[number].place)
    _named(whole)
    return whole


def _planted(data: Any, where: Location, places: Places) -> _Node:
    place = places[where]
    if isinstance(data, dict):
        return _Node({key: _planted(value, (*where, key), places) for key, value in data.items()}, place)
    if isinstance(data, list):
        return _Node([_planted(value, (*where, number), places) for number, value in enumerate(data)], place)
    return _Node(data, place)


def _grown(data: Any, place: str) -> _Node:
    """Values that were made of what stands at one place."""
    if isinstance(data, dict):
        return _Node({key: _grown(value, place) for key, value in data.items()}, place)
    return _Node([_grown(value, place) for value in data] if isinstance(data, list) else data, place)


def _plain(node: _Node, where: Location, places: dict[Location, str]) -> Any:
    """A node's plain values; adds their places."""
    places[where] = node.place
    if isinstance(node.value, dict):
        return {key: _plain(value, (*where, key), places) for key, value in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(value, (*where, number), places) for number, value in enumerate(node.value)]
    return node.value


def _items(node: _Node, key: str) -> list[_Node]:
    return node.value[key].value if key in node.value else []


def _groups(node: _Node) -> Iterator[_Node]:
    """The node itself and all groups in it."""
    yield node
    for group in _items(node, "groups"):
        yield from _groups(group)


def _override(base: _Node, settings: dict[str, _Node]) -> None:
    """Set what `settings` sets; lists of tasks and groups come on top; null takes away."""
    for key, node in settings.items():
        if key in _LISTS and key in base.value and node.value is not None:
            base.value[key].value.extend(node.value)
        elif node.value is None:
            base.value.pop(key, None)
        else:
            base.value[key] = node


def _named(whole: _Node) -> dict[str, tuple[_Node, _Node]]:
    """Name -> the list that holds it, and the task or group itself."""
    found: dict[str, tuple[_Node, _Node]] = {}
    for group in _groups(whole):
        for key in _LISTS:
            for item in _items(group, key):
                name = item.value["name"].value
                if name in found:
                    first = found[name][1].value["name"].place
                    raise ConfigError(
                        f"{item.value['name'].place}: group and task names must be unique; doubled: {name}, "
                        f"first at {first}"
                    )
                found[name] = (group.value[key], item)
    return found


def _find(whole: _Node, name: str, place: str, key: str) -> tuple[_Node, _Node]:
    named = _named(whole)
    if name not in named:
        raise ConfigError(f"{place}: {key}: unknown task or group; found {name!r}; {allowed(name, sorted(named))}")
    return named[name]


def _change(whole: _Node, name: str, change: _Node) -> None:
    _, item = _find(whole, name, change.place, "change")
    if "name" in change.value:
        raise ConfigError(f"{change.value['name'].place}: change.{name}.name: a name stays; remove one and add another")
    _override(item, change.value)
    for group in _groups(item):
        _expand_catalog(group)


def _remove(whole: _Node, name: str, place: str) -> None:
    siblings, item = _find(whole, name, place, "remove")
    siblings.value.remove(item)


def _expand_catalog(group: _Node) -> None:
    """Tasks in the place of a group's `catalog`."""
    node = group.value.pop("catalog", None)
    if node is None or not isinstance(node.value, dict):
        return
    places: dict[Location, str] = {}
    asked = check(_plain(node, (), places), places, CatalogTasks)
    try:
        generated = generate(asked)
    except ConfigError as error:
        raise ConfigError(f"{node.place}: catalog: {error}") from None
    tasks = group.value.setdefault("tasks", _Node([], node.place)).value
    for settings in generated:
        tasks.append(_grown(settings, node.place))
