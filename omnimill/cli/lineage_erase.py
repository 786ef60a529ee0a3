"""``omnimill lineage erase`` and ``erasures``: data that must not be used any more, and who asked for that."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table

_SHOWN = 20


def register(group: typer.Typer) -> None:
    """Add the commands to those of lineage."""
    group.command("erase")(erase)
    group.command("erasures")(erasures)


def erase(
    queries: Annotated[
        list[str],
        typer.Argument(
            help="URLs, files, example ids, content digests, domain:NAME, licence:NAME, source:NAME, key:SOURCE/KEY."
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why; recorded with the request.")],
    by: Annotated[str | None, typer.Option(help="Who asked; whoever is logged in when not given.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it is only told what it would mean.")] = False,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Leave rows out of every read from now on, and drop the same records whenever they are ingested again.

    Nothing is rewritten: old checkpoints can still be traced and replayed. Says which checkpoints have learnt from it.

    Example: omnimill lineage erase domain:example.org --reason "its owner asked for it" --root runs/demo
    """
    from dataclasses import asdict

    from omnimill.infra.code_version import user
    from omnimill.training.lineage import erasing

    rules = erasing.rules_of(root, queries)
    request, lost = erasing.erase(root, queries, rules, by or user(), reason) if yes else (None, [])
    impacts = erasing.affected(root, queries)
    told = ("checkpoint", "step", "times_seen", "exact", "made_of_it")
    learnt = [
        {"run": run["name"], **{key: one[key] for key in told}, "steps": run["steps"]}
        for impact in impacts
        for run in impact["runs"]
        for one in run["checkpoints"]
        if one["times_seen"]
    ]
    answer = {
        "erasure": request,
        "rules": rules,
        "examples": sum(impact["examples_count"] for impact in impacts),
        "lost": [asdict(one) for one in lost],
        "retrain": learnt,
    }
    if json:
        print_json(answer)
        return
    _show(answer)


def _show(answer: dict[str, Any]) -> None:
    rules = [[kind, len(values), values[0]] for kind, values in answer["rules"].items()]
    print_table("What is meant", ["by", "values", "for example"], rules)
    if answer["lost"]:
        columns = ["dataset", "kind", "manifest", "current", "rows"]
        print_table("Rows that are left out", columns, [[one[name] for name in columns] for one in answer["lost"]])
    if answer["retrain"]:
        columns = ["run", "checkpoint", "step", "times_seen"]
        rows = [[*(one[name] for name in columns), ", ".join(one["made_of_it"])] for one in answer["retrain"][:_SHOWN]]
        print_table("Checkpoints that have learnt from it", [*columns, "merged or started from it"], rows)
    if answer["erasure"]:
        print(f"Erased, as request {answer['erasure'][:16]}.")
    else:
        print(f"{answer['examples']:,} examples were made from it. Nothing was done: --yes was not given.")


def erasures(root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """List what was asked to be erased: when, by whom, why, and what it means.

    Example: omnimill lineage erasures --root runs/demo
    """
    from omnimill.infra.erasures import register as requests

    found = requests(root).erasures
    if json:
        print_json({"erasures": [{"erasure": digest, **one.model_dump(mode="json")} for digest, one in found.items()]})
        return
    rows = [[one.at, one.by, one.reason, ", ".join(one.queries), digest[:16]] for digest, one in found.items()]
    print_table("Erasures", ["at", "by", "reason", "what", "request"], rows)
