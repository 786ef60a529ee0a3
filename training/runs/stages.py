"""Stages of a training in one file: what they share, what each changes, and from which weights each starts.

A stage is a run of its own, called ``<name>-<stage>``, and starts from the last checkpoint of the stage before it. A
file without ``stages`` is a training of one run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnimill.config import Location, Places, allowed, check, read_yaml
from omnimill.errors import ConfigError
from omnimill.training.runs.config import TrainConfig

# Keys that are put together here and are no settings of a run.
_STAGES, _EXTENDS = "stages", "extends"
# What a run starts from is said stage by stage: a later stage does not take it over from what all share.
_START = ("init_from", "init_optimizer")


@dataclass(frozen=True)
class Stage:
    """One stage.

    name: of the stage; None in a file of one run. config: of its run.
    after: the configuration of the stage whose last checkpoint it starts from; None: what `config.init_from` says.
    """

    name: str | None
    config: TrainConfig
    after: TrainConfig | None = None


def read_stages(path: str | Path) -> list[Stage]:
    """The stages of a training file, in their order.

    A stage has the settings of the file with its own on top: mappings are merged key by key, null takes a setting
    away, and a mapping with another ``name`` (another optimizer, say) replaces what was there. A file that ``extends``
    another is put on top of it in the same way; its list of stages, where it has one, replaces that one's.

    Raises:
        ConfigError: a file does not fit, extends itself, or two stages have one name.
    """
    data, places = _read(Path(path), ())
    if _STAGES not in data:
        return [Stage(None, check(data, places, TrainConfig))]
    listed = data.pop(_STAGES)
    where = places[(_STAGES,)]
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"{where}: stages: a list of stages is expected, each with a name and what it changes")
    stages: list[Stage] = []
    for number, own in enumerate(listed):
        at = {key[2:]: place for key, place in places.items() if key[:2] == (_STAGES, number)}
        name = own.get("name") if isinstance(own, dict) else None
        if not isinstance(name, str):
            raise ConfigError(f"{at[()]}: stages.{number}: a stage needs a name; found {own!r}")
        if name in [stage.name for stage in stages]:
            raise ConfigError(f"{at[('name',)]}: stages.{number}.name: two stages are called {name!r}")
        shared = data if not stages else {key: value for key, value in data.items() if key not in _START}
        settings, found = _over((shared, places), (own, at))
        settings["name"] = f"{data.get('name', '')}-{name}"
        follows = stages and settings.get("init_from") is None
        stages.append(Stage(name, check(settings, found, TrainConfig), after=stages[-1].config if follows else None))
    return stages


def load_stage(choice: str | Path) -> TrainConfig:
    """The configuration of one run: ``FILE``, or ``FILE:STAGE`` where the file has several stages.

    Raises:
        ConfigError: as :func:`read_stages`; there is no such stage, or it is not said which.
    """
    path, _, name = str(choice).rpartition(":")
    if not path or Path(choice).exists():
        path, name = str(choice), ""
    return choose(read_stages(path), name or None, path).config


def choose(stages: list[Stage], name: str | None, path: str | Path) -> Stage:
    """The stage of that name; the only one when None.

    Raises:
        ConfigError: there is no such stage, or there are several.
    """
    if name is None and len(stages) == 1:
        return stages[0]
    names = [stage.name for stage in stages if stage.name is not None]
    if name is None:
        raise ConfigError(f"{path} has the stages {', '.join(names)}; say which: {path}:{names[0]}")
    for stage in stages:
        if stage.name == name:
            return stage
    if not names:
        raise ConfigError(f"{path} has no stages; found {name!r}")
    raise ConfigError(f"{path}: no such stage; found {name!r}; {allowed(name, names)}")


def _read(path: Path, below: tuple[Path, ...]) -> tuple[dict[str, Any], Places]:
    """A file on top of what it extends."""
    if path.resolve() in below:
        chain = " -> ".join(map(str, (*below, path.resolve())))
        raise ConfigError(f"{path}: extends: a training cannot extend itself: {chain}")
    data, places = read_yaml(path)
    base = data.pop(_EXTENDS, None)
    if base is None:
        return data, places
    if not isinstance(base, str):
        raise ConfigError(f"{places[(_EXTENDS,)]}: extends: the path of a training file is expected; found {base!r}")
    return _over(_read(path.parent / base, (*below, path.resolve())), (data, places))


def _over(base: tuple[dict[str, Any], Places], own: tuple[dict[str, Any], Places]) -> tuple[dict[str, Any], Places]:
    """`own` on top of `base`, each with the places of its keys."""
    data = _merged(base[0], own[0])
    places = {key: own[1].get(key) or base[1][key] for key in _keys(data)}
    return data, {**places, (): own[1][()]}


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in own.items():
        before = base.get(key)
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(before, Mapping) and not _other(before, value):
            found[key] = _merged(before, value)
        else:
            found[key] = value
    return found


def _other(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return "name" in now and now["name"] != before.get("name")


def _keys(value: Any, where: Location = ()) -> Iterator[Location]:
    """Where each key and list item of a value stands."""
    if isinstance(value, Mapping | list):
        for name, child in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield (*where, name)
            yield from _keys(child, (*where, name))
