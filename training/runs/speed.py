"""What takes the time of a training run that goes on or has ended, as its history tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from omnimill.training.runs.history import TIMING, read_history

RECENT_STEPS = 100
# Shares of a step above which waiting, and steps left out, are worth a word.
_WAITS = 0.1
_SKIPS = 0.01
_PADDED = 0.2


@dataclass(frozen=True)
class Speed:
    """Steps of a run. step_seconds, tokens_per_second: medians; data_wait_share, padding_share: means.

    slowest_step, slowest_seconds: the one that took longest after the first, which also starts things up.
    """

    run: str
    steps: int
    step_seconds: float
    tokens_per_second: float
    data_wait_share: float
    padding_share: dict[str, float]
    slowest_step: int
    slowest_seconds: float
    findings: tuple[str, ...]


def speed(run: Path, recent: int = RECENT_STEPS) -> Speed | None:
    """Look at the last steps of a run; None when it has done none.

    Args:
        recent: so many of them.
    """
    history = read_history(run)
    if not history:
        return None
    lines = history[-recent:]
    seconds = [line[TIMING]["seconds"] for line in lines]
    later = lines[1:] or lines
    slowest = max(later, key=lambda line: line[TIMING]["seconds"])
    found = Speed(
        run=run.name,
        steps=history[-1]["step"] + 1,
        step_seconds=median(seconds),
        tokens_per_second=median(line[TIMING]["tokens_per_second"] for line in lines),
        data_wait_share=fmean(line[TIMING]["data_wait_share"] for line in lines),
        padding_share={
            side: fmean(line["padding_share"][side] for line in lines) for side in lines[0]["padding_share"]
        },
        slowest_step=slowest["step"],
        slowest_seconds=slowest[TIMING]["seconds"],
        findings=(),
    )
    return Speed(**{**vars(found), "findings": tuple(_findings(found, lines))})


def _findings(found: Speed, lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    if found.data_wait_share > _WAITS:
        yield f"{found.data_wait_share:.0%} of the time waits for data: the loader is what is slow"
    else:
        waits = f"{found.data_wait_share:.1%} of the time waits for them"
        yield f"data are there in time ({waits}): the model is what is slow"
    for side, share in found.padding_share.items():
        if share > _PADDED:
            yield f"{share:.0%} of the {side}'s slots are padding"
    skipped = sum(line["skipped"] for line in lines)
    if skipped > _SKIPS * len(lines):
        yield f"{skipped} of {len(lines)} steps changed nothing: their loss or gradient was not finite"
    if found.slowest_seconds > 5 * found.step_seconds:
        yield f"step {found.slowest_step} took {found.slowest_seconds:.1f} s, a usual one {found.step_seconds:.2f} s"
