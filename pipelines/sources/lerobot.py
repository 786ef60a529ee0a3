"""LeRobot datasets: robot episodes as runs of steps with states, actions, pictures and the instruction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.config import digest_json
from omnimill.errors import BadRecord, ConfigError, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.episodes import Steps, read_steps
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.lerobot_meta import (
    MAX_META_BYTES,
    V30,
    VERSIONS,
    EpisodeEntry,
    Layout,
    parse_episode_lines,
    parse_episode_table,
    parse_layout,
    parse_task_lines,
    parse_task_table,
)
from omnimill.pipelines.decoders.probe import MediaLimits
from omnimill.pipelines.decoders.video import frames_at
from omnimill.pipelines.sources.examples import refusal
from omnimill.pipelines.sources.films import Film
from omnimill.pipelines.sources.runs import Episode, RunSettings, run_examples
from omnimill.schema import Example, Image, Provenance, Text

_INFO, _EPISODES, _TASKS = "meta/info.json", "meta/episodes.jsonl", "meta/tasks.jsonl"
_EPISODE_TABLES, _TASK_TABLE = "meta/episodes/**/*.parquet", "meta/tasks.parquet"


class LeRobotSource(RunSettings, Source):
    """A dataset in the LeRobot layout v2.1 or v3.0; a unit is an episode, or the episodes that share a video file.

    Without videos, a unit of v3.0 is the episodes that share a data file. Metadata that cannot be read are quarantined
    as ``lerobot_meta_malformed``, for then no episode can be.

    path: folder that holds meta/, data/ and videos/.
    camera: picture column; the first by name if not given. state, action: vector columns.
    require_video: quarantine an episode whose video is missing, rather than keeping it without pictures.
    absent_episodes: what becomes of episodes that the metadata list but whose data are not there.
    tolerance_seconds: how far the presentation time of a frame may lie from its step, beyond which the episode is
        quarantined; half a step of the dataset if not given.
    max_side: longer side of stored frames in pixels. max_episode_bytes: of the columns in use.
    """

    type: Literal["lerobot"]
    path: str
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
        present = {files.relative(url, self.path): url for url in files.find(self.path)}
        try:
            layout = self._layout()
            camera = self._camera(layout)
            episodes, tasks = self._episodes(layout, camera, sorted(present))
        except BadRecord as fault:
            yield Unit(source=self.name, files=(info,), options={"fault": [fault.reason, fault.message]})
            return
        numbers = {task: number for number, task in tasks.items()}
        absent = [[episode.index, episode.data] for episode in episodes if episode.data not in present]
        found = [episode for episode in episodes if episode.data in present]
        for _, group in groupby(found, key=lambda episode: (episode.data, episode.video)):
            together = list(group)
            places = (together[0].data, together[0].video)
            options = {
                "episodes": [
                    {
                        "episode": episode.index,
                        "length": episode.length,
                        "start": episode.start,
                        "tasks": {str(numbers[task]): task for task in episode.tasks if task in numbers},
                    }
                    for episode in together
                ],
                "layout": self._layout_digest(layout),
            }
            yield Unit(source=self.name, files=tuple(present[p] for p in places if p in present), options=options)
        if absent:
            yield Unit(source=self.name, files=(info,), options={"absent": absent})

    def read(self, unit: Unit) -> Iterator[Record]:
        options = unit.options
        if "fault" in options:
            uri = unit.files[0]
            provenance = Provenance(uri=uri, digest=storage.digest_file(uri))
            yield Record(_INFO, provenance, refusal(BadRecord(*options["fault"])))
            return
        for index, data in options.get("absent", ()):
            verdict: BadRecord | RecordDropped = RecordDropped("episode_absent")
            if self.absent_episodes == "quarantine":
                verdict = BadRecord("episode_absent", f"the metadata list it, {data} is not there")
            yield Record(_key(index), Provenance(uri=storage.join(self.path, data), digest=""), refusal(verdict))
        if "episodes" in options:
            yield from self._records(unit)

    def _records(self, unit: Unit) -> Iterator[Record]:
        layout = self._layout()
        film = Film(unit.files[1], MediaLimits(seconds=self.max_seconds)) if len(unit.files) > 1 else None
        uri = unit.files[0]
        whole = Provenance(uri=uri, digest=storage.digest_file(uri), length=int(storage.stat(uri)["bytes"]))
        for entry in unit.options["episodes"]:
            provenance = whole
            if layout.version == V30:
                provenance = Provenance(uri=uri, digest=self._digest(uri, int(entry["episode"])))
            decode = partial(self._decode, unit, layout, entry, film, provenance)
            yield Record(_key(int(entry["episode"])), provenance, decode)

    def _meta(self, name: str) -> bytes:
        try:
            return files.read_file(storage.join(self.path, name), MAX_META_BYTES)
        except (BadRecord, FileNotFoundError) as fault:
            text = fault.message if isinstance(fault, BadRecord) else "it is not there"
            raise BadRecord("lerobot_meta_malformed", f"{name}: {text}") from None

    def _layout(self) -> Layout:
        layout = parse_layout(self._meta(_INFO))
        if layout.version not in VERSIONS:
            raise ConfigError(
                f"source {self.name}: {self.path} is a LeRobot {layout.version} dataset; {' and '.join(VERSIONS)} are "
                "read. Convert it with the LeRobot release that writes one of these"
            )
        return layout

    def _episodes(
        self, layout: Layout, camera: str | None, present: Sequence[str]
    ) -> tuple[list[EpisodeEntry], dict[int, str]]:
        if layout.version == V30:
            tables = list(filter(files.matcher((_EPISODE_TABLES,), ()), present))
            entries = [e for name in tables for e in parse_episode_table(self._meta(name), name, layout, camera)]
            tasks = parse_task_table(self._meta(_TASK_TABLE))
        else:
            entries = parse_episode_lines(self._meta(_EPISODES), layout, camera)
            tasks = parse_task_lines(self._meta(_TASKS))
        if not entries:
            raise BadRecord("lerobot_meta_malformed", "the metadata list no episodes")
        return entries, tasks

    def _layout_digest(self, layout: Layout) -> str:
        """What of meta/info.json decides how an episode is read; counts, which grow with the dataset, do not."""
        used = {name: dict(layout.features[name]) for name in sorted(layout.features)}
        return digest_json([layout.version, layout.fps, layout.data_path, layout.video_path, used])[:16]

    def _camera(self, layout: Layout) -> str | None:
        cameras = layout.cameras()
        if self.camera is not None and self.camera not in cameras:
            raise ConfigError(f"source {self.name}: camera: found {self.camera!r}; allowed: {', '.join(cameras)}")
        return self.camera or next(iter(cameras), None)

    def _steps(self, uri: str, pictures: str | None, episode: int | None) -> Steps:
        with storage.open_read(uri) as stream:
            return read_steps(stream, self.state, self.action, pictures, self.max_episode_bytes, episode)

    def _digest(self, uri: str, episode: int) -> str:
        """Of the numbers of an episode that shares its file with others, so that its twin elsewhere has the same."""
        try:
            steps = self._steps(uri, None, episode)
        except BadRecord:
            return ""  # decoding it will say what is wrong
        hasher = blake3()
        for numbers in (steps.times, steps.states, steps.actions):
            hasher.update(f"{numbers.shape}\n".encode())
            hasher.update(numbers.tobytes())
        return hasher.hexdigest()

    def _decode(
        self, unit: Unit, layout: Layout, entry: dict[str, Any], film: Film | None, provenance: Provenance
    ) -> Sequence[Example]:
        index, length = int(entry["episode"]), int(entry["length"])
        camera = self._camera(layout)
        in_data = camera if camera is not None and not layout.is_filmed(camera) else None
        steps = self._steps(unit.files[0], in_data, index if layout.version == V30 else None)
        if len(steps.times) != length:
            message = f"the metadata say {length} steps, the data hold {len(steps.times)}"
            raise BadRecord("lerobot_length_mismatch", message)
        wanted = self.pictured(length)
        if steps.pictures is not None:
            settings = ImageSettings()
            pictures: dict[int, Image] = {
                step: decode_image(steps.pictures[step], settings, unit.files[0]) for step in wanted
            }
        elif camera is None:
            pictures = {}
        else:
            pictures = self._frames(
                film, layout, [float(entry["start"] + steps.times[step]) for step in wanted], wanted
            )
        episode = Episode(
            name=_key(index),
            length=length,
            texts=lambda step: [Text(role="instruction", text=_instruction(entry["tasks"], steps, step))],
            states=steps.states,
            actions=steps.actions,
            state_names=layout.names(self.state, steps.states.shape[1]),
            action_names=layout.names(self.action, steps.actions.shape[1]),
            steps_per_second=layout.fps,
        )
        return run_examples(self, unit, _key(index), provenance, self, episode, pictures)

    def _frames(self, film: Film | None, layout: Layout, times: list[float], wanted: Sequence[int]) -> dict[int, Image]:
        """The frames of the wanted steps, by their presentation times."""
        if film is None:
            if self.require_video:
                raise BadRecord("lerobot_video_missing", "its video is not there")
            return {}
        if not wanted:
            return {}
        info = film.info()
        if info.video is None:
            raise BadRecord("video_no_stream", "the file has no pictures that can be decoded")
        tolerance = self.tolerance_seconds or 0.5 / layout.fps
        frames = frames_at(film.path(), info.demuxer, info.video, times, tolerance, self.max_side, self.timeout_seconds)
        return {step: replace(frame, uri=film.url) for step, frame in zip(wanted, frames, strict=True)}


def _instruction(tasks: dict[str, str], steps: Steps, step: int) -> str:
    """The task in force at a step; an episode with a single task needs no number for it."""
    number = str(steps.tasks[step]) if steps.tasks is not None else ""
    if number in tasks:
        return tasks[number]
    if len(tasks) == 1 and steps.tasks is None:
        return next(iter(tasks.values()))
    raise BadRecord("lerobot_task_unknown", f"step {step} has task {number or 'none'}; known: {', '.join(tasks)}")


def _key(episode: int) -> str:
    return f"episode_{episode:06d}"
