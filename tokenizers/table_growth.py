"""Embedding matrices of tables that grew: the rows of old ids stay, to the bit."""

from __future__ import annotations

import torch

from omnimill.errors import OmnimillError
from omnimill.rng import generator
from omnimill.tokenizers.token_table import TokenTable


def grow_rows(
    weight: torch.Tensor, old: TokenTable, new: TokenTable, seed: int = 0, mean_of: str | None = None
) -> torch.Tensor:
    """The matrix of a table that extends another.

    Args:
        weight: [old.rows, …], of a floating type.
        old, new: the tables. Rows of ids that were in use before are those of `weight`.
        seed: of new rows. Each is drawn from (seed, table, id), normal around 0 with the standard deviation of the old
            rows in use, so a row does not depend on how many others are added.
        mean_of: kind of token whose old rows' mean the new rows get instead.

    Returns:
        [new.rows, …] of the same type on the same device.

    Raises:
        OmnimillError: some old id means something else in the new table, the matrix is not the old table's, or there
            are no tokens to take the mean of.
    """
    if not new.extends(old):
        raise OmnimillError(
            f"the {new.name} table of {new.size} ids does not keep the ids of the one of {old.size}; say in "
            "layout.vocabulary.growth what was added"
        )
    if weight.shape[0] != old.rows:
        raise OmnimillError(f"the {old.name} table has {old.rows} rows, found a matrix of {tuple(weight.shape)}")
    used = weight[: old.size]
    grown = torch.empty((new.rows, *weight.shape[1:]), dtype=weight.dtype, device=weight.device)
    grown[: old.size] = used
    if mean_of is None:
        deviation = float(used.double().std())
        shape = tuple(weight.shape[1:])
        for token in range(old.size, new.rows):
            drawn = generator("table_growth", seed, new.name, token).normal(0.0, deviation, shape)
            grown[token] = torch.from_numpy(drawn).to(weight)
        return grown
    ids = [block.id(i) for block in old.ranges if block.name == mean_of for i in range(block.first, block.last + 1)]
    if not ids:
        raise OmnimillError(f"the {old.name} table has no tokens {mean_of!r} to take the mean of")
    grown[old.size :] = used[ids].double().mean(dim=0).to(weight)
    return grown
