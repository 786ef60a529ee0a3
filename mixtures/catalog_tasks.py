"""Tasks from the catalog: one for every dataset that serves a family, or what one task takes over from a dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from omnimill.config import allowed
from omnimill.errors import ConfigError
from omnimill.mixtures.catalog_entries import Entry, FamilyUse, by_family, catalog
from omnimill.mixtures.language import CatalogTasks
from omnimill.mixtures.task_families import families


def token_dataset(entry: Entry) -> str:
    """Name of the token dataset that is made of a dataset of the catalog."""
    return f"{entry.name}-tokens"


def from_dataset(name: str, family: str | None) -> dict[str, Any]:
    """What a task takes over from a dataset and the family: sources, size, and the family's defaults.

    Args:
        family: a family, or a form of one that the dataset serves; None: sources alone.

    Raises:
        ConfigError: there is no such dataset or family.
    """
    entry = catalog()[name]
    if family is None:
        return {"sources": entry.source_names}
    asked = families()[family]
    served = next((one for one in (asked.name, asked.part_of) if one in entry.families), None)
    if served is None:
        return {**asked.defaults(), "sources": entry.source_names}
    use = entry.families[served]
    form = families()[use.form] if use.form and asked.name == served else asked
    settings = {**form.defaults(), "sources": entry.sources_of(served), "size": use.examples}
    if form.name == (use.form or served):
        settings |= {"prompts": use.prompts} if use.prompts else {}
        settings |= {"target": use.target} if use.target else {}
    return settings


def generate(asked: CatalogTasks) -> list[dict[str, Any]]:
    """The settings of a task for every dataset, as they could stand in a mixture's file.

    Where the reference makes several datasets of one (its variants), those that differ in form or sources become a
    task each.

    Raises:
        ConfigError: the family does not exist, or a dataset that is named does not serve it.
    """
    family = families()[asked.family]
    if family.part_of:
        raise ConfigError(f"family: {family.name!r} is a form of {family.part_of!r}; ask for that")
    serving = by_family(family.name)
    for key, names in (("only", asked.only), ("without", asked.without)):
        for name in names:
            if name not in serving:
                known = (
                    f"serves {', '.join(catalog()[name].families)}" if name in catalog() else "is not in the catalog"
                )
                raise ConfigError(f"{key}: dataset {name!r} {known}; {allowed(name, sorted(serving))}")
    found = [
        settings
        for name, entry in serving.items()
        if name not in asked.without and (not asked.only or name in asked.only)
        for settings in _of_entry(entry, asked)
    ]
    if not found:
        kind = f" of kind {asked.kind}" if asked.kind else ""
        raise ConfigError(f"no dataset of the catalog gives family {family.name!r} a task{kind}")
    return found


def _of_entry(entry: Entry, asked: CatalogTasks) -> Iterator[dict[str, Any]]:
    use = entry.families[asked.family]
    for suffix, form, sources in _kinds_of(use, asked.family):
        if asked.kind is not None and families()[form].kind != asked.kind:
            continue
        name = "-".join([asked.family, entry.name, *suffix])
        settings: dict[str, Any] = {
            "name": re.sub(r"[^a-z0-9]+", "-", name.lower()),
            "family": form,
            "dataset": entry.name,
        }
        if sources:
            settings["sources"] = list(sources)
        if use.examples is None and asked.unknown_size is not None:
            settings["size"] = asked.unknown_size
        yield settings


def _kinds_of(use: FamilyUse, family: str) -> Iterator[tuple[list[str], str, tuple[str, ...]]]:
    """What a dataset's tasks are told apart by: words to add to the name, form, and sources where they are not all."""
    own = use.form or family
    seen: dict[tuple[str, tuple[str, ...]], str] = {}
    for name, variant in use.variants.items():
        seen.setdefault((variant.form or own, variant.sources), name)
    if not seen:
        yield [], own, ()
    for (form, sources), name in seen.items():
        yield [] if (form, sources) == (own, ()) else [name], form, sources
