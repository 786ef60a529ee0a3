"""``omnimill lineage``: what an artefact was made from, and where a file ended up."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from omnimill.cli import lineage_erase
from omnimill.cli.lineage_flush import flush
from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table

SHOWN_STEPS = 12
SHOWN_FILES = 5


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    group = typer.Typer(no_args_is_help=True, help="Walk from files to checkpoints and back.")
    group.command("trace")(trace)
    group.command("impact")(impact)
    group.command("verify")(verify)
    group.command("gc")(gc)
    group.command("flush")(flush)
    lineage_erase.register(group)
    app.add_typer(group, name="lineage")


def trace(
    artefact: Annotated[str, typer.Argument(help="A checkpoint's folder, a shard (path or digest) or an example id.")],
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """What an artefact was made from, down to source files with digests.

    Example: omnimill lineage trace runs/demo/runs/demo/checkpoints/step-00000120 --root runs/demo
    """
    from omnimill.training.provenance import trace as walk

    answer = walk(root, artefact)
    if json:
        print_json(answer)
        return
    facts = {key: value for key, value in answer.items() if key not in ("datasets", "sources", "shards")}
    print_table("What it is", ["", ""], [[key, str(value)] for key, value in facts.items()])
    columns = ["dataset", "kind", "rows", "manifest", "run"]
    print_table("Made from", columns, [[one[name] for name in columns] for one in answer["datasets"]])
    print_table("Source files", ["source", "files", "for example", "digest"], list(_file_rows(answer["sources"])))


def _file_rows(sources: list[dict[str, Any]]) -> list[list[Any]]:
    rows = []
    for source in sources:
        for i, file in enumerate(source["files"][:SHOWN_FILES]):
            head = [source["source"], str(len(source["files"]))] if i == 0 else ["", ""]
            rows.append([*head, file["uri"], file["digest"][:16]])
    return rows


def impact(
    query: Annotated[str, typer.Argument(help="A file, URL, content digest or example id.")],
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Every shard, training run and checkpoint that a file or example went into, with the steps that used it.

    Example: omnimill lineage impact runs/demo/input/photos/coffee.png --root runs/demo
    """
    from omnimill.training import audit

    answer = audit.impact(root, query)
    if json:
        print_json(answer)
        return
    for one in answer["rejected"]:
        print(f"{one['dataset']}: {one['key']} was {one['verdict']} by {one['operator']}: {one['reason']}")
    if not answer["examples"]:
        print("No example was made from it, so no training run saw it.")
        return
    print(f"{len(answer['examples'])} examples, in these shards:")
    columns = ["dataset", "source", "shard", "unit"]
    print_table("Shards", columns, [[one[name] for name in columns] for one in answer["shards"]])
    rows = [
        [run["name"], one["checkpoint"], one["step"], one["times_seen"], _steps(run["steps"], one["step"])]
        for run in answer["runs"]
        for one in run["checkpoints"]
    ]
    if not rows:
        print("No training run has read these shards.")
        return
    print_table("Training", ["run", "checkpoint", "at step", "times seen", "at steps"], rows)


def _steps(steps: list[int], before: int) -> str:
    seen = [str(step) for step in steps if step < before]
    return ", ".join(seen[:SHOWN_STEPS]) + (" …" if len(seen) > SHOWN_STEPS else "")


Names = Annotated[list[str] | None, typer.Argument(help="Datasets; all under the root when none is named.")]


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
    """List the files of datasets that no manifest, commit or selection names; delete them with --delete.

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
