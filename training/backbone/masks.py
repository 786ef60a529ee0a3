"""Who may look at whom in packed sequences (dynamic packing, Unified-IO 2, arXiv 2312.17172, section 3.4).

Padding is segment 0, so it sees padding alone and nothing else sees it: its values never reach a real position.

Targets that lie on a grid may be masked further, as the paper says and the released code does not do: sparsely (the
patterns of DALL-E, arXiv 2102.12092, section 2.2) and dynamically (section 3.3). All of it is computed from what each
slot says of itself, element by element.

Attention takes such a mask as it is, or for flex attention (:func:`in_blocks`) with the blocks in which nobody looks at
anybody left out: of a packed sequence of n equal examples, all but one in n.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask

Mask = Tensor | BlockMask
Pattern = Literal["row", "column", "window"]

# Side of the square of codes that the last layer sees (the released code's convolutional pattern).
WINDOW = 11


def same_segment(queries: Tensor, keys: Tensor) -> Tensor:
    """bool [B, 1, S, T]: query and key belong to the same example; int64 [B, S] and [B, T] segments."""
    return (queries[:, :, None] == keys[:, None, :])[:, None]


def in_blocks(mask: Tensor) -> BlockMask:
    """A mask, bool [B, 1, S, T], for flex attention."""

    def seen(batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask[batch, 0, query, key]

    batch, _, queries, keys = mask.shape
    return create_block_mask(seen, batch, None, queries, keys, device=mask.device.type)


def in_full(mask: Mask) -> Tensor:
    """A mask as a tensor, bool, broadcastable to [B, H, S, T]."""
    if isinstance(mask, Tensor):
        return mask
    batch, _, queries, keys = mask.shape
    return create_mask(mask.mask_mod, batch, 1, queries, keys, device=mask.kv_indices.device.type)


def causal_segments(segment: Tensor) -> Tensor:
    """bool [B, 1, D, D]: not later, of the same example."""
    causal = torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool, device=segment.device).tril()
    return causal & same_segment(segment, segment)


def decoder_self_mask(segment: Tensor, modality: Tensor) -> Tensor:
    """bool [B, 1, D, D]: not later, of the same example, of the same target modality."""
    return causal_segments(segment) & same_segment(modality, modality)


def target_index(self_mask: Tensor) -> Tensor:
    """int64 [B, D]: how many slots of its target come before each slot, from :func:`decoder_self_mask`."""
    return self_mask[:, 0].sum(-1) - 1


def dynamic_mask(hidden: Tensor, index: Tensor) -> Tensor:
    """bool [B, 1, D, D]: neither of two slots was fed a code that the encoder's input hides, or they are the same slot.

    A slot is fed the code before it, so what is hidden moves on by one; the first slot is fed the start.

    Args:
        hidden: bool [B, D], the code to predict is hidden in the encoder's input.
        index: int64 [B, D], see :func:`target_index`.
    """
    shown = ~F.pad(hidden, (1, -1)) | (index == 0)
    itself = torch.eye(hidden.shape[1], dtype=torch.bool, device=hidden.device)
    return ((shown[:, :, None] & shown[:, None, :]) | itself)[:, None]


def layer_pattern(layer: int, layers: int) -> Pattern:
    """The sparse pattern of a decoder layer, as the released code deals them out."""
    if layer == layers - 1:
        return "window"
    return "column" if layer % 4 == 1 else "row"


def pattern_mask(
    pattern: Pattern, queries: Tensor, keys: Tensor, columns: Tensor | int, window: int = WINDOW
) -> Tensor:
    """bool, of the broadcast shape: the pattern lets a query see a key that does not come after it.

    Args:
        pattern: ``row``: the codes from the one above it on. ``column``: those above it. ``window``: those within
            `window` // 2 rows and columns.
        queries, keys: int64, index of each in its target, row by row.
        columns: of the target's grid; 0 where the target has none: everything may be seen.
    """
    columns = torch.as_tensor(columns, device=queries.device)
    width = columns.clamp(min=1)
    if pattern == "row":
        seen = queries - keys <= columns
    elif pattern == "column":
        seen = (queries - keys) % width == 0
    else:
        reach = window // 2
        seen = (queries // width - keys // width <= reach) & ((queries % width - keys % width).abs() <= reach)
    return seen | (columns == 0)
