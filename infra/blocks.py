"""How units are put into blocks, the pieces that Ray Data hands out."""

from __future__ import annotations

# A block costs the driver about 50 kB and 8 ms, so small units share one: as long as every core gets so many blocks,
# and a block's input stays so small that it takes seconds.
_BLOCKS_PER_CORE = 32
_BLOCK_BYTES = 64 << 20
_BLOCK_UNITS = 64


def units_per_block(units: int, mean_bytes: int, cores: int) -> int:
    """How many units a task gets at a time. mean_bytes: of input per unit."""
    by_share = units // (max(cores, 1) * _BLOCKS_PER_CORE)
    return max(1, min(by_share, _BLOCK_BYTES // max(mean_bytes, 1), _BLOCK_UNITS))
