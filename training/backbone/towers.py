"""Backbones that hold several decoders: two towers with links between them, or members that vote.

Shape letters as in `omnimill.training.backbone.decoder_only`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import cast

import torch
from torch import Tensor, nn

from omnimill.training.backbone.blocks import MLP, Attention, Block, GatedMLP, Linear, RMSNorm, Table
from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.backbone.decoder_only import DecoderOnly, SequenceModel, Tower
from omnimill.training.backbone.initialise import initialise
from omnimill.training.backbone.masks import Mask
from omnimill.training.backbone.rotary import Rotation
from omnimill.training.backbone.towers_config import LinkForm, TowersConfig, VotingConfig
from omnimill.training.backbone.transformer import LayerCache


class Link(Block):
    """Gated cross-attention from one tower to another, and for form ``attention_mlp`` a gated MLP behind it.

    A gate is tanh of a learned number that starts at 0, so that a closed link changes nothing (Flamingo, arXiv
    2204.14198, section 2.2). Projections of keys and values bring the other tower's width to this one's heads.
    """

    def __init__(self, own: DecoderConfig, other: DecoderConfig, form: LinkForm) -> None:
        super().__init__()
        self.pre_attention_norm = RMSNorm(own.width, own.norm_groups)
        self.context_norm = RMSNorm(other.width, other.norm_groups)
        self.attention = Attention(own.width, own.heads, own.head_width, own.head_norm, context_width=other.width)
        self.gate = nn.Parameter(torch.empty(1 if form == "attention" else 2))
        self.pre_mlp_norm = self.mlp = None
        if form == "attention_mlp":
            self.pre_mlp_norm = RMSNorm(own.width, own.norm_groups)
            self.mlp = GatedMLP(own.width, own.mlp) if own.mlp_form == "gated" else MLP(own.width, own.mlp)

    def forward(
        self, x: Tensor, context: Tensor, mask: Mask | None, turns: Rotation | None, cache: LayerCache | None = None
    ) -> Tensor:
        """x [B, D, d] of the own tower, context [B, D, c] of the other one -> [B, D, d]; with a cache both follow what
        it holds. mask: bool [B, 1, D, T]; None: all may be seen."""
        keys, values = self.attention.keys_values(self.context_norm(context), turns)
        if cache is not None:
            keys, values = cache.extend(keys, values)
        queries = self.attention.queries(self.pre_attention_norm(x), turns)
        gates = self.gate.tanh().to(x.dtype)
        x = x + gates[0] * self.attention.combine(queries, keys, values, mask)
        if self.mlp is None or self.pre_mlp_norm is None:
            return x
        return x + gates[1] * self.mlp(self.pre_mlp_norm(x))


class Towers(SequenceModel):
    """Two towers over the same sequence; see `TowersConfig`.

    They are computed side by side by the share of their depth, so that at a link a tower sees the other one's output
    at the same depth, before that one's own link. Arguments as of `DecoderOnly`.
    """

    def __init__(self, config: TowersConfig, seed: int = 0, activations: torch.dtype = torch.float32) -> None:
        super().__init__()
        first, second = config.towers
        self.config: TowersConfig = config
        self.activations, self.image_ids = activations, first.image_ids
        shared = config.output == "joined"
        own = config.towers[:1] if shared or config.output == "first" else config.towers
        self.tables = nn.ModuleList(Table(one.rows, one.width) for one in (own if shared else config.towers))
        self.heads = nn.ModuleList(Linear(one.width, one.rows) for one in own if not one.tied)
        self.towers = nn.ModuleList(Tower(one) for one in config.towers)
        self.links_to_first = nn.ModuleList(
            Link(first, second, config.link) for _ in range(first.layers // (config.to_first or first.layers + 1))
        )
        self.links_to_second = nn.ModuleList(
            Link(second, first, config.link) for _ in range(second.layers // (config.to_second or second.layers + 1))
        )
        self.join = Linear(first.width + second.width, first.width) if shared else None
        if config.output == "first":
            # Its own output is not read.
            self.towers[1].norm.requires_grad_(False)
        initialise(self, seed)

    @property
    def _pair(self) -> list[Tower]:
        return [cast(Tower, tower) for tower in self.towers]

    @property
    def parts(self) -> list[nn.Module]:
        return [*(layer for tower in self._pair for layer in tower.layers), *self.links_to_first, *self.links_to_second]

    @property
    def caches(self) -> int:
        return len(self.parts)

    def states(
        self, ids: Tensor, position: Tensor, mask: Mask | None, caches: Sequence[LayerCache | None] | None = None
    ) -> Tensor:
        """Both towers' outputs, normalised, side by side: [B, D, d + c]."""
        kept = dict(zip(self.parts, caches or [None] * self.caches, strict=True))
        embedded = [table(ids).to(self.activations) for table in self.tables]
        entered = [
            tower.enter(embedded[min(number, len(embedded) - 1)], position) for number, tower in enumerate(self._pair)
        ]
        x, turns = [one for one, _ in entered], [turn for _, turn in entered]
        for due in self._schedule():
            for number, layer, _ in due:
                x[number] = layer(x[number], mask, turns[number], kept[layer])
            before = list(x)
            for number, _, link in due:
                if link is not None:
                    x[number] = link(before[number], before[1 - number], mask, turns[number], kept[link])
        return torch.cat([tower.norm(one) for tower, one in zip(self._pair, x, strict=True)], -1)

    def logits(self, states: Tensor) -> Tensor:
        first, second = self.config.towers
        if self.join is not None:
            return self._scored(0, self.join(states) * first.scale)
        ours, theirs = torch.split(states, [first.width, second.width], -1)
        text = self._scored(0, ours * first.scale)
        if self.config.output == "first":
            return text
        pictures = self._scored(1, theirs * second.scale)
        rows = torch.arange(self.config.rows, device=states.device)
        drawn = torch.zeros_like(rows, dtype=torch.bool)
        for start, stop in self.image_ids:
            drawn = drawn | ((rows >= start) & (rows < stop))
        return torch.where(drawn, pictures, text)

    def _scored(self, number: int, scaled: Tensor) -> Tensor:
        """Products with the output matrix of a tower."""
        held = cast(Table | Linear, (self.heads or self.tables)[number])
        return scaled.float() @ held.weight.float().T

    def _schedule(self) -> Iterator[list[tuple[int, nn.Module, nn.Module | None]]]:
        """What is due at each share of the depth: a tower's number, its layer that ends there, the link behind it."""
        due: dict[Fraction, list[tuple[int, nn.Module, nn.Module | None]]] = {}
        intervals = self.config.to_first, self.config.to_second
        both = zip(self._pair, intervals, (self.links_to_first, self.links_to_second), strict=True)
        for number, (tower, every, links) in enumerate(both):
            for done, layer in enumerate(tower.layers, start=1):
                link = links[done // every - 1] if every and done % every == 0 else None
                due.setdefault(Fraction(done, len(tower.layers)), []).append((number, layer, link))
        for share in sorted(due):
            yield due[share]


class Voting(SequenceModel):
    """Whole decoders whose log-probabilities are added up with weights; see `VotingConfig`. Arguments as of
    `DecoderOnly`."""

    def __init__(self, config: VotingConfig, seed: int = 0, activations: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config: VotingConfig = config
        self.activations, self.image_ids = activations, config.members[0].image_ids
        self.members = nn.ModuleList(DecoderOnly(one, seed, activations) for one in config.members)

    @property
    def _members(self) -> list[DecoderOnly]:
        return [cast(DecoderOnly, member) for member in self.members]

    @property
    def parts(self) -> list[nn.Module]:
        return [part for member in self._members for part in member.parts]

    @property
    def caches(self) -> int:
        return sum(member.caches for member in self._members)

    def states(
        self, ids: Tensor, position: Tensor, mask: Mask | None, caches: Sequence[LayerCache | None] | None = None
    ) -> Tensor:
        """All members' states side by side."""
        kept = iter(caches or [None] * self.caches)
        found = [
            member.states(ids, position, mask, [next(kept) for _ in range(member.caches)]) for member in self._members
        ]
        return torch.cat(found, -1)

    def logits(self, states: Tensor) -> Tensor:
        parts = torch.split(states, [one.width for one in self.config.members], -1)
        total = torch.zeros((), device=states.device)
        for weight, member, part in zip(self.config.weights, self._members, parts, strict=True):
            total = total + weight * member.logits(part).log_softmax(-1)
        return total
