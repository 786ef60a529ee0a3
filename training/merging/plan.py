"""A merge before it is done: which tensor of the merged model is made of which tensors of the parents."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from omnimill.errors import ConfigError
from omnimill.registry import Registry
from omnimill.training.backbone.build import build
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.backbone.kinds import SequenceConfig

Shapes = Mapping[str, tuple[int, ...]]
Make = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Parent:
    """A model to be merged. letter: what messages call it. backbone: its configuration."""

    letter: str
    backbone: BackboneConfig | SequenceConfig

    @property
    def shapes(self) -> Shapes:
        """Shapes of its weights, by name."""
        return shapes_of(self.backbone)


@dataclass(frozen=True)
class Made:
    """One tensor of the merged model.

    sources: (number of a parent, name of a tensor of it). rule: how it is made of these, in words. make: does it; None:
    the tensor is fresh.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[tuple[int, str], ...]
    rule: str
    make: Make | None


@dataclass(frozen=True)
class MergePlan:
    """backbone: of the merged model. made: every tensor of it."""

    backbone: BackboneConfig | SequenceConfig
    made: tuple[Made, ...]

    def check(self) -> None:
        """Every tensor of the merged model is made, in its shape."""
        expected = shapes_of(self.backbone)
        found = {one.name: one.shape for one in self.made}
        assert found == expected, sorted(set(found.items()) ^ set(expected.items()))[:5]


class Mismatch(ConfigError):
    """Parents that do not fit together. lines: every reason."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        listed = "\n".join(f"  {line}" for line in lines)
        super().__init__(f"the parents do not fit together:\n{listed}")


# Numbers of layers and links in names, which tensors made alike differ in.
_NUMBER = re.compile(r"(?<=layers\.)\d+|(?<=links_to_first\.)\d+|(?<=links_to_second\.)\d+")


@dataclass(frozen=True)
class MapLine:
    """Tensors of a merged model that are made alike. names: with a range in place of their numbers. sources: with a
    star. count: how many they are."""

    names: str
    count: int
    shape: tuple[int, ...]
    sources: str
    rule: str


def name_map(plan: MergePlan, parents: Sequence[Parent]) -> list[MapLine]:
    """What is made of what, a line for all layers that are made alike."""
    groups: dict[tuple[str, tuple[int, ...], str, str], list[int]] = {}
    for one in plan.made:
        found = [int(number) for number in _NUMBER.findall(one.name)]
        sources = ", ".join(f"{parents[i].letter} {_NUMBER.sub('*', name)}" for i, name in one.sources)
        groups.setdefault((_NUMBER.sub("*", one.name), one.shape, sources, one.rule), []).append(max(found, default=-1))
    return [
        MapLine(
            names=names.replace("*", str(numbers[0]) if len(numbers) == 1 else f"{{{min(numbers)}-{max(numbers)}}}"),
            count=len(numbers),
            shape=shape,
            sources=sources,
            rule=rule,
        )
        for (names, shape, sources, rule), numbers in groups.items()
    ]


# A method's name -> from parents and settings to a plan; raises Mismatch.
MERGES: Registry[Callable[[Sequence[Parent], Any], MergePlan]] = Registry("merge")


def shapes_of(backbone: BackboneConfig | SequenceConfig) -> Shapes:
    """Shapes of a backbone's weights, by name."""
    with torch.device("meta"):
        model = build(backbone)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def letters() -> Iterator[str]:
    """What parents are called: A, B, …"""
    return (chr(ord("A") + number) for number in count())


def check_same_shapes(parents: Sequence[Parent]) -> Shapes:
    """The shapes that all parents have.

    Raises:
        Mismatch: some differ; names all tensors that do, and settings of the backbones that do.
    """
    first, lines = parents[0], []
    for other in parents[1:]:
        ours, theirs = first.shapes, other.shapes
        for name in dict.fromkeys([*ours, *theirs]):
            a, b = ours.get(name), theirs.get(name)
            if a != b:
                lines.append(f"{name}: {first.letter} {_shown(a)}, {other.letter} {_shown(b)}")
    if lines:
        raise Mismatch(lines)
    # Weights of one shape can mean different things.
    for other in parents[1:]:
        lines += _differences(first, other)
    if lines:
        raise Mismatch(lines)
    return first.shapes


def decoders(parents: Sequence[Parent], count: int | None = None) -> list[DecoderConfig]:
    """The parents' configurations, which have to be decoders over the same ids.

    Args:
        count: how many parents there have to be; any number when None.

    Raises:
        Mismatch: they are not.
    """
    if count is not None and len(parents) != count:
        raise Mismatch([f"the method takes {count} parents; found {len(parents)}"])
    found, lines = [], []
    for parent in parents:
        if isinstance(parent.backbone, DecoderConfig):
            found.append(parent.backbone)
        else:
            lines.append(
                f"{parent.letter}: the method takes decoder-only backbones; found {type(parent.backbone).__name__}"
            )
    for parent, config in zip(parents[1:], found[1:], strict=False):
        for name in ("rows", "image_ids"):
            ours, theirs = getattr(found[0], name), getattr(config, name)
            if ours != theirs:
                lines.append(f"{name} (the joint ids): {parents[0].letter} {ours}, {parent.letter} {theirs}")
    if lines:
        raise Mismatch(lines)
    return found


def fresh(backbone: SequenceConfig, taken: Sequence[Made], rule: Callable[[str], str]) -> list[Made]:
    """Tensors of the merged model that nothing taken over makes.

    Args:
        rule: what they start as, by name.
    """
    have = {one.name for one in taken}
    return [Made(name, shape, (), rule(name), None) for name, shape in shapes_of(backbone).items() if name not in have]


def copied(name: str, shape: tuple[int, ...], parent: int, source: str) -> Made:
    """A tensor that is a parent's as it is."""
    return Made(name, shape, ((parent, source),), "copy", lambda tensors: tensors[0])


def _differences(first: Parent, other: Parent) -> list[str]:
    ours, theirs = (one.backbone.model_dump(mode="json") for one in (first, other))
    return [
        f"backbone.{key}: {first.letter} {ours.get(key)!r}, {other.letter} {theirs.get(key)!r}"
        for key in dict.fromkeys([*ours, *theirs])
        if ours.get(key) != theirs.get(key)
    ]


def _shown(shape: tuple[int, ...] | None) -> str:
    return "lacks it" if shape is None else f"[{', '.join(map(str, shape))}]"
