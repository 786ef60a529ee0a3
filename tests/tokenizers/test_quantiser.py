"""Codebooks: full precision under autocast, and one codebook for all processes of a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor

from omnimill.tokenizers.quantiser import Quantiser

CODES, WIDTH, WORKERS = 8, 4, 2


def started() -> tuple[Quantiser, Tensor]:
    """A codebook, and vectors of which every code wins some in each half."""
    torch.manual_seed(0)
    vectors = torch.randn(400, WIDTH)
    quantiser = Quantiser(CODES, WIDTH, normalised=False)
    quantiser.start(vectors)
    return quantiser.train(), vectors + 0.1


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", WORKERS)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=WORKERS)
    quantiser, vectors = started()
    quantiser(vectors[rank::WORKERS])
    torch.save((quantiser.codebook, quantiser.counts), f"{folder}/{rank}.pt")
    # Codes nobody wins: every process must put them at the same place.
    torch.manual_seed(rank)
    for _ in range(100):
        quantiser(torch.randn(50, WIDTH) + 40.0)
    torch.save(quantiser.codebook, f"{folder}/{rank}-late.pt")
    torch.distributed.destroy_process_group()


def test_processes_that_train_together_have_one_codebook(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_worker, (str(tmp_path),), nprocs=WORKERS)  # type: ignore[no-untyped-call]
    alone, vectors = started()
    alone(vectors)
    for rank in range(WORKERS):
        codebook, counts = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(codebook, alone.codebook)
        torch.testing.assert_close(counts, alone.counts)
    late = [torch.load(tmp_path / f"{rank}-late.pt") for rank in range(WORKERS)]
    assert torch.equal(*late)
    assert late[0].min() > 30


@pytest.mark.parametrize("normalised", [False, True])
def test_codes_are_found_in_full_precision(normalised: bool) -> None:
    torch.manual_seed(0)
    quantiser = Quantiser(512, WIDTH, normalised)
    vectors = torch.randn(2000, WIDTH)
    quantiser.start(vectors)
    expected = quantiser.codes_of(vectors)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantiser.codes_of(vectors), expected)
        quantised, codes, commitment = quantiser.eval()(vectors)
    assert torch.equal(codes, expected)
    assert (quantised.dtype, commitment.dtype) == (torch.float32, torch.float32)
