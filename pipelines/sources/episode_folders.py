"""Recorded episodes of agents, a folder each: a JSON file, and beside it a folder of frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.sources.runs import Episode, RunSettings, run_examples
from omnimill.schema import Example, Image, Provenance

# How Habitat, ProcTHOR and ALFRED call the splits that their folders and files are named after.
SPLITS = (
    *("train", "val", "valid", "test", "minival", "val_mini"),
    *("val_seen", "val_unseen", "valid_seen", "valid_unseen", "tests_seen", "tests_unseen"),
)


@dataclass(frozen=True)
class Recording:
    """An episode, and for every step the name of its frame; a step without a name takes the frame of its number.

    frames: None when the file does not name any.
    """

    episode: Episode
    frames: Sequence[str | None] | None


class EpisodeFoldersSource(RunSettings, Source):
    """Episodes by the globs of their JSON files; a unit is `episodes_per_unit` of them with their frames.

    frames: name of the folder beside a JSON file that holds its frames. A frame is found by its name without ending, as
        published files name PNG where JPEG lie.
    require_frames: quarantine an episode that lacks a frame, rather than keeping it without.
    images: which frames are accepted. max_json_bytes: of an episode's file.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "episodes_per_unit")

    path: str
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    frames: str
    episodes_per_unit: int = Field(16, ge=1)
    require_frames: bool = True
    images: ImageSettings = ImageSettings()
    max_json_bytes: int = Field(64 << 20, gt=0)

    def recording(self, data: bytes, name: str) -> Recording:
        """What an episode's file says; raises BadRecord or RecordDropped."""
        raise NotImplementedError

    def units(self) -> Iterator[Unit]:
        listed = files.find(self.path)
        belongs = files.matcher(self.include, self.exclude)
        found = [url for url in listed if belongs(files.relative(url, self.path))]
        beside: dict[str, list[str]] = {_folder(url, self.frames): [] for url in found}
        for url in listed:
            if (folder := url.rsplit("/", 1)[0]) in beside:
                beside[folder].append(url)
        for group in files.groups(found, self.episodes_per_unit):
            frames = [frame for url in group for frame in beside[_folder(url, self.frames)]]
            yield Unit(source=self.name, files=(*group, *frames), options={"episodes": len(group)})

    def read(self, unit: Unit) -> Iterator[Record]:
        count = int(unit.options["episodes"])
        frames: dict[str, dict[str, str]] = {}
        for url in unit.files[count:]:
            folder, name = url.rsplit("/", 1)
            frames.setdefault(folder, {})[_stem(name)] = url
        for url in unit.files[:count]:
            size = int(storage.stat(url)["bytes"])
            small = storage.read_bytes(url) if size <= files.SMALL_BYTES else None
            provenance = Provenance(uri=url, digest=storage.digest_file(url), length=size)
            key = files.relative(url, self.path)
            of_folder = frames.get(_folder(url, self.frames), {})
            yield Record(key, provenance, partial(self._decode, unit, url, key, provenance, of_folder), small)

    def _decode(
        self, unit: Unit, url: str, key: str, provenance: Provenance, frames: Mapping[str, str]
    ) -> Sequence[Example]:
        recording = self.recording(files.read_file(url, self.max_json_bytes), key)
        pictures = self._pictures(recording, frames)
        return run_examples(self, unit, key, provenance, self, recording.episode, pictures)

    def _pictures(self, recording: Recording, frames: Mapping[str, str]) -> dict[int, Image]:
        """The frames of the steps that have one; a step that is told to have none is not missing any."""
        in_order = sorted(frames.values())
        found: dict[int, Image] = {}
        for step in self.pictured(recording.episode.length):
            if recording.frames is None:
                url = in_order[step] if step < len(in_order) else None
                name = f"number {step}"
            elif (told := recording.frames[step]) is not None:
                url, name = frames.get(_stem(told.rsplit("/", 1)[-1])), told
            else:
                continue
            if url is not None:
                found[step] = decode_image(files.read_file(url, self.images.max_bytes), self.images, url)
            elif self.require_frames:
                raise BadRecord("frame_missing", f"frame {name} of step {step} is not in {self.frames}/")
        return found


def split_of(name: str) -> dict[str, str]:
    """The split that a path tells by one of its parts, for `Meta.tags`."""
    parts = (part.split(".", 1)[0] for part in name.split("/"))
    return next(({"split": part} for part in parts if part in SPLITS), {})


def malformed(message: str) -> BadRecord:
    return BadRecord("trajectory_malformed", message)


def mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise malformed(f"{name} is {type(value).__name__}, not an object")
    return value


def sequence(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise malformed(f"{name} is {type(value).__name__}, not a list")
    return value


def _folder(url: str, frames: str) -> str:
    return f"{url.rsplit('/', 1)[0]}/{frames}"


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]
