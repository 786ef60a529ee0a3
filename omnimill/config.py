"""YAML configuration: strict pydantic models, and errors that name file, line, key, found and allowed.

Strings may use ``${NAME}`` and ``${NAME:-default}``; a variable without a value and without a default is an error.
Relative paths in a configuration are relative to the current directory.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from blake3 import blake3
from pydantic import BaseModel, ConfigDict, ValidationError

from omnimill.errors import ConfigError

M = TypeVar("M", bound="Config")
Location = tuple[str | int, ...]
# Where each key and list item of a configuration stands, as ``file:line``; () is the whole.
Places = Mapping[Location, str]

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class Config(BaseModel):
    """Base of every configuration model: frozen, unknown keys rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def content_digest(self) -> str:
        """Content digest of the resolved configuration (64 hex digits of blake3 over canonical JSON)."""
        return digest_json(self.model_dump(mode="json"))


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_json(value: Any) -> str:
    """64 hex digits of blake3 over :func:`canonical_json`."""
    return blake3(canonical_json(value)).hexdigest()


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value inside mappings and sequences with its key, nested keys joined by dots; empty ones too."""
    if isinstance(value, Mapping | list | tuple) and value:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, child in items:
            yield from flat(child, f"{key}.{name}" if key else str(name))
    elif key:
        yield key, value


def load_config(path: str | Path, model: type[M], *, expand: bool = True) -> M:
    """Read a YAML file into `model`.

    Args:
        expand: put the values of variables in; without it ``${NAME}`` stays as it is written.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not fit the model. The message lists every fault
            as ``file:line: key: what is wrong; found …; allowed …``.
    """
    return check(*read_yaml(path, expand=expand), model)


def check(data: Mapping[str, Any], places: Places, model: type[M]) -> M:
    """Values that were read from one or more files, as `model`.

    Args:
        places: of every key and list item of `data`.

    Raises:
        ConfigError: as :func:`load_config`.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(error, model, places))) from None


def read_yaml(path: str | Path, *, expand: bool = True) -> tuple[dict[str, Any], Places]:
    """A YAML file's values, and the place of each.

    Raises:
        ConfigError: the file is missing, is not YAML, or is no mapping.
    """
    text = _read(path)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{path}:{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    lines: dict[Location, int] = {(): 1}
    data = _construct(root, (), lines, path, expand=expand) if root is not None else {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}:1: expected a mapping of keys, found {type(data).__name__}")
    return data, {where: f"{path}:{line}" for where, line in lines.items()}


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from None


def _construct(node: yaml.Node, where: Location, lines: dict[Location, int], path: str | Path, *, expand: bool) -> Any:
    """Plain values from a YAML node tree, remembering the line of every key."""
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in result:
                raise ConfigError(f"{path}:{line}: key {key!r} appears twice")
            lines[(*where, key)] = line
            result[key] = _construct(value_node, (*where, key), lines, path, expand=expand)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(child, (*where, i), lines, path, expand=expand) for i, child in enumerate(node.value)]
    value = yaml.SafeLoader("").construct_object(node)
    return _expand(value, lines[where], path) if expand and isinstance(value, str) else value


def _expand(value: str, line: int, path: str | Path) -> str:
    def substitute(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name, default)
        if found is None:
            raise ConfigError(f"{path}:{line}: environment variable {name} is not set and has no default")
        return found

    return _VARIABLE.sub(substitute, value)


def _describe(error: ValidationError, model: type[Config], places: Places) -> list[str]:
    messages = []
    for fault in error.errors():
        where = tuple(fault["loc"])
        # Members of a union add their own names to the location; the keys that are in the file say where it is.
        known: Location = ()
        for part in where:
            known = (*known, part) if (*known, part) in places else known
        context = fault.get("ctx", {})
        tag = str(context.get("discriminator", "")).strip("'")
        missing = where[-1:] if fault["type"] == "missing" else (tag,) if fault["type"] == "union_tag_not_found" else ()
        if (*known, tag) in places:
            known = (*known, tag)
        key = ".".join(str(part) for part in (*known, *missing)) or "(top level)"
        text = f"{places[known]}: {key}: "
        if fault["type"] == "extra_forbidden":
            text += "unknown key; " + allowed(str(where[-1]), _keys_at(model, where[:-1], places))
        elif fault["type"] == "union_tag_invalid":
            expected = [name.strip(" '") for name in str(context["expected_tags"]).split(",")]
            text += f"unknown {tag}; found {context['tag']!r}; " + allowed(str(context["tag"]), expected)
        elif missing:
            text += "required key is missing"
        else:
            message = fault["msg"].removeprefix("Value error, ")
            text += f"{message}; found {_shorten(repr(fault['input']))}"
        messages.append(text)
    return messages


def allowed(found: str, choices: Sequence[str]) -> str:
    """What a message says after a name that is not among the allowed ones."""
    near = difflib.get_close_matches(found, choices, n=1)
    return f"allowed: {', '.join(choices)}" + (f"; did you mean {near[0]!r}?" if near else "")


def _shorten(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


def _keys_at(model: type[BaseModel], where: Location, places: Places) -> list[str]:
    """The keys that a nested model allows, at a location with optionals, lists, dicts and members of unions."""
    candidates = [model]
    known: Location = ()
    beside: set[str] = set()
    for part in where:
        tagged = [kind for kind in candidates if part in _tags(kind)]
        fields = [kind.model_fields[str(part)].annotation for kind in candidates if part in kind.model_fields]
        if (*known, part) in places:
            known = (*known, part)
            beside = set()
        elif fields:
            # A field that is not in the file: the model spreads its keys over the mapping that holds this one's too.
            beside |= {name for kind in candidates for name in kind.model_fields} - {str(part)}
        # An index or a dict's key leads to no field: stay with the models seen so far.
        candidates = tagged or [kind for annotation in fields for kind in _models(annotation)] or candidates
    return sorted({name for kind in candidates for name in kind.model_fields} | beside)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for argument in get_args(annotation) for kind in _models(argument)]


def _tags(model: type[BaseModel]) -> set[Any]:
    """The values of a model's literal fields: what a union tells its members apart by."""
    return {
        value for info in model.model_fields.values() for value in get_args(info.annotation) if isinstance(value, str)
    }
