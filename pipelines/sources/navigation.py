"""Agents that move through houses (Habitat, ProcTHOR): recorded episodes, and the episodes of published datasets.

A recorded episode is a folder with ``episode.json`` and ``frames/``, which whoever runs the simulator writes::

    {"episode_id": "17", "scene_id": "17DRP5sb8fy.glb", "instruction": "find a chair",
     "goal": {"object_category": "chair", "position": [1.0, 0.1, -3.2]},
     "actions": ["MOVE_FORWARD", "TURN_LEFT", "STOP"],
     "states": [[0.0, 0.1, 0.0, 1.57], [0.25, 0.1, 0.0, 1.57], [0.25, 0.1, 0.0, 1.83]],
     "state_names": ["x", "y", "z", "heading"],
     "frames": ["frames/000000.jpg", "frames/000001.jpg", "frames/000002.jpg"]}

Only ``actions`` must be there. State and frame i are what holds before action i; without ``frames`` they are taken in
the order of their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record
from omnimill.pipelines.decoders.actions import HABITAT_ACTIONS, action_words
from omnimill.pipelines.decoders.numbers import is_finite_number
from omnimill.pipelines.decoders.text import parse_json, text_value
from omnimill.pipelines.sources.episode_folders import (
    EpisodeFoldersSource,
    Recording,
    malformed,
    mapping,
    sequence,
    split_of,
)
from omnimill.pipelines.sources.examples import refusal
from omnimill.pipelines.sources.runs import Episode, Matrix, run_examples
from omnimill.schema import Example, Provenance, Text

_POSE = ("position.x", "position.y", "position.z", "rotation.x", "rotation.y", "rotation.z", "rotation.w")


class NavigationSource(EpisodeFoldersSource):
    """Episodes recorded in a simulator, and datasets of episodes as Habitat and ProcTHOR publish them.

    Actions are texts of role ``step`` (forward, left, right, stop, …), the instruction has role ``instruction``, the
    object to be found role ``label``; scene, split and goal are in ``meta.tags``.

    Of a published dataset (PointNav, ObjectNav: ``*.json.gz``; ProcTHOR-10K: ``*.jsonl.gz``) each episode or house is a
    record, and a unit is a file. Those that come with a path (``reference_replay`` or ``shortest_paths``) are kept
    without pictures; others, and houses, hold no steps and are dropped as ``no_trajectory``: run them in a simulator.

    datasets: globs of published files. max_line_bytes: of a house.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "datasets", "episodes_per_unit")

    type: Literal["navigation"]
    include: tuple[str, ...] = ("**/episode.json",)
    datasets: tuple[str, ...] = ("**/*.json.gz", "**/*.jsonl.gz")
    frames: str = "frames"
    max_dataset_bytes: int = Field(1 << 30, gt=0)
    max_line_bytes: int = Field(64 << 20, gt=0)

    def units(self) -> Iterator[Unit]:
        yield from super().units()
        for url in files.find(self.path, self.datasets, self.exclude):
            yield Unit(source=self.name, files=(url,), options={"dataset": True})

    def read(self, unit: Unit) -> Iterator[Record]:
        if "dataset" not in unit.options:
            yield from super().read(unit)
            return
        uri = unit.files[0]
        name = files.relative(uri, self.path)
        if name.lower().endswith(".jsonl.gz"):
            yield from self._houses(uri, name)
            return
        with files.open_expanded(uri) as stream:
            data = stream.read(self.max_dataset_bytes + 1)
        if len(data) > self.max_dataset_bytes:
            raise BadRecord("file_too_large", f"more than {self.max_dataset_bytes} bytes expanded")
        found = parse_json(data)
        episodes = found.get("episodes") if isinstance(found, dict) else None
        for index, entry in enumerate(sequence(episodes, "episodes")):
            key = f"{name}#{index}"
            digest = blake3(repr(entry).encode("utf-8", "backslashreplace")).hexdigest()
            provenance = Provenance(uri=uri, digest=digest)
            yield Record(key, provenance, partial(self._published, unit, key, provenance, entry, split_of(name)))

    def _houses(self, uri: str, name: str) -> Iterator[Record]:
        with files.open_expanded(uri) as stream:
            for line in files.read_lines(stream, self.max_line_bytes):
                provenance = Provenance(uri=uri, digest=line.digest, offset=line.offset, length=line.length)
                yield Record(f"{name}#{line.offset}", provenance, refusal(self._house(line)))

    def _house(self, line: files.Line) -> BadRecord | RecordDropped:
        if line.data is None:
            return BadRecord("line_too_long", f"{line.length} bytes; at most {self.max_line_bytes}")
        try:
            mapping(parse_json(line.data), "the line")
        except BadRecord as fault:
            return fault
        return RecordDropped("no_trajectory")

    def recording(self, data: bytes, name: str) -> Recording:
        said = mapping(parse_json(data), "the file")
        actions = [action_words(text_value(word, "actions")) for word in sequence(said.get("actions"), "actions")]
        if not actions:
            raise malformed("no actions")
        states = _states(said.get("states"), len(actions))
        width = 0 if states is None else states.shape[1]
        names = [text_value(n, "state_names") for n in sequence(said.get("state_names", []), "state_names")]
        if len(names) != width:
            names = [f"state.{index}" for index in range(width)]
        frames = said.get("frames")
        if frames is not None:
            frames = [text_value(frame, "frames") for frame in sequence(frames, "frames")]
            if len(frames) < len(actions):
                raise malformed(f"{len(frames)} frames of {len(actions)} actions")
        texts = _texts(said)
        episode = Episode(
            name=_name(said, name),
            length=len(actions),
            texts=lambda _: texts,
            words=actions,
            states=states,
            state_names=names,
            tags=split_of(name) | _tags(said),
        )
        return Recording(episode, frames)

    def _published(
        self, unit: Unit, key: str, provenance: Provenance, entry: Any, split: dict[str, str]
    ) -> Sequence[Example]:
        said = mapping(entry, "an episode")
        path = _path(said)
        if not path:
            raise RecordDropped("no_trajectory")
        texts = _texts(said)
        episode = Episode(
            name=_name(said, key),
            length=len(path),
            texts=lambda _: texts,
            words=[words for words, _ in path],
            states=_states([pose for _, pose in path], len(path)),
            state_names=_POSE,
            tags=split | _tags(said),
        )
        return run_examples(self, unit, key, provenance, self, episode, {})


def _name(said: dict[str, Any], key: str) -> str:
    """The id of an episode: a text or a number; the record's key for one that has none."""
    told = said.get("episode_id")
    return str(told) if isinstance(told, int) else text_value(told or key, "episode_id")


def _path(said: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    """Actions and poses (position, rotation as x, y, z, w) of a demonstration, or else of the first shortest path."""
    steps = said.get("reference_replay")
    if not steps:
        paths = said.get("shortest_paths") or []
        steps = sequence(paths, "shortest_paths")[0] if paths else []
    found = []
    for entry in sequence(steps, "a path"):
        step = mapping(entry, "a step")
        where = mapping(step.get("agent_state", step), "agent_state")
        pose = [*sequence(where.get("position"), "position"), *sequence(where.get("rotation"), "rotation")]
        found.append((_action(step.get("action")), pose))
    return found


def _action(action: Any) -> str:
    """An action by its name or its number; a path ends with one that has neither."""
    if action is None:
        return "stop"
    if isinstance(action, int):
        if not 0 <= action < len(HABITAT_ACTIONS):
            raise malformed(f"action {action}; Habitat has {len(HABITAT_ACTIONS)}")
        return HABITAT_ACTIONS[action]
    return action_words(text_value(action, "action"))


def _states(rows: Any, length: int) -> Matrix | None:
    """States of the steps, [length, numbers]; what comes after the last action is left out.

    Raises:
        BadRecord: ``trajectory_malformed``, ``trajectory_not_finite``.
    """
    if rows is None:
        return None
    values = sequence(rows, "states")[:length]
    widths = {len(row) if isinstance(row, list) else -1 for row in values}
    if len(values) < length or len(widths) != 1 or widths & {-1, 0}:
        raise malformed(f"{len(values)} states of {sorted(widths)} numbers for {length} actions")
    if not all(is_finite_number(value) for row in values for value in row):
        raise BadRecord("trajectory_not_finite", "a state holds a value that is not a finite number")
    return np.array(values, np.float64)


def _texts(said: dict[str, Any]) -> list[Text]:
    goal = said.get("goal")
    thing = said.get("object_category") or (goal.get("object_category") if isinstance(goal, dict) else None)
    instruction = said.get("instruction")
    if isinstance(instruction, dict):  # as in VLN datasets
        instruction = instruction.get("instruction_text")
    texts = [("instruction", instruction), ("label", thing)]
    return [Text(role=role, text=text_value(text, role).strip()) for role, text in texts if text]


def _tags(said: dict[str, Any]) -> dict[str, str]:
    goals = said.get("goals") or [said.get("goal")]
    first = goals[0] if isinstance(goals, list) else None
    place = first.get("position") if isinstance(first, dict) else None
    tags = {"scene": text_value(said.get("scene_id") or "", "scene_id")}
    if isinstance(place, list) and all(map(is_finite_number, place)):
        tags["goal"] = " ".join(f"{value:g}" for value in place)
    return {name: value for name, value in tags.items() if value}
