"""``omnimill quarantine``: look at the records that could not be read."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Records that could not be read: why, and where their bytes are.", no_args_is_help=True)
    group.command("show")(show)
    app.add_typer(group, name="quarantine")


def show(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset under the root.")],
    root: Root = DEFAULT_ROOT,
    reason: Annotated[str | None, typer.Option(help="Only records with this reason code.")] = None,
    source: Annotated[str | None, typer.Option(help="Only records of this source.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Records shown at most; all are counted.")] = 50,
    manifest: Annotated[str | None, typer.Option(help="Digest of a version; the current one when not given.")] = None,
    json: Json = False,
) -> None:
    """Show quarantined records with reason, message and where the original bytes lie.

    Example: omnimill quarantine show demo --reason image_truncated --root runs/demo
    """
    from omnimill.infra.dataset import Dataset

    store = Dataset(root, dataset)
    digest, version = store.manifest(manifest)
    reasons: Counter[str] = Counter()
    shown: list[dict[str, Any]] = []
    for commit in version.commits:
        if commit.quarantine is None or source not in (None, commit.source):
            continue
        for row in store.read(commit.quarantine, "quarantine").to_pylist():
            if reason not in (None, row["reason"]):
                continue
            reasons[row["reason"]] += 1
            if len(shown) < limit:
                data = row.pop("data")
                shown.append({**row, "data_bytes": None if data is None else len(data)})
    total = sum(reasons.values())
    if json:
        print_json({"manifest": digest, "total": total, "reasons": dict(sorted(reasons.items())), "records": shown})
        return
    columns = ["source", "key", "operator", "reason", "message", "uri"]
    if shown:
        print_table(f"{dataset} {digest[:12]}", columns, [[row[name] for name in columns] for row in shown])
    print(f"{total} quarantined records{f', {len(shown)} shown' if len(shown) < total else ''}")
    for name, count in reasons.most_common():
        print(f"  {count:6d}  {name}")
