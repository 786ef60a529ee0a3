"""``omnimill tokenizer train`` and ``omnimill tokenize``: tokenizers from examples, tokens from examples."""

from __future__ import annotations

from typing import Annotated

import typer

from omnimill.cli.output import DEFAULT_ROOT, Cpus, Json, Root, print_json, print_table
from omnimill.config import load_config

ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file of the tokenizer set.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Train the tokenizers of text, pictures and sound.")
    group.command("train")(train)
    app.add_typer(group, name="tokenizer")
    app.command("tokenize")(tokenize)


def train(config: ConfigFile, root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Train a text model, picture codes and sound codes on an example dataset.

    A set that the same settings made of the same examples is not trained again.

    Example: omnimill tokenizer train tokenizers/configs/demo.yaml --root runs/demo
    """
    from omnimill.tokenizers.config import TokenizerConfig
    from omnimill.tokenizers.train import train_tokenizers

    result = train_tokenizers(load_config(config, TokenizerConfig), root)
    if json:
        print_json(result.as_json())
        return
    rows = [[name.replace("_", " "), value] for name, value in result.stored.made.quality.items()]
    print_table(f"Tokenizers {result.name} {result.stored.digest[:12]}", ["measured on held-out examples", ""], rows)
    print(f"{'trained before' if result.reused else 'trained'}; {result.seconds:.1f} s")


def tokenize(config: ConfigFile, root: Root = DEFAULT_ROOT, cpus: Cpus = None, json: Json = False) -> None:
    """Tokenize an example dataset: ids, media scaled to the model's canvases, codes, and every length as a column.

    Units that are committed are not done again, so the same command goes on where a stopped run was.

    Example: omnimill tokenize tokenizers/configs/demo.yaml --root runs/demo
    """
    from omnimill.tokenizers.config import TokenizerConfig
    from omnimill.tokenizers.run import tokenize as run

    result = run(load_config(config, TokenizerConfig), root, cpus)
    if json:
        print_json(result.as_json())
        return
    counts = result.manifest.counts
    rows = [[counts.records_in, counts.kept, sum(counts.quarantined.values())]]
    print_table(f"{result.dataset.name} {result.digest[:12]}", ["examples in", "tokenized", "quarantined"], rows)
    if counts.quarantined:
        print_table("Quarantined", ["reason", "count"], [[reason, n] for reason, n in counts.quarantined.items()])
    print(f"{result.committed} of {len(result.manifest.commits)} units done in {result.seconds:.1f} s")
