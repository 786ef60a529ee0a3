"""``omnimill quarantine``: look at what was turned down, and do it again."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from omnimill.cli.output import DEFAULT_ROOT, Cpus, Json, Root, print_json, print_table
from omnimill.config import load_config
from omnimill.errors import ConfigError

Name = Annotated[str, typer.Argument(metavar="DATASET", help="Name of a dataset under the root.")]
Reason = Annotated[str | None, typer.Option(help="Only records with this reason code.")]
Source = Annotated[str | None, typer.Option(help="Only records of this source.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Records that could not be read: why, where their bytes are, and another try.")
    group.command("show")(show)
    group.command("replay")(replay)
    app.add_typer(group, name="quarantine", no_args_is_help=True)


def show(
    dataset: Name,
    root: Root = DEFAULT_ROOT,
    reason: Reason = None,
    source: Source = None,
    drops: Annotated[bool, typer.Option("--drops", help="What rules turned down instead of what is damaged.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Records shown at most; all are counted.")] = 50,
    manifest: Annotated[str | None, typer.Option(help="Digest of a version; the current one when not given.")] = None,
    json: Json = False,
) -> None:
    """Show quarantined records: reason, message, tries, and where the original bytes lie.

    Example: omnimill quarantine show demo --reason image_truncated --root runs/demo
    """
    from omnimill.infra.dataset import Dataset
    from omnimill.infra.erasures import rejected

    store = Dataset(root, dataset)
    digest, version = store.manifest(manifest)
    reasons: Counter[str] = Counter()
    shown: list[dict[str, Any]] = []
    for commit in version.commits:
        if source not in (None, commit.source):
            continue
        for verdict, table in rejected(store, commit):
            if (verdict == "dropped") != drops:
                continue
            for row in table.to_pylist():
                if reason not in (None, row["reason"]):
                    continue
                reasons[row["reason"]] += 1
                if len(shown) < limit:
                    shown.append(row if drops else _without_bytes(row))
    total = sum(reasons.values())
    if json:
        print_json({"manifest": digest, "total": total, "reasons": dict(sorted(reasons.items())), "records": shown})
        return
    columns = ["source", "key", "operator", "reason", *(["level"] if drops else ["message", "tries"])]
    if shown:
        rows = [[*(row[name] for name in columns), _place(row)] for row in shown]
        print_table(f"{dataset} {digest[:12]}", [*columns, "bytes"], rows)
    what = "dropped records and examples" if drops else "quarantined records"
    print(f"{total} {what}{f', {len(shown)} shown' if len(shown) < total else ''}")
    for name, count in reasons.most_common():
        print(f"  {count:6d}  {name}")


def _without_bytes(row: dict[str, Any]) -> dict[str, Any]:
    data = row.pop("data")
    return {**row, "data_bytes": None if data is None else len(data)}


def _place(row: dict[str, Any]) -> str:
    """Where the bytes are: the file, and the range in it where there is one."""
    if row.get("offset") is None:
        return str(row["uri"])
    return f"{row['uri']} [{row['offset']}:{'' if row['length'] is None else row['offset'] + row['length']}]"


def replay(
    dataset: Name,
    dag: Annotated[str, typer.Argument(metavar="DAG", help="YAML file that the dataset is made with.")],
    root: Root = DEFAULT_ROOT,
    reason: Reason = None,
    source: Source = None,
    cpus: Cpus = None,
    json: Json = False,
) -> None:
    """Do the units again that hold quarantined records, and publish a new version.

    For records that can be read now: a decoder was mended, a site is back. Commits stay as they are; a unit that is
    done again has a commit beside its first one. Of fetched units only the quarantined records are fetched. A changed
    DAG needs no replay, ingest does what it changes.

    Example: omnimill quarantine replay demo pipelines/dags/demo.yaml --reason unreadable_input --root runs/demo
    """
    from omnimill.cli.ingest import answer
    from omnimill.pipelines.dag import Dag
    from omnimill.pipelines.replay import replay as run

    config = load_config(dag, Dag)
    if config.dataset != dataset:
        raise ConfigError(f"{dag} makes dataset {config.dataset!r}, not {dataset!r}")
    result = run(config, root, reason, source, cpus)
    if result is not None:
        answer(result, json)
    elif json:
        print_json({"dataset": dataset, "committed": 0})
    else:
        print("no quarantined record fits, nothing to do")
