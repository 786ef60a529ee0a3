"""``omnimill plan``: how long whole sources take on a cluster, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table
from omnimill.config import load_config
from omnimill.errors import ConfigError, OmnimillError
from omnimill.progress import console

if TYPE_CHECKING:
    from omnimill.infra.planning.forecast import Costs, Forecast
    from omnimill.infra.planning.machines import Cluster, Stage
    from omnimill.infra.planning.rates import Rate, Rates, TrainRate
    from omnimill.infra.planning.simulation import Scenario
    from omnimill.infra.planning.sweep import Simulated
    from omnimill.pipelines.dag import Dag

Dags = Annotated[list[str], typer.Argument(metavar="DAG...", help="YAML files with sources and operators.")]
ClusterFile = Annotated[
    str | None,
    typer.Option("--cluster", help="YAML file with nodes and prices; 8 nodes of 64 cores, 256 GiB if not given."),
]
RatesFile = Annotated[
    str | None, typer.Option("--rates", help="YAML file with stated rates; they go before measured ones.")
]
ScenarioFile = Annotated[
    str | None, typer.Option("--simulate", help="YAML file with failures of machines and sizes of units to simulate.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("plan")(plan)


@dataclass(frozen=True)
class _Row:
    """A line of the plan, and what it was told from."""

    forecast: Forecast
    rate: Rate | None = None


def plan(
    dags: Dags,
    root: Root = DEFAULT_ROOT,
    cluster: ClusterFile = None,
    rates: RatesFile = None,
    simulate: ScenarioFile = None,
    json: Json = False,
) -> None:
    """Tell what ingesting, deduplicating, tokenizing and training take: hours, money, units, storage, memory.

    Rates come from committed units, so ingest (and tokenize) a slice of a source first (`include`), or from `--rates`.
    DAGs named like a source of the reference's corpus are told for its published number of examples, others for all
    that their sources list. `--simulate` adds what failing machines do to it.

    Example: omnimill plan pipelines/dags/demo.yaml --root runs/demo
    """
    from omnimill.infra.planning.forecast import costs, forecast_training, total
    from omnimill.infra.planning.machines import STAGES, Cluster, NodeGroup
    from omnimill.infra.planning.rates import Rates
    from omnimill.infra.planning.simulation import Scenario
    from omnimill.pipelines.dag import Dag

    machines = (
        load_config(cluster, Cluster) if cluster else Cluster(nodes=(NodeGroup(count=8, cores=64, memory_gib=256),))
    )
    stated = load_config(rates, Rates) if rates else Rates()
    scenario = load_config(simulate, Scenario) if simulate else None
    rows: list[_Row] = []
    missing: list[str] = []
    for config in (load_config(path, Dag) for path in dags):
        for found in _sources(config, root, stated, machines):
            if isinstance(found, str):
                missing.append(found)
            else:
                rows.append(found)
    rows.sort(key=lambda row: STAGES.index(row.forecast.stage))
    if stated.train is not None:
        rows.append(_Row(forecast_training(stated.train, _tokens_per_second(stated.train, root), machines)))
    if missing:
        console.print(f"no units committed and no rate given, left out: {', '.join(missing)}", soft_wrap=True)
    if not rows:
        raise OmnimillError(f"nothing to go by: no unit of these DAGs is committed under {root}, and no rate was given")
    everything, forecasts = machines.everything, [row.forecast for row in rows]
    money = costs(forecasts, machines)
    simulated = _swept(rows, machines, scenario) if scenario else []
    if json:
        answer: dict[str, Any] = {"cluster": {"cores": everything.cores, "gpus": everything.gpus}, "left_out": missing}
        answer |= {"sources": [asdict(row) for row in forecasts], "total": asdict(total(forecasts))}
        answer |= {"costs": {**asdict(money), "total": money.total, "currency": machines.currency}}
        print_json(answer | ({"simulated": [asdict(one) for one in simulated]} if scenario else {}))
        return
    print_table(
        f"On {everything.count} machines, {everything.cores} cores, {everything.gpus} GPUs",
        ["source", "stage", "examples", "units", "read", "stored", "core hours", "GPU hours", "hours", "bound by"],
        [_cells(row) for row in [*forecasts, total(forecasts)]],
    )
    _print_driver(total(forecasts))
    _print_costs(money, machines.currency)
    if simulated:
        _print_simulated(simulated)
    for row in forecasts:
        if not row.fits:
            print(f"{row.source}: workers took more memory than a core has; run it with fewer cores a node")


def _sources(dag: Dag, root: str, stated: Rates, cluster: Cluster) -> Iterator[_Row | str]:
    """The sources of a DAG at every stage that something is known of; the name of one without a rate of ingestion."""
    from omnimill.infra.dataset import Dataset
    from omnimill.infra.planning.forecast import forecast
    from omnimill.infra.planning.rates import measure
    from omnimill.pipelines.corpus import corpus

    published = corpus().get(dag.dataset)
    ingested, tokenized = Dataset(root, dag.dataset).commits(), _tokenized(root, dag.dataset)
    group = published.group if published else None
    names = {dag.dataset: None} if published else {f"{dag.dataset}/{one.name}": one.name for one in dag.sources}
    units = {} if published else _listed(dag, root)
    for full, name in names.items():
        stored: dict[Stage, Any] = {"ingest": ingested, "dedup": [], "tokenize": tokenized}
        rates = {
            stage: stated.stated(stage, full, group)
            or measure([one for one in commits if name is None or one[0].source == name])
            for stage, commits in stored.items()
        }
        of_ingestion = rates["ingest"]
        if of_ingestion is None:
            yield full
            continue
        examples = published.examples if published else round(units[name or ""] * of_ingestion.examples_per_unit)
        for stage, rate in rates.items():
            if rate is not None:
                yield _Row(forecast(full, stage, examples, rate, cluster), rate)


def _listed(dag: Dag, root: str) -> dict[str, int]:
    """How many units each source lists."""
    from omnimill.infra.dataset import Dataset
    from omnimill.pipelines.plan import plan as make_plan

    try:
        return {item.pipeline.name: len(item.units) for item in make_plan(dag, Dataset(root, dag.dataset))}
    except (OmnimillError, OSError) as error:
        raise ConfigError(f"{dag.dataset} is no source of the corpus, and cannot be listed: {error}") from error


def _tokenized(root: str, dataset: str) -> Sequence[Any]:
    """Commits of the current versions of token datasets made from a dataset."""
    from omnimill.infra.verify import datasets

    found: list[Any] = []
    for one in datasets(root):
        try:
            manifest = one.manifest()[1]
        except OmnimillError:
            continue  # nothing of it is published
        if manifest.kind == "tokens" and dataset in manifest.parents:
            found += one.commits()
    return found


def _tokens_per_second(rate: TrainRate, root: str) -> float:
    """What a worker trains on in a second: stated, or the median of a run over all that it has done."""
    if rate.tokens_per_second is not None:
        return rate.tokens_per_second
    from omnimill.training.checkpoints.checkpoint import newest, read_record, run_folder
    from omnimill.training.runs.history import TIMING, read_history

    run = run_folder(root, rate.run or "")
    folder, history = newest(run), read_history(run)
    if folder is None or not history:
        raise OmnimillError(f"no checkpoint of a run {rate.run!r} under {root} to take the speed of training from")
    return float(median(line[TIMING]["tokens_per_second"] for line in history)) / read_record(folder).config.workers


def _swept(rows: Sequence[_Row], cluster: Cluster, scenario: Scenario) -> list[Simulated]:
    from omnimill.infra.planning.sweep import Planned, sweep

    planned = [Planned(row.forecast, row.rate) for row in rows if row.rate is not None]
    training = next((row.forecast.hours for row in rows if row.forecast.stage == "train"), None)
    return sweep(planned, cluster, scenario, training)


def _cells(row: Forecast) -> list[str]:
    return [
        row.source,
        "" if row.source == "total" else row.stage,
        f"{row.examples:,}",
        f"{row.units:,}",
        _bytes(row.input_bytes),
        _bytes(row.stored_bytes),
        _hours(row.core_hours),
        _hours(row.gpu_hours),
        _hours(row.hours),
        row.bound,
    ]


def _print_driver(row: Forecast) -> None:
    print(
        f"The driver takes up to {_bytes(row.driver_bytes)} of memory and {_bytes(row.object_store_bytes)} of its "
        f"node's object store, for one dataset at a time; manifests are {_bytes(row.manifest_bytes)} in all."
    )


def _print_costs(money: Costs, currency: str) -> None:
    lines: list[tuple[str, float | None]] = [(f"machines, {stage}", cost) for stage, cost in money.compute.items()]
    lines += [(f"storage, {money.months:.1f} months", money.storage), ("files written", money.writes)]
    lines += [("raw data read", money.egress), ("total of what has a price", money.total)]
    if any(cost is not None for _, cost in lines[:-1]):
        told = [
            [name, "no price stated" if cost is None else f"{cost:,.0f} {currency}".strip()] for name, cost in lines
        ]
        print_table("Costs", ["of", "cost"], told)


def _print_simulated(simulated: Sequence[Simulated]) -> None:
    columns = ["units of", "machine fails every", "retries", "hours", "failures", "wasted", "away", "again", "given up"]
    print_table(
        "With machines that fail (hours wasted and away are those of cores)",
        columns,
        [
            [
                one.at_once,
                "never" if one.mtbf_hours is None else f"{one.mtbf_hours:g} h",
                "" if one.retries is None else one.retries,
                "does not end" if one.hours is None else _hours(one.hours),
                one.failures,
                _hours(one.wasted_hours),
                _hours(one.away_hours),
                one.again,
                one.given_up,
            ]
            for one in simulated
        ],
    )


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} PB"
