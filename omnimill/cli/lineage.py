"""``omnimill lineage``: what an artefact was made from, and where a file ended up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from omnimill.cli import lineage_diff, lineage_erase, lineage_licences
from omnimill.cli.lineage_flush import flush
from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table

SHOWN_STEPS = 12
SHOWN_FILES = 5
SHOWN_SHARDS = 40
# Parts of an answer that have tables of their own.
_NESTED = ("datasets", "sources", "shards", "started_from", "parents")

Names = Annotated[list[str] | None, typer.Argument(help="Datasets; all under the root when none is named.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    group = typer.Typer(no_args_is_help=True, help="Walk from files to checkpoints and back.")
    group.command("trace")(trace)
    group.command("impact")(impact)
    group.command("index")(index)
    group.command("verify")(verify)
    group.command("gc")(gc)
    group.command("flush")(flush)
    lineage_erase.register(group)
    lineage_diff.register(group)
    lineage_licences.register(group)
    app.add_typer(group, name="lineage")


def trace(
    artefact: Annotated[
        str,
        typer.Argument(
            help="A checkpoint's folder, a shard (path or digest), a row of one (SHARD#ROW), an example id."
        ),
    ],
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """What an artefact was made from, down to source files with digests.

    Example: omnimill lineage trace runs/demo/runs/demo/checkpoints/step-00000120 --root runs/demo
    """
    from omnimill.training.lineage.provenance import trace as walk

    answer = walk(root, artefact)
    if json:
        print_json(answer)
        return
    facts = {key: value for key, value in answer.items() if key not in _NESTED}
    print_table("What it is", ["", ""], [[key, str(value)] for key, value in facts.items()])
    columns = ["dataset", "kind", "rows", "manifest", "run"]
    print_table("Made from", columns, [[one[name] for name in columns] for one in answer["datasets"]])
    print_table("Source files", ["source", "files", "for example", "digest"], list(_file_rows(answer["sources"])))
    if earlier := list(_weights(answer)):
        print_table("Weights it goes back to", ["", "checkpoint", "step", "digest", "sources"], earlier)


def _weights(answer: dict[str, Any], depth: int = 0) -> Iterator[list[Any]]:
    """Checkpoints that one was merged from or started from, and those that these go back to, each below it."""
    started = answer.get("started_from")
    for relation, one in (
        *(("merged from", parent) for parent in answer.get("parents", ())),
        *((("started from", started),) if started else ()),
    ):
        names = ", ".join(source["source"] for source in one["sources"])
        yield ["  " * depth + relation, one["checkpoint"], one.get("step", "-"), one["digest"][:12], names or "-"]
        yield from _weights(one, depth + 1)


def _file_rows(sources: list[dict[str, Any]]) -> list[list[Any]]:
    rows = []
    for source in sources:
        for i, file in enumerate(source["files"][:SHOWN_FILES]):
            head = [source["source"], str(len(source["files"]))] if i == 0 else ["", ""]
            rows.append([*head, file["uri"], file["digest"][:16]])
    return rows


def impact(
    query: Annotated[
        str,
        typer.Argument(help="A file, URL, content digest or example id; domain:NAME, licence:NAME or source:NAME."),
    ],
    root: Root = DEFAULT_ROOT,
    steps: Annotated[
        bool, typer.Option("--steps", help="Also of many rows say each and the steps, however long it takes.")
    ] = False,
    json: Json = False,
) -> None:
    """Every shard, training run and checkpoint that a file, example or domain went into, and which steps used it.

    Of more rows than can be looked up in seconds, shards are counted, and what runs saw of them is what is expected
    from how often they drew each task.

    Example: omnimill lineage impact runs/demo/input/photos/coffee.png --root runs/demo
    """
    from omnimill.training.lineage import audit

    answer = audit.impact(root, query, steps)
    if json:
        print_json(answer)
        return
    for one in answer["rejected"]:
        print(f"{one['dataset']}: {one['key']} was {one['verdict']} by {one['operator']}: {one['reason']}")
    if not answer["examples_count"]:
        print("No example was made from it, so no training run saw it.")
        return
    print(f"{answer['examples_count']:,} examples, in {len(answer['shards']):,} shards:")
    columns = ["dataset", "source", "shard", "unit"]
    shown = [[one[name] for name in columns] for one in answer["shards"][:SHOWN_SHARDS]]
    if len(answer["shards"]) > SHOWN_SHARDS:
        shown.append(["…", "", "", ""])
    print_table("Shards", columns, shown)
    rows = [
        [run["name"], one["checkpoint"], one["step"], _times(one), _steps(run["steps"], one["step"])]
        for run in answer["runs"]
        for one in run["checkpoints"]
    ]
    if not rows:
        print("No training run has read these shards.")
        return
    print_table("Training", ["run", "checkpoint", "at step", "times seen", "at steps"], rows)
    later = [
        [one["checkpoint"], ", ".join(one["made_of_it"])]
        for run in answer["runs"]
        for one in run["checkpoints"]
        if one["made_of_it"]
    ]
    if later:
        print_table("Later weights", ["checkpoint", "merged or started from it"], later)


def _times(checkpoint: dict[str, Any]) -> str:
    return f"{checkpoint['times_seen']:,}" + ("" if checkpoint["exact"] else " expected")


def _steps(steps: list[int] | None, before: int) -> str:
    if steps is None:
        return "too many to tell at once, see --steps"
    seen = [str(step) for step in steps if step < before]
    return ", ".join(seen[:SHOWN_STEPS]) + (" …" if len(seen) > SHOWN_STEPS else "")


def index(datasets: Names = None, root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Make the indexes anew that look-ups read; ingest and tokenize keep them up to date by themselves.

    Example: omnimill lineage index --root runs/demo
    """
    from omnimill.infra.index import rebuild
    from omnimill.infra.verify import chosen

    made = {}
    for dataset in chosen(root, datasets or ()):
        found = rebuild(dataset, dataset.versions())
        made[dataset.name] = {"files": len(found.files), "keys": sum(len(segment) for segment in found.segments)}
    if json:
        print_json(made)
    else:
        rows = [[name, f"{one['files']:,}", f"{one['keys']:,}"] for name, one in made.items()]
        print_table("Indexes", ["dataset", "files", "keys"], rows)


def verify(datasets: Names = None, root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Read every file again and compare it with what manifests say; find missing, altered and unnamed ones.

    Exit code 1 when a file is missing or altered.

    Example: omnimill lineage verify --root runs/demo
    """
    from omnimill.errors import IntegrityError
    from omnimill.infra.verify import verify as check

    report = check(root, datasets or ())
    if json:
        print_json(report.as_json())
    else:
        print(f"{report.files:,} files with {report.bytes / 1e6:,.1f} MB read again.")
        if report.faults:
            rows = [[fault.kind, fault.url, fault.named_by, fault.detail] for fault in report.faults]
            print_table("Faults", ["fault", "file", "named by", "detail"], rows)
        if report.orphans:
            print(f"{len(report.orphans):,} files that nothing names, see `omnimill lineage gc`.")
    if report.faults:
        raise IntegrityError(f"{len(report.faults):,} files are missing, altered or unreadable")


def gc(
    datasets: Names = None,
    root: Root = DEFAULT_ROOT,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them; without it they are only listed.")] = False,
    older_than: Annotated[
        float, typer.Option(help="Hours; younger files may belong to work that is under way.")
    ] = 24.0,
    json: Json = False,
) -> None:
    """List the files of datasets that no manifest, commit, selection or index names; delete them with --delete.

    Example: omnimill lineage gc --root runs/demo
    """
    from dataclasses import asdict

    from omnimill.infra import verify as files

    found = files.garbage(root, datasets or (), older_than * 3600)
    if json:
        print_json({"deleted": delete, "files": [asdict(one) for one in found]})
    else:
        rows = [[one.url, one.bytes, f"{one.age / 3600:.1f} h"] for one in found]
        print_table("Files that nothing names", ["file", "bytes", "age"], rows)
        size, fate = sum(one.bytes for one in found), "deleted" if delete else "kept: --delete was not given"
        print(f"{size / 1e6:,.1f} MB; {fate}.")
    if delete:
        files.delete(found)
