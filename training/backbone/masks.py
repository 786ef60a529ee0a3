"""Who may look at whom in packed sequences (dynamic packing, Unified-IO 2, arXiv 2312.17172, section 3.4).

Padding is segment 0, so it sees padding alone and nothing else sees it: its values never reach a real position.
"""

from __future__ import annotations

import torch
from torch import Tensor


def same_segment(queries: Tensor, keys: Tensor) -> Tensor:
    """bool [B, 1, S, T]: query and key belong to the same example; int64 [B, S] and [B, T] segments."""
    return (queries[:, :, None] == keys[:, None, :])[:, None]


def decoder_self_mask(segment: Tensor, modality: Tensor) -> Tensor:
    """bool [B, 1, D, D]: not later, of the same example, of the same target modality."""
    causal = torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool, device=segment.device).tril()
    return causal & same_segment(segment, segment) & same_segment(modality, modality)
