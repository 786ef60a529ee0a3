"""Pictures with a known answer: two coloured shapes on a grid of four places.

A scene is what its caption says, no more and no less, so captions, pictures and boxes can be told right from wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from omnimill import rng

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

SEED = 6
CELL = 32
GRID = 2
SIDE = CELL * GRID
BACKGROUND = (128, 128, 128)
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 70),
    "blue": (40, 80, 220),
    "yellow": (240, 200, 40),
    "purple": (150, 50, 180),
    "black": (30, 30, 30),
}
SHAPES = ("circle", "square", "triangle", "cross")
# Width and height of what is drawn, in pixels; even, so that it lies in the middle of its cell.
SIZES = {"small": 14, "large": 26}
# In reading order, which is the order of a caption.
PLACES = ("top left", "top right", "bottom left", "bottom right")
THINGS_PER_SCENE = 2
_HELD_OUT_SHARE = 0.125


@dataclass(frozen=True, order=True)
class Thing:
    """A shape; place: its number in `PLACES`."""

    place: int
    size: str
    colour: str
    shape: str

    @property
    def label(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def words(self) -> str:
        return f"{self.size} {self.label} {PLACES[self.place]}"

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of its upper left pixel."""
        row, column = divmod(self.place, GRID)
        margin = (CELL - SIZES[self.size]) // 2
        return row * CELL + margin, column * CELL + margin


Scene = tuple[Thing, ...]

ALL_THINGS = tuple(Thing(*values) for values in product(range(len(PLACES)), SIZES, COLOURS, SHAPES))


def is_held_out(thing: Thing) -> bool:
    """Whether this combination of place, size, colour and shape is in no picture that is trained on."""
    return rng.uniform("held out", SEED, thing.words) < _HELD_OUT_SHARE


def scenes(count: int, *, held_out: bool) -> list[Scene]:
    """So many different scenes, of things of different labels in different places, in reading order.

    Args:
        held_out: each has at least one held-out thing; else it has none.
    """
    allowed = [thing for thing in ALL_THINGS if held_out or not is_held_out(thing)]
    first = [thing for thing in allowed if is_held_out(thing)] if held_out else allowed
    draw = rng.generator("scenes", SEED, int(held_out))
    found: dict[Scene, None] = {}
    while len(found) < count:
        one, other = first[draw.integers(len(first))], allowed[draw.integers(len(allowed))]
        if one.place != other.place and one.label != other.label:
            found[tuple(sorted((one, other)))] = None
    return list(found)


def caption(scene: Scene) -> str:
    """What is to be seen, in reading order."""
    return ", ".join(thing.words for thing in scene)


def outline(shape: str, size: str) -> Mask:
    """The pixels of a shape in its cell: bool [CELL, CELL]."""
    side = SIZES[size]
    # Distances of pixel centres from the middle, as shares of half a side.
    steps = (np.arange(CELL) + 0.5 - CELL / 2) / (side / 2)
    down, across = steps[:, None], steps[None, :]
    inside = (np.abs(down) < 1) & (np.abs(across) < 1)
    if shape == "circle":
        inside = down**2 + across**2 < 1
    elif shape == "triangle":
        inside &= np.abs(across) < (down + 1) / 2 + 1 / side
    elif shape == "cross":
        inside &= (np.abs(down) < 1 / 3) | (np.abs(across) < 1 / 3)
    return np.asarray(inside, np.bool_)


def draw(scene: Scene) -> Pixels:
    """uint8 [SIDE, SIDE, 3]."""
    picture = np.full((SIDE, SIDE, 3), BACKGROUND, np.uint8)
    for thing in scene:
        row, column = divmod(thing.place, GRID)
        cell = picture[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        cell[outline(thing.shape, thing.size)] = COLOURS[thing.colour]
    return picture
