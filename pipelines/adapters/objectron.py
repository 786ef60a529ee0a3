"""Boxes in space as Objectron publishes them, its sequences exported as JSON."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.images import ImageSettings


class ObjectronSource(Source):
    """Sequences (the ``Sequence`` message as JSON) with frames as pictures: cuboids as of ``omni3d``.

    A frame is a record. The camera's axes are turned from Objectron's (landscape, y up, looking along -z) to a
    picture's (held upright, x right, y down, z into it).

    annotations: JSON files below `path`. frames: where the pictures lie; ``{folder}`` and ``{stem}`` are those of the
        JSON file, ``{frame}`` the frame's number.
    every: every so-manieth annotated frame is read.
    """

    selection: ClassVar[tuple[str, ...]] = ("annotations", "exclude")

    type: Literal["objectron"]
    path: str
    annotations: tuple[str, ...] = ("**/annotation.json",)
    exclude: tuple[str, ...] = ()
    frames: str = "{folder}/frames/{frame}.jpg"
    every: int = Field(1, ge=1)
    images: ImageSettings = ImageSettings()
