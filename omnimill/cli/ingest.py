"""``omnimill ingest``: raw sources into a dataset of examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnimill.cli.output import DEFAULT_ROOT, Cpus, Json, Root, print_json, print_table
from omnimill.config import load_config

if TYPE_CHECKING:
    from omnimill.pipelines.plan import SourcePlan
    from omnimill.pipelines.summary import IngestResult

DagFile = Annotated[str, typer.Argument(metavar="DAG", help="YAML file with sources and operators.")]
Verify = Annotated[
    bool, typer.Option("--verify-inputs", help="Hash every input file again, also those that look unchanged.")
]
Plan = Annotated[bool, typer.Option("--plan", help="Show the graph and what is left to do; run nothing.")]


def register(app: typer.Typer) -> None:
    app.command("ingest")(ingest)


def ingest(
    dag: DagFile,
    root: Root = DEFAULT_ROOT,
    cpus: Cpus = None,
    plan: Plan = False,
    verify_inputs: Verify = False,
    json: Json = False,
) -> None:
    """Ingest raw sources into clean examples: read, decode, judge, write, commit, unit by unit.

    Units that are committed are not done again, so the same command goes on where a stopped run was.

    Example: omnimill ingest pipelines/dags/demo.yaml --root runs/demo
    """
    from omnimill.pipelines.dag import Dag

    config = load_config(dag, Dag)
    if plan:
        from omnimill.infra.dataset import Dataset
        from omnimill.pipelines.plan import plan as make_plan

        _show_plan(config.dataset, make_plan(config, Dataset(root, config.dataset), verify=verify_inputs), json)
        return
    from omnimill.pipelines.run import ingest as run

    answer(run(config, root, cpus, verify_inputs=verify_inputs), json)


def answer(result: IngestResult, json: bool) -> None:
    """Print what an ingestion came to."""
    if json:
        print_json(result.as_json())
    else:
        _show_result(result)


def _show_plan(dataset: str, plans: list[SourcePlan], json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "source": item.pipeline.name,
            "graph": [item.pipeline.source.type, *(operator.op for operator in item.pipeline.operators), dataset],
            "units": len(item.units),
            "committed": len(item.taken),
            "todo": len(item.todo),
            "input_bytes": item.input_bytes,
            "todo_bytes": item.todo_bytes,
        }
        for item in plans
    ]
    if json:
        print_json({"dataset": dataset, "sources": rows})
        return
    columns = ["source", "graph", "units", "done", "to do", "bytes", "bytes to do"]
    cells = [[" -> ".join(value) if name == "graph" else value for name, value in row.items()] for row in rows]
    print_table(f"Plan for {dataset}", columns, cells)


def _show_result(result: IngestResult) -> None:
    from omnimill.pipelines.summary import table_rows

    columns = ["source", "type", "units", "records", "kept", "dropped", "quarantined", "examples", "examples dropped"]
    print_table(f"{result.dataset.name} {result.digest[:12]}", columns, table_rows(result.sources))
    counts = result.manifest.counts
    reasons = [
        [what, reason, n]
        for what, found in (
            ("record dropped", counts.records_dropped),
            ("record quarantined", counts.quarantined),
            ("example dropped", counts.examples_dropped),
        )
        for reason, n in found.items()
    ]
    if reasons:
        print_table("Reasons", ["what", "reason", "count"], reasons)
    print(f"{result.committed} of {len(result.manifest.commits)} units done in {result.seconds:.1f} s")
