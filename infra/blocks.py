"""How units are put into blocks, the pieces that Ray Data hands out."""

from __future__ import annotations

# A block costs the driver about 50 kB and 8 ms, so small units share one: as long as every core gets so many blocks,
# and a block takes no longer than it may take to see that something moves.
_BLOCKS_PER_CORE = 32
_BLOCK_SECONDS = 10.0
_BLOCK_UNITS = 64
_BLOCK_BYTES = 256 << 20
# So many units of each core show how long one takes.
_PROBES_PER_CORE = 8


def probes(units: int, cores: int) -> int:
    """How many units to do one by one before blocks are made of the others; all of them when they are few."""
    return min(units, cores * _PROBES_PER_CORE) if units >= 2 * cores * _BLOCKS_PER_CORE else units


def units_per_block(units: int, unit_seconds: float, cores: int) -> int:
    """How many units a task gets at a time. unit_seconds: what one takes on a core."""
    return _bounded(units, cores, _BLOCK_SECONDS / max(unit_seconds, 1e-3))


def sized_units_per_block(units: int, unit_bytes: float, workers: int) -> int:
    """How many units a worker gets at a time where their size is known, but not yet what they take."""
    return _bounded(units, workers, _BLOCK_BYTES / max(unit_bytes, 1.0))


def _bounded(units: int, workers: int, most: float) -> int:
    return max(1, min(units // (workers * _BLOCKS_PER_CORE), int(most), _BLOCK_UNITS))
