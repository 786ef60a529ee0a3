"""LeRobot v2.1 datasets: robot episodes as runs of steps with states, actions, pictures and the instruction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import Field

from omnimill.config import digest_json
from omnimill.errors import BadRecord, ConfigError, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.episodes import (
    VERSION,
    Layout,
    Steps,
    parse_episodes,
    parse_layout,
    parse_tasks,
    read_steps,
)
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.probe import MediaLimits, probe
from omnimill.pipelines.decoders.video import frames_at
from omnimill.pipelines.isolation import isolated
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.schema import Example, Image, Provenance, Text, Trajectory

_INFO, _EPISODES, _TASKS = "meta/info.json", "meta/episodes.jsonl", "meta/tasks.jsonl"
_MAX_META_BYTES = 1 << 30
_PROBE_SECONDS = 120.0


class LeRobotSource(Source):
    """A dataset in the LeRobot v2.1 layout; a unit is an episode.

    Metadata that cannot be read are quarantined as ``lerobot_meta_malformed``, for then no episode can be.

    path: folder that holds meta/, data/ and videos/.
    steps_per_example: an episode is cut into runs of so many steps, the last may be shorter.
    stride: every so-manieth step of the episode is taken; steps are counted and timed after that.
    frames_per_example: steps of a run that have a picture, evenly spaced; the last step, the current one, always has.
    camera: picture column; the first by name if not given. state, action: vector columns.
    require_video: quarantine an episode whose video is missing, rather than keeping it without pictures.
    absent_episodes: what becomes of episodes that the metadata list but whose data are not there.
    tolerance_seconds: how far a frame may lie from its step; half a step of the dataset if not given.
    max_side: longer side of stored frames in pixels. max_episode_bytes: of the columns in use.
    """

    type: Literal["lerobot"]
    path: str
    steps_per_example: int = Field(5, ge=1)
    stride: int = Field(1, ge=1)
    frames_per_example: int = Field(5, ge=1)
    camera: str | None = None
    state: str = "observation.state"
    action: str = "action"
    require_video: bool = True
    absent_episodes: Literal["quarantine", "drop"] = "quarantine"
    tolerance_seconds: float | None = Field(None, gt=0)
    max_side: int = Field(512, ge=16, le=4096)
    max_episode_bytes: int = Field(2 << 30, gt=0)
    max_seconds: float = Field(4 * 3600.0, gt=0)
    timeout_seconds: float = Field(300.0, gt=0)

    def units(self) -> Iterator[Unit]:
        info = storage.join(self.path, _INFO)
        if not storage.exists(info):
            raise ConfigError(f"source {self.name}: {self.path} is no LeRobot dataset: it has no {_INFO}")
        try:
            layout = self._layout()
            episodes = parse_episodes(self._meta(_EPISODES))
            tasks = parse_tasks(self._meta(_TASKS))
        except BadRecord as fault:
            yield Unit(source=self.name, files=(info,), options={"fault": [fault.reason, fault.message]})
            return
        camera = self._camera(layout)
        numbers = {task: number for number, task in tasks.items()}
        present = {files.relative(url, self.path): url for url in files.find(self.path)}
        absent = []
        for episode in episodes:
            paths = [layout.data_file(episode.index), camera and layout.video_file(episode.index, camera)]
            if paths[0] not in present:
                absent.append(episode.index)
                continue
            options = {
                "episode": episode.index,
                "length": episode.length,
                "tasks": {str(numbers[task]): task for task in episode.tasks if task in numbers},
                "layout": self._layout_digest(layout),
            }
            found = tuple(present[path] for path in paths if path in present)
            yield Unit(source=self.name, files=found, options=options)
        if absent:
            yield Unit(source=self.name, files=(storage.join(self.path, _EPISODES),), options={"absent": absent})

    def read(self, unit: Unit) -> Iterator[Record]:
        options = unit.options
        if "fault" in options:
            uri = unit.files[0]
            provenance = Provenance(uri=uri, digest=storage.digest_file(uri))
            yield Record(_INFO, provenance, refusal(BadRecord(*options["fault"])))
            return
        layout = self._layout()
        for index in options.get("absent", ()):
            verdict: BadRecord | RecordDropped = RecordDropped("episode_absent")
            if self.absent_episodes == "quarantine":
                verdict = BadRecord("episode_absent", f"{_EPISODES} lists it, {layout.data_file(index)} is not there")
            uri = storage.join(self.path, layout.data_file(index))
            yield Record(_key(index), Provenance(uri=uri, digest=""), refusal(verdict))
        if "episode" in options:
            uri = unit.files[0]
            provenance = Provenance(uri=uri, digest=storage.digest_file(uri), length=int(storage.stat(uri)["bytes"]))
            yield Record(_key(options["episode"]), provenance, partial(self._decode, unit, layout, provenance))

    def _meta(self, name: str) -> bytes:
        try:
            return files.read_file(storage.join(self.path, name), _MAX_META_BYTES)
        except (BadRecord, FileNotFoundError) as fault:
            text = fault.message if isinstance(fault, BadRecord) else "it is not there"
            raise BadRecord("lerobot_meta_malformed", f"{name}: {text}") from None

    def _layout(self) -> Layout:
        layout = parse_layout(self._meta(_INFO))
        if layout.version != VERSION:
            raise ConfigError(
                f"source {self.name}: {self.path} is a LeRobot {layout.version} dataset; only {VERSION} is read. "
                f"Convert it with the LeRobot release that writes {VERSION}"
            )
        return layout

    def _layout_digest(self, layout: Layout) -> str:
        """What of meta/info.json decides how an episode is read; counts, which grow with the dataset, do not."""
        used = {name: dict(layout.features[name]) for name in sorted(layout.features)}
        return digest_json([layout.fps, layout.chunk_size, layout.data_path, layout.video_path, used])[:16]

    def _camera(self, layout: Layout) -> str | None:
        cameras = layout.cameras()
        if self.camera is not None and self.camera not in cameras:
            raise ConfigError(f"source {self.name}: camera: found {self.camera!r}; allowed: {', '.join(cameras)}")
        return self.camera or next(iter(cameras), None)

    def _decode(self, unit: Unit, layout: Layout, provenance: Provenance) -> Sequence[Example]:
        camera = self._camera(layout)
        in_data = camera is not None and layout.features[camera]["dtype"] == "image"
        with storage.open_read(unit.files[0]) as stream:
            steps = read_steps(stream, self.state, self.action, camera if in_data else None, self.max_episode_bytes)
        length = int(unit.options["length"])
        if len(steps.times) != length:
            message = f"{_EPISODES} says {length} steps, the data hold {len(steps.times)}"
            raise BadRecord("lerobot_length_mismatch", message)
        kept = range(0, length, self.stride)
        size = self.steps_per_example
        runs = [kept[begin : begin + size] for begin in range(0, len(kept), size)]
        pictures = self._pictures(unit, layout, camera, steps, sorted({s for run in runs for s in self._seen(run)}))
        return [
            self._example(unit, layout, provenance, steps, run, number * size, pictures)
            for number, run in enumerate(runs)
        ]

    def _seen(self, run: Sequence[int]) -> list[int]:
        """The steps of a run that have a picture: evenly spaced, counted back from the last."""
        count = min(self.frames_per_example, len(run))
        return [run[len(run) - 1 - len(run) * back // count] for back in range(count)][::-1]

    def _pictures(
        self, unit: Unit, layout: Layout, camera: str | None, steps: Steps, wanted: list[int]
    ) -> dict[int, Image]:
        if camera is None or not wanted:
            return {}
        if steps.pictures is not None:
            settings = ImageSettings()
            return {step: decode_image(steps.pictures[step], settings, unit.files[0]) for step in wanted}
        if len(unit.files) < 2:
            if self.require_video:
                path = layout.video_file(int(unit.options["episode"]), camera)
                raise BadRecord("lerobot_video_missing", f"{path} is not there")
            return {}
        tolerance = self.tolerance_seconds or 0.5 / layout.fps
        times = [float(steps.times[step]) for step in wanted]
        with files.local_copy(unit.files[1]) as copy:
            path = str(copy.absolute())
            info = isolated("video", _PROBE_SECONDS, probe, path, "video", MediaLimits(seconds=self.max_seconds))
            if info.video is None:
                raise BadRecord("video_no_stream", "the file has no pictures that can be decoded")
            frames = frames_at(path, info.demuxer, info.video, times, tolerance, self.max_side, self.timeout_seconds)
        return {step: replace(frame, uri=unit.files[1]) for step, frame in zip(wanted, frames, strict=True)}

    def _example(
        self,
        unit: Unit,
        layout: Layout,
        provenance: Provenance,
        steps: Steps,
        run: Sequence[int],
        first: int,
        pictures: dict[int, Image],
    ) -> Example:
        seen = [step for step in self._seen(run) if step in pictures]
        rows = np.array(run)
        columns: dict[str, Any] = {
            "text": [Text(role="instruction", text=self._instruction(unit, steps, run[-1]))],
            "images": [pictures[step] for step in seen],
            "trajectory": Trajectory(
                episode=_key(int(unit.options["episode"])),
                first_step=first,
                steps_per_second=layout.fps / self.stride,
                state_names=layout.names(self.state, steps.states.shape[1]),
                action_names=layout.names(self.action, steps.actions.shape[1]),
                states=steps.states[rows].tolist(),
                actions=steps.actions[rows].tolist(),
                step_images=[seen.index(step) if step in seen else None for step in run],
            ),
        }
        return make_example(self, unit, f"{_key(int(unit.options['episode']))}#{first}", provenance, **columns)

    def _instruction(self, unit: Unit, steps: Steps, step: int) -> str:
        """The task in force at a step; an episode with a single task needs no number for it."""
        tasks: dict[str, str] = unit.options["tasks"]
        number = str(steps.tasks[step]) if steps.tasks is not None else ""
        if number in tasks:
            return tasks[number]
        if len(tasks) == 1 and steps.tasks is None:
            return next(iter(tasks.values()))
        raise BadRecord("lerobot_task_unknown", f"step {step} has task {number or 'none'}; known: {', '.join(tasks)}")


def _key(episode: int) -> str:
    return f"episode_{episode:06d}"
