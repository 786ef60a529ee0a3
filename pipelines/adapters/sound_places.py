"""Pictures with the sound that goes with them and boxes around what makes it: Flickr-SoundNet's annotated pairs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, ClassVar, Literal
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException
from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.sources.audio_files import AudioSettings, recording_windows
from omnimill.pipelines.sources.examples import make_example
from omnimill.pipelines.sources.sidecars import SidecarSource
from omnimill.schema import Annotation, Example, Provenance

_MAX_XML_BYTES = 1 << 20


class SoundPlacesSource(AudioSettings, SidecarSource):
    """Pictures by globs; the sound and the annotations of each lie beside it or in folders of their own.

    The annotation is XML with a ``bbox`` for each person who was asked, whose last four numbers are x1, y1, x2, y2 on
    a grid of `grid` cells and sides; the box, of role ``boxes``, has the median of their edges. A picture that fewer
    than `people` put a box on is dropped as ``no_consensus``, one without sound as ``no_sound``.

    sounds, annotations: where they may lie, see `SidecarSource`.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "files_per_unit")

    type: Literal["sound_places"]
    include: tuple[str, ...] = ("**/*.jpg", "**/*.jpeg", "**/*.png")
    sounds: tuple[str, ...] = ("{stem}.wav", "../audio/{stem}.wav", "{stem}.mp3", "../audio/{stem}.mp3")
    annotations: tuple[str, ...] = ("{stem}.xml", "../Annotations/{stem}.xml")
    files_per_unit: int = Field(64, ge=1)
    segments: Literal["grid", "equal"] = "equal"
    grid: float = Field(256.0, gt=0)
    people: int = Field(2, ge=1)
    images: ImageSettings = ImageSettings()

    def templates(self) -> tuple[tuple[str, ...], ...]:
        return (self.sounds, self.annotations)

    def read_sidecar(self, url: str) -> dict[str, Any]:
        if url.lower().endswith(".xml"):
            return {"boxes": _boxes(files.read_file(url, _MAX_XML_BYTES), self.grid)}
        with files.local_copy(url) as path:
            return {"audio": recording_windows(str(path.absolute()), self)[1]}

    def decode(
        self, unit: Unit, url: str, key: str, provenance: Provenance, sidecars: dict[str, Any]
    ) -> Sequence[Example]:
        boxes = sidecars.get("boxes", [])
        if len(boxes) < self.people:
            raise RecordDropped("no_consensus")
        if "audio" not in sidecars:
            raise RecordDropped("no_sound")
        image = decode_image(files.read_file(url, self.images.max_bytes), self.images, url)
        box = [statistics.median(edges) for edges in zip(*boxes, strict=True)]
        annotation = Annotation(kind="box", image=0, box=box)
        audio = [sidecars["audio"][place] for place in self.shown(len(sidecars["audio"]))]
        return [make_example(self, unit, key, provenance, images=[image], audio=audio, annotations=[annotation])]


def _boxes(data: bytes, grid: float) -> list[list[float]]:
    """y1, x1, y2, x2 in shares, of everybody who drew a box."""
    try:
        root = ElementTree.fromstring(data)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise BadRecord("boxes_malformed", f"no XML: {str(error)[:200]}") from None
    boxes = []
    for element in root.iter("bbox"):
        numbers = _numbers(element)
        if len(numbers) < 4:
            continue  # nothing was drawn
        x1, y1, x2, y2 = (min(max(number / grid, 0.0), 1.0) for number in numbers[-4:])
        if not (x2 > x1 and y2 > y1):
            raise BadRecord("boxes_malformed", f"a box of {numbers[-4:]}")
        boxes.append([y1, x1, y2, x2])
    return boxes


def _numbers(element: Element) -> list[float]:
    found = []
    for child in element:
        try:
            found.append(float(child.text or ""))
        except ValueError:
            continue  # the name of what is in the box
    return found
