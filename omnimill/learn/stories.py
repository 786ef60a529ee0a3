"""Stories with a grammar: who has which thing, who finds it, and what is where in the end.

What a sentence says follows from those before it, so that a model which reads them predicts it better than one that
knows words alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from omnimill import rng
from omnimill.learn.scenes import COLOURS, PLACES, SEED, SHAPES, SIZES

_NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana")
_ROOMS = ("the kitchen", "the garden", "the attic", "the yard", "the hall")
_FEELINGS = {"found": "happy", "lost": "sad"}


def stories(count: int, *, skip: int = 0) -> list[str]:
    """So many different stories, behind the first `skip` of all of them."""
    draw = rng.generator("stories", SEED)
    found: dict[str, None] = {}
    while len(found) < skip + count:
        found[_story(draw)] = None
    return list(found)[skip:]


def _story(draw: np.random.Generator) -> str:
    first, second = (_NAMES[number] for number in draw.choice(len(_NAMES), 2, replace=False))
    here, there = (_ROOMS[number] for number in draw.choice(len(_ROOMS), 2, replace=False))
    thing = f"{_one(draw, SIZES)} {_one(draw, COLOURS)} {_one(draw, SHAPES)}"
    end = _one(draw, _FEELINGS)
    last = second if end == "found" else first
    return (
        f"{first} has a {thing}. {first} leaves the {thing.split(' ', 1)[1]} in {here}. "
        f"{second} looks for it in {there if end == 'lost' else here}. "
        f"{second} has {'found' if end == 'found' else 'not found'} the {thing}. "
        f"Now {last} is {_FEELINGS[end]}, and the {thing.rsplit(' ', 1)[1]} is {_one(draw, PLACES)} in {here}."
    )


def _one(draw: np.random.Generator, of: Iterable[str]) -> str:
    names = tuple(of)
    return names[draw.integers(len(names))]
