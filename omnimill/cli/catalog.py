"""``omnimill catalog``: which datasets there are, what is known of each, and the DAG that ingests them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnimill.cli.output import Json, print_json, print_table
from omnimill.errors import ConfigError

if TYPE_CHECKING:
    from omnimill.mixtures.catalog_entries import Entry

Name = Annotated[str, typer.Argument(metavar="NAME", help="A dataset of the catalog, or the path of an entry's YAML.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME…", help="Datasets of the catalog, or paths of entries.")]


def register(app: typer.Typer) -> None:
    """Add the command group to the program."""
    group = typer.Typer(help="Datasets: list, show, write the DAG that ingests them.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("dag")(dag)
    app.add_typer(group, name="catalog")


def list_(
    family: Annotated[str | None, typer.Option("--family", help="Only datasets that serve this task family.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="All of it as the page docs/catalog.md.")] = False,
    json: Json = False,
) -> None:
    """List the datasets: what tasks they serve, examples in one pass, licence.

    Example: omnimill catalog list --family image-captioning
    """
    from omnimill.mixtures.catalog_entries import by_family, catalog
    from omnimill.mixtures.catalog_page import markdown as page
    from omnimill.mixtures.catalog_page import size_text
    from omnimill.mixtures.task_families import families

    if markdown:
        sys.stdout.write(page())
        return
    entries = by_family(families()[family].name) if family else catalog()
    if json:
        print_json({"datasets": [entry.model_dump(mode="json") for entry in entries.values()]})
        return
    rows = []
    for entry in entries.values():
        uses = {name: use for name, use in entry.families.items() if family in (None, name)}
        served = [f"{name} {size_text(use)}" for name, use in uses.items()]
        rows.append([entry.name, "\n".join(served) or f"pre-training: {entry.pretrain}", entry.licence])
    print_table(f"{len(rows)} datasets", ["dataset", "families and examples", "licence"], rows)


def show(name: Name, json: Json = False) -> None:
    """Show one entry: what it is, where it is from, which files go where, how it is ingested.

    Example: omnimill catalog show visual_genome
    """
    from omnimill.mixtures.catalog_entries import CATALOG

    entry = _entry(name)
    if json:
        print_json(entry.model_dump(mode="json"))
        return
    path = Path(name) if _is_file(name) else CATALOG / f"{name}.yaml"
    sys.stdout.write(path.read_text(encoding="utf-8"))


def dag(
    names: Names,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Name of the examples dataset; of a single entry its own.")
    ] = None,
) -> None:
    """Write a DAG that ingests datasets, with where their files come from and where they go.

    It is for `omnimill ingest`, with DATA set to where the files lie.

    Example: omnimill catalog dag coco vqa_v2 --dataset coco
    """
    from omnimill.mixtures.catalog_dags import dag_text

    if dataset is None and len(names) > 1:
        raise ConfigError("several datasets become one: give it a name with --dataset")
    entries = [_entry(name) for name in names]
    sys.stdout.write(dag_text(entries, dataset or entries[0].name))


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _entry(name: str) -> Entry:
    from omnimill.mixtures.catalog_entries import find, load_entry

    return load_entry(name) if _is_file(name) else find(name)
