"""Merges that keep the parents whole: JAM-Cross, one-way and two-way links, and votes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.backbone.towers_config import TowersConfig, VotingConfig
from omnimill.training.merging.plan import MERGES, Made, MergePlan, Mismatch, Parent, copied, decoders, fresh, shapes_of
from omnimill.training.merging.settings import CrossMerge, LinksMerge, LogitsMerge

_JOINS = {"mean": (0.5, 0.5), "first": (1.0, 0.0), "second": (0.0, 1.0)}


@MERGES.register("cross")
def cross(parents: Sequence[Parent], settings: CrossMerge) -> MergePlan:
    """Both towers, closed links between them, and one table: text of the first, picture codes of the second."""
    first, second = decoders(parents, 2)
    lines = [
        f"{name}: A {ours}, B {theirs}"
        for name in ("width", "tied")
        if (ours := getattr(first, name)) != (theirs := getattr(second, name))
    ]
    for tower in (first, second):
        if settings.every > tower.layers:
            lines.append(f"method.every: {settings.every} is more than {tower.layers} layers")
    if lines:
        raise Mismatch(lines)
    merged = TowersConfig(
        towers=(first, second),
        to_first=settings.every,
        to_second=settings.every,
        link=settings.link,
        output="joined",
    )
    shapes = shapes_of(merged)
    rows = partial(_rows_by_modality, image_ids=first.image_ids)
    shared = {"tables.0.weight": "table.weight", "heads.0.weight": "head.weight"}
    made = [
        Made(name, shapes[name], ((0, source), (1, source)), "text rows A, code rows B", rows)
        for name, source in shared.items()
        if name in shapes
    ]
    made.append(Made("join.weight", shapes["join.weight"], (), settings.join, partial(_join, settings.join, first)))
    return _with_towers(merged, made)


@MERGES.register("links")
def links(parents: Sequence[Parent], settings: LinksMerge) -> MergePlan:
    """Both parents with their own tables, and closed links."""
    configs = decoders(parents, 2)
    lines = []
    if settings.output == "by_modality" and configs[0].tied != configs[1].tied:
        lines.append(f"tied: A {configs[0].tied}, B {configs[1].tied}")
    for name, tower in zip(("to_first", "to_second"), configs, strict=True):
        every = getattr(settings, name)
        if every is not None and every > tower.layers:
            lines.append(f"method.{name}: {every} is more than {tower.layers} layers")
    if lines:
        raise Mismatch(lines)
    merged = TowersConfig(
        towers=(configs[0], configs[1]),
        to_first=settings.to_first,
        to_second=settings.to_second,
        link=settings.link,
        output=settings.output,
    )
    shapes = shapes_of(merged)
    made = [
        copied(name, shapes[name], number, source)
        for number in range(2)
        for name, source in ((f"tables.{number}.weight", "table.weight"), (f"heads.{number}.weight", "head.weight"))
        if name in shapes
    ]
    return _with_towers(merged, made)


@MERGES.register("logits")
def logits(parents: Sequence[Parent], settings: LogitsMerge) -> MergePlan:
    """All parents as they are."""
    configs = decoders(parents)
    if len(settings.weights) != len(configs):
        raise Mismatch([f"method.weights: {len(configs)} parents, {len(settings.weights)} weights"])
    merged = VotingConfig(members=tuple(configs), weights=settings.weights)
    made = []
    for name, shape in shapes_of(merged).items():
        _, number, source = name.split(".", 2)
        made.append(copied(name, shape, int(number), source))
    return MergePlan(merged, tuple(made))


def _with_towers(merged: TowersConfig, made: list[Made]) -> MergePlan:
    """The plan with the towers' own weights, and fresh links."""
    for name, shape in shapes_of(merged).items():
        if name.startswith("towers."):
            _, number, source = name.split(".", 2)
            made.append(copied(name, shape, int(number), f"tower.{source}"))
    made += fresh(merged, made, lambda name: "0: closed" if name.endswith("gate") else "fresh")
    return MergePlan(merged, tuple(made))


def _rows_by_modality(tensors: Sequence[Tensor], image_ids: tuple[tuple[int, int], ...]) -> Tensor:
    text, pictures = tensors
    merged = text.clone()
    for start, stop in image_ids:
        merged[start:stop] = pictures[start:stop]
    return merged


def _join(start: str, config: DecoderConfig, _: Sequence[Tensor]) -> Tensor:
    """[d, 2d]: shares of the identity for both towers."""
    identity = torch.eye(config.width)
    return torch.cat([share * identity for share in _JOINS[start]], 1)
