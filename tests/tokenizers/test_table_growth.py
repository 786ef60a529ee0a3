"""Embedding matrices of grown tables: old rows to the bit, new rows from their ids or a mean."""

from __future__ import annotations

import pytest
import torch

from omnimill.errors import OmnimillError
from omnimill.tokenizers.table_growth import grow_rows
from omnimill.tokenizers.vocabulary import TextVocabulary, code_table
from omnimill.vocabulary_layout import Growth, VocabularyLayout

OLD = TextVocabulary(60, VocabularyLayout(locations=10, sentinels=5)).table
SPECIALS = tuple(f"<special_{i}>" for i in range(300))


def special_layout(count: int) -> VocabularyLayout:
    growth = (Growth(range="special", count=count),)
    return VocabularyLayout(locations=10, sentinels=5, specials=SPECIALS[:count], growth=growth)


def matrix(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn((OLD.rows, 16), generator=torch.Generator().manual_seed(1)).mul(0.3).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_old_rows_stay_and_new_ones_depend_on_their_ids_alone(dtype: torch.dtype) -> None:
    weight = matrix(dtype)
    small, large = (TextVocabulary(60, special_layout(count)).table for count in (20, 300))
    grown = [grow_rows(weight, OLD, table, seed=4) for table in (small, large)]
    for table, found in zip((small, large), grown, strict=True):
        assert (found.dtype, tuple(found.shape)) == (dtype, (table.rows, 16))
        assert torch.equal(found[: OLD.size], weight[: OLD.size])
        assert torch.isfinite(found).all()
    assert torch.equal(grown[0][: small.size], grown[1][: small.size])
    assert not torch.equal(grow_rows(weight, OLD, small, seed=5)[OLD.size :], grown[0][OLD.size :])
    assert float(grown[1][OLD.size :].float().std()) == pytest.approx(0.3, rel=0.1)


def test_new_rows_can_be_the_mean_of_a_kind() -> None:
    weight = matrix()
    table = TextVocabulary(60, special_layout(20)).table
    grown = grow_rows(weight, OLD, table, mean_of="sentinel")
    sentinels = weight[[OLD.id("sentinel", i) for i in range(5)]]
    torch.testing.assert_close(grown[OLD.size :], sentinels.mean(dim=0).expand(table.rows - OLD.size, -1))


def test_what_does_not_extend_the_old_table_is_refused() -> None:
    with pytest.raises(OmnimillError, match="does not keep the ids"):
        grow_rows(matrix(), OLD, TextVocabulary(61, VocabularyLayout(locations=10, sentinels=5)).table)
    with pytest.raises(OmnimillError, match="found a matrix of"):
        grow_rows(matrix()[:-1], OLD, OLD)
    with pytest.raises(OmnimillError, match="no tokens 'special'"):
        grow_rows(matrix(), OLD, TextVocabulary(60, special_layout(20)).table, mean_of="special")


def test_a_larger_codebook() -> None:
    old, new = code_table("image", 30), code_table("image", 300)
    weight = torch.randn((old.rows, 4))
    assert torch.equal(grow_rows(weight, old, new)[: old.size], weight[: old.size])
