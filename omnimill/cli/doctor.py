"""``omnimill doctor``."""

from __future__ import annotations

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(doctor)


def doctor(root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Check versions, GPUs, ffmpeg, disks, object store, the root, the clock, MLflow and Ray; say what to do.

    Exit code 1 when something will not work.

    Example: omnimill doctor --root runs/demo
    """
    from dataclasses import asdict

    from omnimill.infra.doctor import examine, refuse_if_bad

    findings = list(examine(root))
    if json:
        print_json([asdict(one) for one in findings])
    else:
        rows = [[one.check, one.verdict, one.found, one.advice] for one in findings]
        print_table("Findings", ["check", "verdict", "found", "what to do"], rows)
    refuse_if_bad(findings)
