"""How batches are made ready ahead of the training step: what decides speed and memory, and nothing that is learnt."""

from __future__ import annotations

from pathlib import Path

from pydantic import NonNegativeFloat, PositiveInt

from omnimill.config import Config
from omnimill.infra.machine_folder import machine_folder
from omnimill.infra.shard_cache import ShardCache


class LoaderSettings(Config):
    """Of every worker, but for the folder of copies, which all workers of a machine share.

    threads: that read and decode; as many as PyTorch has when not set.
    ahead: steps that are being decoded at a time; one more is ready.
    plan_ahead: steps that are planned before they are decoded; of a remote root, their shards are fetched meanwhile.
    cache_folder: where copies of a remote root's shards lie, on a local disk; below the machine's temporary folder when
        not set. cache_gib: room for them in all; 0: none are kept, rows are read from the store. downloads: at a time.
    """

    threads: PositiveInt | None = None
    ahead: PositiveInt = 2
    plan_ahead: PositiveInt = 16
    cache_folder: Path | None = None
    cache_gib: NonNegativeFloat = 64.0
    downloads: PositiveInt = 4

    def open_cache(self) -> ShardCache | None:
        """The cache of shards that the settings ask for."""
        if not self.cache_gib:
            return None
        folder = self.cache_folder or machine_folder("shards")
        return ShardCache(folder.absolute(), round(self.cache_gib * (1 << 30)), self.downloads)
