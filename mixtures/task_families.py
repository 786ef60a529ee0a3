"""Task families: what all tasks of a kind have in common, one YAML file per family in ``mixtures/families``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from omnimill.config import Config, load_config
from omnimill.errors import ConfigError
from omnimill.mixtures.config import Kind, Stream, Task
from omnimill.mixtures.objectives import ObjectiveName
from omnimill.registry import Registry

FAMILIES = Path(__file__).with_name("families")
# Fields of a family that its tasks take over where they say nothing else.
_DEFAULTS = ("kind", "inputs", "optional", "target", "objective", "prompts")


class Family(Config):
    """Defaults of a family's tasks; the fields that `Task` has too mean what they mean there.

    name: of the file without ``.yaml``. title: as in the reference's table, or a title of our own. group: the
    reference's group of families.
    part_of: the family of the reference's table that it is a form of, with other roles, streams or wording; None: it
        is one of the table itself.
    roles: of text, that its prompts and its target read, and what each is.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    group: str
    part_of: str | None = None
    kind: Kind = "prompted"
    inputs: tuple[Stream, ...] = ()
    optional: tuple[Stream, ...] = ()
    target: str
    objective: ObjectiveName = "generate"
    roles: Mapping[str, str] = {}
    prompts: tuple[str, ...] = ()

    def defaults(self) -> dict[str, Any]:
        """What a task of the family is, unless it says otherwise."""
        return {"family": self.name, **self.model_dump(include=set(_DEFAULTS))}

    @model_validator(mode="after")
    def _makes_a_task(self) -> Self:
        task = Task.model_validate({**self.defaults(), "name": self.name, "rate": 1, "sources": ["any"]})
        if task.roles != set(self.roles):
            raise ValueError(f"roles: found {sorted(self.roles)}; prompts and target read {sorted(task.roles)}")
        return self


@cache
def families(folder: Path = FAMILIES) -> Mapping[str, Family]:
    """All families, by name, in alphabetical order.

    Raises:
        ConfigError: a file does not fit, or is not called what the family is.
    """
    found: Registry[Family] = Registry("family")
    for path in sorted(folder.glob("*.yaml")):
        family = load_config(path, Family)
        if path.stem != family.name:
            raise ConfigError(f"{path}:1: name: found {family.name!r}, allowed: {path.stem!r}, as the file is called")
        found.register(family.name)(family)
    for family in found.values():
        if family.part_of is not None and found[family.part_of].part_of is not None:
            raise ConfigError(f"{folder / family.name}.yaml:1: part_of: {family.part_of!r} is a part itself")
    return found
