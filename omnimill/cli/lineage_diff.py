"""``omnimill lineage diff``: what is different between two versions of datasets, or two runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table

_SHOWN = 40


def register(group: typer.Typer) -> None:
    """Add the command to those of lineage."""
    group.command("diff")(diff)


def diff(
    first: Annotated[str, typer.Argument(help="A dataset, DATASET@DIGEST, a version's digest, or a run (name or id).")],
    second: Annotated[str, typer.Argument(help="Another one of the same kind.")],
    rows: Annotated[
        bool, typer.Option("--rows", help="Count the rows that only one version has; reads ids of shards that differ.")
    ] = False,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """What is different between two versions of datasets, or between two runs of commands.

    Example: omnimill lineage diff demo demo-tokens --root runs/demo
    """
    from omnimill.errors import ConfigError
    from omnimill.infra.version_diff import open_version, version_diff
    from omnimill.training.lineage.run_diff import find_run, run_diff

    versions = [open_version(root, one) for one in (first, second)]
    if versions[0] is not None and versions[1] is not None:
        answer = version_diff(versions[0], versions[1], rows=rows)
    elif versions[0] is None and versions[1] is None:
        answer = run_diff(root, *(find_run(root, one) for one in (first, second)))
    else:
        known = first if versions[1] is None else second
        raise ConfigError(f"{known} is not a version of a dataset, as the other is; compare two versions or two runs")
    if json:
        print_json(answer)
    else:
        _show(answer)


def _show(answer: dict[str, Any]) -> None:
    things = answer["versions"] if answer["kind"] == "versions" else answer["runs"]
    columns = list(things[0])
    print_table("Compared", columns, [[str(one[name]) for name in columns] for one in things])
    told = False
    for name, found in answer.items():
        lines = list(_lines(found)) if name not in ("kind", "versions", "runs") else []
        if not lines:
            continue
        print_table(name.capitalize(), ["", "was", "is"], lines[:_SHOWN])
        if len(lines) > _SHOWN:
            print(f"and {len(lines) - _SHOWN:,} more, see --json.")
        told = True
    if not told:
        print("Nothing is different.")


def _lines(value: Any, key: str = "") -> Any:
    """Rows of a table: what it is about, was, is."""
    if isinstance(value, dict) and set(value) == {"was", "now"}:
        yield [key, str(value["was"]), str(value["now"])]
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _lines(child, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and len(value) == 2:
        yield [key, *map(str, value)]
    elif value:
        yield [key, "", str(value)]
