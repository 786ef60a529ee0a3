"""Coloured solids as GLB files, named after what they show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trimesh

SHAPES: dict[str, Callable[[], trimesh.Trimesh]] = {
    "box": lambda: trimesh.creation.box((1.0, 1.4, 0.8)),
    "ball": lambda: trimesh.creation.icosphere(subdivisions=3, radius=0.8),
    "cylinder": lambda: trimesh.creation.cylinder(radius=0.5, height=1.6, sections=48),
    "cone": lambda: trimesh.creation.cone(radius=0.7, height=1.5, sections=48),
    "ring": lambda: trimesh.creation.torus(0.8, 0.25),
    "capsule": lambda: trimesh.creation.capsule(height=1.0, radius=0.4),
}
COLOURS = {
    "red": (200, 40, 40, 255),
    "green": (40, 160, 60, 255),
    "blue": (50, 70, 200, 255),
    "yellow": (220, 190, 40, 255),
    "purple": (140, 60, 170, 255),
}


def write_shapes(folder: Path) -> None:
    """Every shape in every colour."""
    folder.mkdir(parents=True)
    for shape, make in SHAPES.items():
        for colour, rgba in COLOURS.items():
            mesh = make()
            mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=[rgba] * len(mesh.vertices))
            mesh.export(folder / f"{colour}_{shape}.glb")
