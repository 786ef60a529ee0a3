"""Packed batches of sequences for decoder-only backbones, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from omnimill.rng import generator
from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.loading.batch import DecoderModality, PackedBatch
from omnimill.training.loading.collate import collate
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.pairs import Rendered, Target, line_positions, shift_right

# Ids from here on are picture codes.
FIRST_CODE = 40
ROWS = 64

TINY = DecoderConfig(
    width=32, heads=2, head_width=16, mlp=48, layers=3, rows=ROWS, image_ids=((FIRST_CODE, ROWS),), max_positions=64
)


def example(length: int, *seed: int | str, pictures: bool = True) -> Rendered:
    """An example of random ids: text, then codes, then text again."""
    rng = generator("sequence", length, *seed)
    ids = rng.integers(3, FIRST_CODE, length)
    drawn = np.zeros(length, bool)
    if pictures:
        drawn[length // 3 : 2 * length // 3] = True
    ids[drawn] = rng.integers(FIRST_CODE, ROWS, int(drawn.sum()))
    inputs, places = shift_right(ids, 0), line_positions(length)
    edges = [0, length // 3, 2 * length // 3, length] if pictures else [0, length]
    targets = [
        Target(
            DecoderModality.IMAGE if drawn[a] else DecoderModality.TEXT,
            inputs[a:b],
            ids[a:b],
            np.ones(b - a, np.float32),
            np.zeros(b - a, np.bool_),
            places[a:b],
        )
        for a, b in pairwise(edges)
        if b > a
    ]
    empty = np.empty(0, np.int64)
    return Rendered(0, empty, {}, empty, line_positions(0), targets[0], tuple(targets[1:]))


def batch_of(sequences: Sequence[Sequence[Rendered]], room: int) -> PackedBatch:
    """A batch as the loader lays it out, with `room` slots for each sequence."""
    return collate(sequences, Budgets(encoder=1, decoder=room))


def ids_and_positions(one: Rendered) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs int64 [1, D] and positions float32 [1, D, 2] of one example by itself."""
    ids = np.concatenate([target.ids for target in one.targets])
    places = np.concatenate([target.positions for target in one.targets])
    return torch.from_numpy(ids)[None], torch.from_numpy(places)[None]
