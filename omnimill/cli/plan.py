"""``omnimill plan``: what ingesting whole sources takes on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table
from omnimill.config import load_config
from omnimill.errors import ConfigError, OmnimillError
from omnimill.progress import console

if TYPE_CHECKING:
    from omnimill.pipelines.dag import Dag
    from omnimill.pipelines.forecast import Forecast, Rate

Dags = Annotated[list[str], typer.Argument(metavar="DAG...", help="YAML files with sources and operators.")]
ClusterFile = Annotated[
    str | None, typer.Option("--cluster", help="YAML file with the nodes; 8 nodes of 64 cores, 256 GiB if not given.")
]
RatesFile = Annotated[
    str | None, typer.Option("--rates", help="YAML file with stated rates; they go before measured ones.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("plan")(plan)


def plan(
    dags: Dags, root: Root = DEFAULT_ROOT, cluster: ClusterFile = None, rates: RatesFile = None, json: Json = False
) -> None:
    """Tell what ingesting takes: hours, units, storage, memory of the driver, from what committed units took.

    Ingest a slice of a source first (`include`). DAGs named like a source of the reference's corpus are told for its
    published number of examples, others for all that their sources list.

    Example: omnimill plan pipelines/dags/demo.yaml --root runs/demo
    """
    from omnimill.pipelines.dag import Dag
    from omnimill.pipelines.forecast import Cluster, NodeGroup, Rates, forecast, total

    machines = (
        load_config(cluster, Cluster) if cluster else Cluster(nodes=(NodeGroup(count=8, cores=64, memory_gib=256),))
    )
    stated = load_config(rates, Rates).rates if rates else {}
    rows: list[Forecast] = []
    missing: list[str] = []
    for config in (load_config(path, Dag) for path in dags):
        for source, examples, rate in _sources(config, root, stated):
            if rate is None or examples is None:
                missing.append(source)
            else:
                rows.append(forecast(source, examples, rate, machines))
    if missing:
        console.print(f"no units committed and no rate given, left out: {', '.join(missing)}", soft_wrap=True)
    if not rows:
        raise OmnimillError(f"nothing to go by: no unit of these DAGs is committed under {root}, and no rate was given")
    if json:
        answer = {"cluster": {"cores": machines.cores, "gpus": machines.gpus}, "left_out": missing}
        print_json({**answer, "sources": [asdict(row) for row in rows], "total": asdict(total(rows))})
        return
    print_table(
        f"On {machines.cores} cores, {machines.gpus} GPUs",
        ["source", "examples", "units", "read", "stored", "manifest", "driver", "core hours", "hours", "bound by"],
        [_cells(row) for row in [*rows, total(rows)]],
    )
    for row in rows:
        if not row.fits:
            print(f"{row.source}: workers took more memory than a core has; run it with fewer cores a node")


def _sources(dag: Dag, root: str, stated: dict[str, Rate]) -> Iterator[tuple[str, int | None, Rate | None]]:
    """The sources of a DAG: name, examples in all, rate; None for what nothing tells."""
    from omnimill.infra.dataset import Dataset
    from omnimill.pipelines.corpus import corpus
    from omnimill.pipelines.forecast import measure
    from omnimill.pipelines.plan import plan as make_plan

    stored = Dataset(root, dag.dataset).commits()
    published = corpus().get(dag.dataset)
    if published is not None:
        yield dag.dataset, published.examples, stated.get(dag.dataset) or measure(stored)
        return
    names = {pipeline.name: f"{dag.dataset}/{pipeline.name}" for pipeline in dag.sources}
    rates = {
        name: stated.get(full) or measure([one for one in stored if one[0].source == name])
        for name, full in names.items()
    }
    try:
        plans = {item.pipeline.name: item for item in make_plan(dag, Dataset(root, dag.dataset))}
    except (OmnimillError, OSError) as error:
        raise ConfigError(f"{dag.dataset} is no source of the corpus, and cannot be listed: {error}") from error
    for name, full in names.items():
        rate = rates[name]
        yield full, None if rate is None else round(len(plans[name].units) * rate.examples_per_unit), rate


def _cells(row: Forecast) -> list[str]:
    return [
        row.source,
        f"{row.examples:,}",
        f"{row.units:,}",
        *(_bytes(n) for n in (row.input_bytes, row.stored_bytes, row.manifest_bytes, row.driver_bytes)),
        _hours(row.core_hours),
        _hours(row.hours),
        row.bound,
    ]


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} PB"
