"""Manipulation on a table after prompts of words and pictures: VIMA.

VIMA publishes trajectories as pickles, which are not read here. Whoever has VIMA's own package writes each as a folder
with ``episode.json`` and the pictures it names::

    {"episode_id": "000017", "task": "visual_manipulation",
     "prompt": "Put the {dragged_obj} into the {base_obj}.",
     "prompt_assets": {"dragged_obj": "frames/prompt_0.jpg", "base_obj": "frames/prompt_1.jpg"},
     "frames": ["frames/000000.jpg", "frames/000001.jpg"],
     "actions": [{"pose0_position": [0.61, -0.2], "pose0_rotation": [0.0, 0.0, 0.0, 1.0],
                  "pose1_position": [0.42, 0.1], "pose1_rotation": [0.0, 0.0, 0.71, 0.71]}],
     "end_effector": "suction"}

Poses are VIMA's own: positions in metres, rotations as quaternions (x, y, z, w). Frame i is what holds before action i.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.numbers import is_finite_number
from omnimill.pipelines.decoders.text import parse_json, text_value
from omnimill.pipelines.sources.episode_folders import malformed, mapping, sequence
from omnimill.pipelines.sources.examples import make_example
from omnimill.schema import PICTURE_MARK, Annotation, Example, Meta, Provenance, Text

_SLOT = re.compile(r"\{([^{}]+)\}")
_KINDS = {"suction": "pick", "spatula": "push"}


class TableManipulationSource(Source):
    """Episodes by the globs of their JSON files; a unit is `episodes_per_unit` of them with their pictures.

    An example is an episode: the pictures of the prompt in the order in which it names them, then the first frame, the
    current picture; the prompt as ``instruction`` with a mark where a picture stands; the steps as one annotation of
    kind ``table_steps`` and role ``action``. Prompts with more than `max_prompt_pictures` are dropped as
    ``too_many_pictures``.

    shows: ``start`` as above; with ``goal`` the last frame comes after the first and is the current picture, and there
        are no steps: goal generation. An episode of a single frame is then dropped as ``no_second_picture``.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "episodes_per_unit")

    type: Literal["table_manipulation"]
    path: str
    include: tuple[str, ...] = ("**/episode.json",)
    exclude: tuple[str, ...] = ()
    frames: str = "frames"
    shows: Literal["start", "goal"] = "start"
    episodes_per_unit: int = Field(64, ge=1)
    max_prompt_pictures: int = Field(4, ge=0)
    max_json_bytes: int = Field(4 << 20, gt=0)
    images: ImageSettings = ImageSettings()

    def units(self) -> Iterator[Unit]:
        listed = files.find(self.path)
        belongs = files.matcher(self.include, self.exclude)
        found = [url for url in listed if belongs(files.relative(url, self.path))]
        beside: dict[str, list[str]] = {f"{_home(url)}/{self.frames}": [] for url in found}
        for url in listed:
            if (folder := _home(url)) in beside:
                beside[folder].append(url)
        for group in files.groups(found, self.episodes_per_unit):
            pictures = [picture for url in group for picture in beside[f"{_home(url)}/{self.frames}"]]
            yield Unit(source=self.name, files=(*group, *pictures), options={"episodes": len(group)})

    def read(self, unit: Unit) -> Iterator[Record]:
        for url in unit.files[: int(unit.options["episodes"])]:
            size = int(storage.stat(url)["bytes"])
            small = storage.read_bytes(url) if size <= files.SMALL_BYTES else None
            provenance = Provenance(uri=url, digest=storage.digest_file(url), length=size)
            key = files.relative(url, self.path)
            yield Record(key, provenance, partial(self._decode, unit, url, key, provenance), small)

    def _decode(self, unit: Unit, url: str, key: str, provenance: Provenance) -> Sequence[Example]:
        said = mapping(parse_json(files.read_file(url, self.max_json_bytes)), "the file")
        prompt = text_value(said.get("prompt"), "prompt")
        assets = mapping(said.get("prompt_assets", {}), "prompt_assets")
        named = _SLOT.findall(prompt)
        if len(named) > self.max_prompt_pictures:
            raise RecordDropped("too_many_pictures")
        if missing := sorted(set(named) - set(assets)):
            raise malformed(f"the prompt names {missing[0]!r}, which is not in prompt_assets")
        frames = sequence(said.get("frames"), "frames")
        if not frames:
            raise malformed("no frames")
        goal = self.shows == "goal"
        if goal and len(frames) == 1:
            raise RecordDropped("no_second_picture")
        shown = [frames[0], frames[-1]] if goal else frames[:1]
        names = [text_value(assets[name], "prompt_assets") for name in named]
        names += [text_value(frame, "frames") for frame in shown]
        kind = _KINDS.get(str(said.get("end_effector", "suction")))
        if kind is None:
            raise malformed(f"end_effector is {said['end_effector']!r}; allowed: {', '.join(_KINDS)}")
        steps = [_step(action, number) for number, action in enumerate(sequence(said.get("actions"), "actions"))]
        if not steps:
            raise malformed("no actions")
        actions = Annotation(
            kind="table_steps",
            role="action",
            image=len(names) - 1,
            label=kind,
            values=[number for step in steps for number in step],
        )
        return [
            make_example(
                self,
                unit,
                key,
                provenance,
                images=[self._picture(unit, f"{_home(url)}/{name}") for name in names],
                text=[Text(role="instruction", text=_SLOT.sub(PICTURE_MARK, prompt))],
                annotations=[] if goal else [actions],
                meta=Meta(tags={"task": str(said["task"])} if "task" in said else {}),
            )
        ]

    def _picture(self, unit: Unit, url: str) -> Any:
        if url not in unit.files:
            raise BadRecord("frame_missing", f"{url.rsplit('/', 1)[-1]} is not in {self.frames}/")
        return decode_image(files.read_file(url, self.images.max_bytes), self.images, url)


def _step(action: Any, number: int) -> list[float]:
    """x, y in metres and the turn in degrees of both poses."""
    told = mapping(action, f"action {number}")
    values: list[float] = []
    for pose in ("pose0", "pose1"):
        position, rotation = _vector(told, f"{pose}_position", (2, 3)), _vector(told, f"{pose}_rotation", (4,))
        x, y, z, w = rotation
        if not math.isclose(x * x + y * y + z * z + w * w, 1.0, abs_tol=0.05):
            raise malformed(f"{pose}_rotation of action {number} is no unit quaternion")
        turn = math.degrees(math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))
        values += [*position[:2], turn % 360.0]
    return values


def _vector(told: dict[str, Any], name: str, sizes: tuple[int, ...]) -> list[float]:
    value = told.get(name)
    if not isinstance(value, list) or len(value) not in sizes or not all(map(is_finite_number, value)):
        raise malformed(f"{name} is not {' or '.join(map(str, sizes))} numbers")
    return [float(number) for number in value]


def _home(url: str) -> str:
    return url.rsplit("/", 1)[0]
