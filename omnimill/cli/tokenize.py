"""``omnimill tokenizer train|eval|show`` and ``omnimill tokenize``: tokenizers from examples, tokens from examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omnimill.cli.output import DEFAULT_ROOT, Cpus, Json, Root, print_json, print_table
from omnimill.config import load_config

ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file of the tokenizer set.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Train and measure the tokenizers of text, pictures and sound.")
    group.command("train")(train)
    group.command("eval")(evaluate)
    group.command("show")(show)
    app.add_typer(group, name="tokenizer")
    app.command("tokenize")(tokenize)


def train(config: ConfigFile, root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Train a text model, picture codes and sound codes on an example dataset.

    A training that was stopped goes on from its newest checkpoint; a set that the same settings made of the same
    examples is not trained again. Workers and GPUs are set in CONFIG.

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


def evaluate(
    config: ConfigFile,
    root: Root = DEFAULT_ROOT,
    page: Annotated[
        Path | None, typer.Option("--page", help="HTML file to write, with reconstructions side by side.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Measure with these examples instead of the held-out ones.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="Pictures and clips at most, instead of CONFIG's `measured`.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure how well a trained set reconstructs pictures and sound that it has not learnt from.

    PSNR and SSIM of pictures, mel error of sound, and how well the codebooks are used.

    Example: omnimill tokenizer eval tokenizers/configs/demo.yaml --root runs/demo --page runs/demo/eval.html
    """
    from omnimill.tokenizers.config import TokenizerConfig
    from omnimill.tokenizers.evaluate import evaluate as run

    result = run(load_config(config, TokenizerConfig), root, page=page, dataset=dataset, count=count)
    if json:
        print_json(result.as_json())
        return
    rows = [[name.replace("_", " "), value] for name, value in result.quality.items()]
    source = f"{'held-out ' if result.held_out else ''}examples of {result.dataset}"
    print_table(f"Tokenizers {result.name} {result.digest[:12]}", [f"measured on {source}", ""], rows)
    for name, part in result.measured.items():
        if len(part.by_source) > 1:
            columns = list(next(iter(part.by_source.values())))
            rows = [[source, *values.values()] for source, values in part.by_source.items()]
            print_table(f"{name}, by source", ["source", *(column.replace("_", " ") for column in columns)], rows)
    print(f"{result.seconds:.1f} s" + ("" if page is None else f"; look at {page}"))


def show(
    name: Annotated[str, typer.Argument(metavar="CONFIG|SET", help="YAML file, or name of a trained set.")],
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Print every range of ids of a tokenizer set: what the tables of text, image and audio hold.

    Of a configuration whose text model is yet to be trained, the ids are those of its full number of pieces.

    Example: omnimill tokenizer show tokenizers/configs/demo.yaml
    """
    from omnimill.tokenizers.show import vocabulary_of

    tables = [table.as_json() for table in vocabulary_of(name, root).tables.values()]
    if json:
        print_json({"tables": tables})
        return
    for table in tables:
        rows = [
            [
                entry["range"],
                _span(entry["first_id"], entry["last_id"]),
                entry["size"],
                _span(entry["first_index"], entry["last_index"]),
                _span(entry["first_surface"] or "", entry["last_surface"] or ""),
            ]
            for entry in table["ranges"]
        ]
        title = f"{table['table']}: {table['size']:,} ids of {table['rows']:,} rows"
        print_table(title, ["range", "ids", "size", "number", "reads"], rows)


def _span(first: str | int, last: str | int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def tokenize(config: ConfigFile, root: Root = DEFAULT_ROOT, cpus: Cpus = None, json: Json = False) -> None:
    """Tokenize an example dataset: ids, media scaled to the model's canvases, codes, and every length as a column.

    Units that are committed are not done again, so the same command goes on where a stopped run was. When a tokenizer
    has changed, only its columns are made again.

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
    if result.taken_over:
        taken = [
            [part.replace("_", " "), f"{count} of {result.committed}"] for part, count in result.taken_over.items()
        ]
        print_table("Taken over from earlier shards", ["columns", "units"], taken)
    print(f"{result.committed} of {len(result.manifest.commits)} units done in {result.seconds:.1f} s")
