"""``omnimill evaluate``: what a checkpoint's answers to held-out cases are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnimill.cli.output import DEFAULT_ROOT, Cpus, Json, Root, print_json, print_table
from omnimill.errors import ConfigError

if TYPE_CHECKING:
    from omnimill.training.metrics.families import Network, NetworkName

_NETWORKS = ("picture_features", "picture_classes", "sound_features", "sound_classes")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("evaluate")(evaluate)


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint's folder, or a run's: its newest checkpoint.")],
    mixture: Annotated[
        str | None, typer.Option("--mixture", help="Mixture file with the tasks; the training's own when not given.")
    ] = None,
    tasks: Annotated[
        str, typer.Option("--tasks", help="Names of tasks, between commas; all held-out ones when not given.")
    ] = "",
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Cases of every task at most.")] = 100,
    decoding: Annotated[
        str | None, typer.Option("--decoding", help="YAML file: how text, pictures and sound are decoded.")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option("--network", help=f"NAME=module:function, for metrics of features; NAME: {', '.join(_NETWORKS)}."),
    ] = None,
    seen_too: Annotated[
        bool, typer.Option("--seen-too", help="Use rows that the training draws, too; they are counted.")
    ] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Cases that are answered at once.")] = 16,
    actors: Annotated[
        int, typer.Option("--actors", min=0, help="Actors on Ray that answer; 0: this process does.")
    ] = 0,
    gpus: Annotated[
        float, typer.Option("--gpus", min=0, help="GPUs of every actor, or of this process; several may share one.")
    ] = 0.0,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of PyTorch, in every process that answers.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file to write the scores to.")] = None,
    root: Root = DEFAULT_ROOT,
    cpus: Cpus = None,
    json: Json = False,
) -> None:
    """Ask a checkpoint held-out cases of tasks, and judge its answers by the metrics of their families.

    Answers are kept under the root: stopped, the same command goes on where it was. Scores go to MLflow too, with the
    checkpoint's model.

    Example: omnimill evaluate runs/demo/runs/demo --root runs/demo --mixture mixtures/demo.yaml --seen-too -n 20
    """
    from omnimill.config import load_config
    from omnimill.mixtures.loading import load_mixture
    from omnimill.training.evaluation.evaluate import evaluate as run
    from omnimill.training.generation.answering import Actors
    from omnimill.training.generation.decoding import Decoding

    result = run(
        root,
        checkpoint,
        load_mixture(mixture) if mixture else None,
        [name.strip() for name in tasks.split(",") if name.strip()],
        count,
        load_config(decoding, Decoding) if decoding else None,
        seen_too=seen_too,
        networks=_networks(network or ()),
        batch=batch,
        actors=Actors(count=actors, num_gpus=gpus, num_cpus=float(threads)),
        threads=threads,
        cpus=cpus,
    )
    found = result.as_json()
    if out is not None:
        _write(out, found)
    if json:
        print_json(found)
        return
    rows: list[list[Any]] = []
    for name, scores in result.tasks.items():
        facts = [name, scores.count, scores.seen]
        rows.append([*facts, "loss", _number(scores.loss), ""])
        rows += [[*facts, one.name, _number(one.value), one.unread or ""] for one in scores.scores]
    print_table(
        f"{result.checkpoint}, {result.digest[:12]}", ["task", "cases", "seen", "metric", "value", "unread"], rows
    )
    print(f"{result.seconds:.1f} s; answers in {result.answers}")


def _networks(given: list[str] | tuple[str, ...]) -> dict[NetworkName, Network]:
    from omnimill.training.evaluation.evaluate import load_network

    found: dict[Any, Network] = {}
    for one in given:
        name, _, where = one.partition("=")
        if name not in _NETWORKS:
            raise ConfigError(f"--network {one}: found name {name!r}; allowed: {', '.join(_NETWORKS)}")
        found[name] = load_network(where)
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _write(path: Path, found: dict[str, Any]) -> None:
    import json

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written: {error.strerror}") from None
