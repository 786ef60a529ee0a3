"""How exactly mixers keep to the rates that are written down, batch by batch and in tokens, on the same small records.

Two mixtures: seven to three, and the tasks of the published pre-training mixture. Contestants are omnimill's sampler,
Ray Data's `Dataset.mix`, litdata and MosaicML Streaming (stratified batches where it can, else random ones). The
packages of the peers do not all install beside ours; they may lie in another virtual environment, whose interpreter
`PEERS_VARIABLE` names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from omnimill.bench.loader import PEERS_VARIABLE
from omnimill.bench.metric import OURS, Metric
from omnimill.bench.mix.peers.mix_protocol import tokens
from omnimill.errors import OmnimillError
from omnimill.mixtures.draw_blocks import next_block
from omnimill.mixtures.loading import load_mixture
from omnimill.mixtures.sampler import Sampler
from omnimill.progress import progress
from omnimill.rng import Floats, Int64s

BATCH, BATCHES, WINDOW = 512, 1200, 1000
PEERS = ("ray_data", "streaming", "litdata")
# Records of the least part.
_LEAST = 64
# Parts are a little larger than what is drawn of them, for mixers that end with the first part that ends.
_SPARE = 1.1
_FOLDER = Path(__file__).parent / "peers"
_PRETRAIN = Path(__file__).parents[3] / "mixtures" / "pretrain.yaml"
_TIMEOUT_SECONDS = 900

# Records and tokens of each part in every batch: int64 [batches, parts] each.
Batches = tuple[Int64s, Int64s]


def run() -> list[Metric]:
    """Mix with every contestant that is there; what is not there is named on the standard error stream."""
    present = [peer for peer in PEERS if _is_there(peer)]
    mixtures = {"7 to 3": [0.7, 0.3], "pre-training": load_mixture(_PRETRAIN).rates}
    metrics = []
    with progress("mix", len(mixtures) * (len(present) + 1), "runs") as advance:
        for name, rates in mixtures.items():
            counts = part_counts(rates)
            found = {OURS: ours(rates, counts)}
            advance(1)
            for peer in present:
                try:
                    found[peer] = _theirs(peer, rates, counts)
                except OmnimillError as error:
                    sys.stderr.write(f"{peer} is left out of {name}: {_reason(error)}\n")
                advance(1)
            metrics += compare(name, rates, counts, found)
    return metrics


def compare(name: str, rates: Sequence[float], counts: Sequence[int], found: dict[str, Batches]) -> list[Metric]:
    """Three figures of every contestant: distance of batches from the rates, of token shares, and mixed batches."""
    means = [float(tokens(part, count).mean()) for part, count in enumerate(counts)]
    share = np.array(rates) / sum(rates)
    wanted = share * means / (share * means).sum()
    return [
        Metric.of(
            f"{name}: furthest of any part in any batch from its rate",
            "records",
            {one: float(np.abs(numbers - share * BATCH).max()) for one, (numbers, _) in found.items()},
            "smallest",
        ),
        Metric.of(
            f"{name}: furthest of any part's tokens in any {WINDOW:,} batches from their share",
            "percentage points",
            {one: 100 * token_error(sums, wanted) for one, (_, sums) in found.items()},
            "smallest",
        ),
        Metric.of(
            f"{name}: batches of more than one part",
            "share",
            {one: float((numbers < BATCH).all(axis=1).mean()) for one, (numbers, _) in found.items()},
            "largest",
        ),
    ]


def token_error(sums: Int64s, wanted: Floats) -> float:
    """Furthest that a part's share of the tokens of any `WINDOW` batches in a row is from what it should be."""
    whole = np.concatenate([np.zeros((1, sums.shape[1]), np.int64), sums.cumsum(axis=0)])
    windows = whole[WINDOW:] - whole[:-WINDOW]
    return float(np.abs(windows / windows.sum(axis=1, keepdims=True) - wanted).max())


def part_counts(rates: Sequence[float]) -> list[int]:
    """Records of every part."""
    return [max(int(rate * BATCH * BATCHES * _SPARE), _LEAST) for rate in rates]


def ours(rates: Sequence[float], counts: Sequence[int]) -> Batches:
    """Batches of one draw of every virtual stream."""
    sampler = Sampler(rates, counts, BATCH, 1)
    streams = range(BATCH)
    draws, _ = next_block(sampler, streams, [sampler.start(stream) for stream in streams], [BATCHES] * BATCH)
    part, row = (np.stack([getattr(one, name) for one in draws], axis=1) for name in ("task", "row"))
    sizes = [tokens(number, count) for number, count in enumerate(counts)]
    numbers, sums = (np.zeros((BATCHES, len(counts)), np.int64) for _ in range(2))
    for number, size in enumerate(sizes):
        own = part == number
        numbers[:, number] = own.sum(axis=1)
        sums[:, number] = np.where(own, size[np.where(own, row, 0)], 0).sum(axis=1)
    return numbers, sums


def _theirs(peer: str, rates: Sequence[float], counts: Sequence[int]) -> Batches:
    with tempfile.TemporaryDirectory(prefix="omnimill-bench-") as folder:
        settings = {"folder": folder, "rates": list(rates), "counts": counts, "batch": BATCH, "batches": BATCHES}
        _ask(peer, "mix", settings)
        with np.load(Path(folder) / "batches.npz") as found:
            return found["numbers"], found["tokens"]


def _is_there(peer: str) -> bool:
    try:
        _ask(peer, "version", {})
    except OmnimillError as error:
        sys.stderr.write(f"{peer} is left out: {_reason(error)}\n")
        return False
    return True


def _reason(error: OmnimillError) -> str:
    return str(error).strip().rsplit("\n", 1)[-1]


def _ask(peer: str, command: str, settings: dict[str, object]) -> None:
    """Run a peer's program; raises OmnimillError when it fails."""
    # Ray is ours as well, at the version that everything else here runs on.
    interpreter = sys.executable if peer == "ray_data" else os.environ.get(PEERS_VARIABLE, sys.executable)
    program = [interpreter, str(_FOLDER / f"{peer}_mix.py"), command, json.dumps(settings)]
    try:
        done = subprocess.run(program, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise OmnimillError(f"{peer}: {command}: nothing after {_TIMEOUT_SECONDS} s") from None
    if done.returncode:
        raise OmnimillError(f"{peer}: {command}: {done.stderr.strip()[-2000:]}")
