"""``omnimill lineage flush``: what a tracking server could not be told while it was away."""

from __future__ import annotations

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json


def flush(root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Tell the tracking server what earlier commands could not; every command does so when it begins.

    Example: omnimill lineage flush --root runs/demo
    """
    from omnimill.infra.lineage import flush as tell

    told = tell(root)
    if json:
        print_json({"told": told})
    else:
        print(f"{told} messages told." if told else "Nothing waits to be told.")
