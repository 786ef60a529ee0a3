"""How well packed sequences are filled: slots that are used, as a share of what no packing can do without.

Three recorded mixtures (`omnimill.bench.packing.recorded`) under the reference's two budgets (864 and 1280 tokens;
1024 and 1280 when instruction tuning) and under one budget for encoder and decoder tokens together, as a decoder-only
model has it. Ours is measured as streams that the loader packs with the pool it has by default, and over a window of
10,000 examples that is packed to the last one. Peers: the reference's pairs, next-fit, and grain's first-fit over 256
bins, which may lie in another environment (see `omnimill.bench.loader`). All get the same examples.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omnimill.bench.loader import PEERS_VARIABLE
from omnimill.bench.metric import OURS, Metric
from omnimill.bench.packing.baselines import Costs, next_fit, reference_pairs
from omnimill.bench.packing.bounds import lower_bound
from omnimill.bench.packing.recorded import NAMES, budgets_of, load, stream
from omnimill.errors import OmnimillError
from omnimill.progress import progress
from omnimill.rng import Int64s
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.packing.streams import Packed, no_loads, pack
from omnimill.training.packing.window import pack_window
from omnimill.training.planning.lengths import Budgets

TOTALS = (2048, 4096, 8192)
WINDOW = 10_000
_STREAMS, _OF_STREAM, _PEER_EXAMPLES, _BINS = 16, 5000, 20_000, 256
_GRAIN = Path(__file__).parent / "peers" / "grain_packing.py"
_TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Case:
    """Costs of examples to pack under budgets: as streams (int64 [budgets, V, C]) and as a window (int64 [budgets, n]).

    tokens: how many of the budgets are of tokens; peers and the bound look at these alone.
    """

    name: str
    budgets: Budgets
    streams: Int64s
    window: Int64s
    tokens: int

    @property
    def limits(self) -> tuple[int, ...]:
        return self.budgets.limits[: self.tokens]


@dataclass(frozen=True)
class Result:
    """Sequences, the least that these examples need, and microseconds of processor time an example."""

    sequences: int
    bound: int
    cost: float

    @property
    def share(self) -> float:
        return self.bound / self.sequences


def run() -> list[Metric]:
    """Pack all cases; a peer that is not there is named on the standard error stream."""
    every = cases()
    metrics, repeated = [], True
    with progress("packing", len(every), "cases") as advance:
        for case in every:
            results = {OURS: ours(case), **peers(case)}
            window = ours_in_a_window(case)
            repeated = repeated and _alone(case) == _together(case)
            share = {name: result.share for name, result in results.items()}
            cost = {name: result.cost for name, result in results.items()}
            metrics += [
                Metric.of(f"{case.name}: bound over used", "share", share, "largest", ceiling=1.0),
                Metric.of(
                    f"{case.name}, window: bound over used", "share", {OURS: window.share}, "largest", ceiling=1.0
                ),
                Metric.of(f"{case.name}: time", "us an example", cost, "smallest"),
                Metric.of(f"{case.name}, window: time", "us an example", {OURS: window.cost}, "smallest"),
            ]
            advance(1)
    same = Metric.of("streams that are packed alone as together", "share", {OURS: float(repeated)}, "largest")
    whole = Metric.of("examples placed whole, once, within the budgets", "share", {OURS: 1.0}, "largest")
    return [*metrics, same, whole]


def cases(of_stream: int = _OF_STREAM, window: int = WINDOW) -> list[Case]:
    """All mixtures under all budgets."""
    found = []
    for name in NAMES:
        streams, recorded = stream(name, _STREAMS * of_stream).reshape(-1, _STREAMS, of_stream), load(name)[:, :window]
        budgets = budgets_of(name)
        found.append(Case(f"{name}, {budgets.encoder}/{budgets.decoder}", budgets, streams, recorded, 2))
        for total in TOTALS:
            both = Budgets(encoder=total, decoder=total, images=0, image_history=0, audio=0)
            found.append(Case(f"{name}, {total}", both, _in_all(streams), _in_all(recorded), 1))
    return found


def _in_all(costs: Int64s) -> Int64s:
    """Tokens of encoder and decoder under one budget; nothing under the others."""
    found = np.zeros_like(costs)
    found[0] = costs[:2].sum(axis=0)
    return found


def ours(case: Case) -> Result:
    """The loader's streams, as far as whole sequences go."""
    started = time.process_time()
    packed = _together_packed(case)
    seconds = time.process_time() - started
    ends = [own[:count] for own, count in zip(packed.ends, packed.sequences, strict=True)]
    every = [(case.streams[:, one], packed.order[one, : own[-1]], own) for one, own in enumerate(ends)]
    return _result(case, every, seconds)


def ours_in_a_window(case: Case) -> Result:
    """One window, all of it."""
    started = time.process_time()
    packed = pack_window(case.window, case.budgets)
    seconds = time.process_time() - started
    if len(packed.order) != case.window.shape[1]:
        raise OmnimillError(f"{case.name}: examples of the window were lost")
    return _result(case, [(case.window, packed.order, packed.ends)], seconds)


def _result(case: Case, packed: list[tuple[Int64s, Int64s, Int64s]], seconds: float) -> Result:
    """Counts over costs (int64 [budgets, C]) with their order and ends, once every sequence has been looked at.

    Raises:
        OmnimillError: a budget is exceeded, or an example is placed twice.
    """
    limits, placed = np.array(case.budgets.limits)[:, None], []
    for costs, order, ends in packed:
        used = np.add.reduceat(costs[:, order], np.append(0, ends[:-1]), axis=1)
        if (used > limits).any() or len(np.unique(order)) != len(order):
            raise OmnimillError(f"{case.name}: a sequence is overfull or an example is placed twice")
        placed.append(costs[: case.tokens, order])
    every = np.concatenate(placed, axis=1)
    bound = lower_bound(every, case.limits)
    return Result(sum(len(ends) for _, _, ends in packed), bound, seconds / every.shape[1] * 1e6)


def _together_packed(case: Case) -> Packed:
    _, streams, count = case.streams.shape
    draws = np.broadcast_to(np.arange(count), (streams, count))
    settings = PackingSettings(budgets=case.budgets)
    available, none = np.full(streams, count), np.zeros(streams, np.int64)
    return pack(case.streams, draws, available, none, none, settings, count, no_loads(streams))


def _together(case: Case) -> list[int]:
    """Order of the first stream, packed with the others."""
    found: list[int] = _together_packed(case).order[0].tolist()
    return found


def _alone(case: Case) -> list[int]:
    """The same, packed by itself."""
    return _together(Case(case.name, case.budgets, case.streams[:, :1], case.window, case.tokens))


def peers(case: Case) -> dict[str, Result]:
    """What the peers make of the first examples of the streams."""
    count = min(_PEER_EXAMPLES, case.streams[0].size)
    costs = case.streams[: case.tokens].reshape(case.tokens, -1)[:, :count]
    examples: list[Costs] = list(zip(*costs.tolist(), strict=True))
    bound = lower_bound(costs, case.limits)

    def measured(packer: Callable[[], int]) -> Result:
        started = time.process_time()
        sequences = packer()
        return Result(sequences, bound, (time.process_time() - started) / count * 1e6)

    found = {
        "reference_pairs": measured(lambda: _paired(examples, case.limits)),
        "next_fit": measured(lambda: next_fit(examples, case.limits)),
    }
    try:
        sequences, seconds = _grain(costs, case.limits)
    except OmnimillError as error:
        sys.stderr.write(f"grain is left out: {str(error).strip().rsplit(chr(10), 1)[-1]}\n")
    else:
        found["grain_first_fit"] = Result(sequences, bound, seconds / count * 1e6)
    return found


def _paired(examples: list[Costs], limits: Costs) -> int:
    """Sequences of the reference's pairs; what is left in the pool goes alone."""
    pairs, left = reference_pairs(examples, limits)
    return len(pairs) + len(left)


def _grain(costs: Int64s, limits: Costs) -> tuple[int, float]:
    """Sequences and seconds of grain's first-fit; raises OmnimillError when it cannot be run."""
    interpreter = os.environ.get(PEERS_VARIABLE, sys.executable)
    with tempfile.TemporaryDirectory(prefix="omnimill-bench-") as folder:
        file = Path(folder) / "costs.npy"
        np.save(file, costs)
        settings = json.dumps({"costs": str(file), "limits": limits, "bins": _BINS})
        program = [interpreter, str(_GRAIN), settings]
        done = subprocess.run(program, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    if done.returncode:
        raise OmnimillError(done.stderr[-2000:])
    answer = json.loads(done.stdout)
    if not math.isfinite(answer["seconds"]):
        raise OmnimillError(f"grain answered {answer}")
    return int(answer["sequences"]), float(answer["seconds"])
