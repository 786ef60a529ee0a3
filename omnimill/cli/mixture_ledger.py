"""``omnimill mixture ledger``: what held when in a run, and the proof that nothing was skipped or repeated."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table


def ledger(
    run: Annotated[str, typer.Argument(help="Name of the run, or its folder.")],
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Print a run's ledger and check it: the run is planned again, from lengths alone, up to its newest checkpoint.

    Exit status 1 when an example was skipped or repeated, or a decision of online mixing does not follow from its
    losses.

    Example: omnimill mixture ledger demo --root runs/demo
    """
    from dataclasses import asdict
    from pathlib import Path

    from omnimill.training.checkpoints.checkpoint import run_folder
    from omnimill.training.lineage.proof import describe, prove

    folder = Path(run) if Path(run).is_dir() else run_folder(root, run)
    held, proof = prove(folder, root)
    entries = describe([one.entry for one in held])
    if json:
        print_json({"run": folder.name, "entries": entries, "proof": asdict(proof)})
    else:
        rows = [_row(entry, before) for entry, before in zip(entries, [None, *entries], strict=False)]
        print_table(f"ledger of {folder.name}", ["from step", "what", "draws by then"], rows)
        print(
            f"{proof.steps:,} steps of {proof.streams} streams planned again: {proof.draws:,} draws, {proof.placed:,} "
            f"trained on, {proof.pending:,} pending, {proof.void:,} passed over as left out by a selection"
        )
        print("\n".join(proof.faults) if proof.faults else "nothing was skipped, nothing was repeated")
    if proof.faults:
        raise typer.Exit(1)


def _row(entry: dict[str, Any], before: dict[str, Any] | None) -> list[Any]:
    if entry["kind"] == "update":
        strongest = sorted(entry["weights"].items(), key=lambda item: -item[1])[:3]
        weights = ", ".join(f"{name} x {weight:.3f}" for name, weight in strongest)
        return [entry["step"], f"weights decided after {entry['decided']} updates: {weights}", ""]
    what = f"mixture {entry['mixture'][:12]}, {len(entry['rates'])} tasks"
    for name, digest in entry["datasets"].items():
        what += f"\n{name} {digest[:12]}"
    for name, digest in entry["selections"].items():
        what += f"\nwithout {name} {digest[:12]}"
    if entry["erasures"]:
        what += f"\nwithout what {len(entry['erasures'])} requests erased"
    if entry["online"]:
        what += f"\nonline mixing by {entry['online']}"
    if before is not None and before["kind"] == "change":
        what += "".join(f"\n{line}" for line in _rates(before["rates"], entry["rates"]))
    return [entry["step"], what, entry["draws"]]


def _rates(before: dict[str, float], now: dict[str, float]) -> list[str]:
    names = sorted(before.keys() | now.keys(), key=lambda name: -abs(now.get(name, 0) - before.get(name, 0)))
    changed = [name for name in names if before.get(name, 0) != now.get(name, 0)]
    return [f"{name}: {before.get(name, 0):.3%} -> {now.get(name, 0):.3%}" for name in changed[:10]]
