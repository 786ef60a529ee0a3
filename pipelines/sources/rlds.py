"""RLDS datasets in TFRecord files: robot episodes as runs of steps with states, actions, pictures, the instruction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.sniff import HEAD_BYTES, sniff
from omnimill.pipelines.decoders.text import utf8
from omnimill.pipelines.decoders.tf_examples import Feature, parse_example
from omnimill.pipelines.decoders.tfrecords import Frame, read_frames
from omnimill.pipelines.sources.examples import refusal
from omnimill.pipelines.sources.runs import Episode, Matrix, RunSettings, run_examples
from omnimill.schema import Example, Image, Provenance, Text

# How TensorFlow Datasets name a shard: <dataset>-<split>.tfrecord-<shard>-of-<shards>.
_SHARD = re.compile(r"-([A-Za-z0-9_]+)\.tfrecord-\d{5}-of-\d{5}$")
_STEPS = "steps/"
_BYTE = 255


class RldsSource(RunSettings, Source):
    """TFRecord files of episodes in the RLDS layout, as TensorFlow Datasets write them; a record is an episode.

    A unit is a byte range of a file: the records that begin in it. The split that a file's name tells goes to
    ``meta.tags["split"]``. Features are named as below ``steps/``: ``observation/state``.

    path: folder or file.
    camera: feature of encoded pictures; the first by name that holds some if not given.
    state, action: features of numbers, put one after the other; none of the former is allowed.
    instruction: feature of text, or of as many numbers a step: the bytes of a text, filled up with zeros, as Language
        Table has it.
    steps_per_second: of the robot's control, which the files do not say.
    max_record_bytes: of an episode.
    images: which pictures are accepted.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "bytes_per_unit")

    type: Literal["rlds"]
    path: str
    include: tuple[str, ...] = ("**/*.tfrecord*",)
    exclude: tuple[str, ...] = ()
    camera: str | None = None
    state: tuple[str, ...] = ("observation/state",)
    action: tuple[str, ...] = ("action",)
    instruction: str = "language_instruction"
    steps_per_second: float | None = Field(None, gt=0)
    bytes_per_unit: int = Field(256 << 20, gt=0)
    max_record_bytes: int = Field(512 << 20, gt=0)
    images: ImageSettings = ImageSettings()

    def units(self) -> Iterator[Unit]:
        for url in files.find(self.path, self.include, self.exclude):
            yield from files.byte_ranges(self.name, url, self.bytes_per_unit)

    def inputs(self, unit: Unit) -> list[InputRef]:
        """The file, or of a byte range the records that begin in it."""
        if not unit.options:
            return super().inputs(unit)
        hasher, size = blake3(), 0
        for frame in self._frames(unit):
            hasher.update(f"{frame.offset} {frame.length} {_digest(frame)}\n".encode())
            size += frame.length
        return [InputRef(uri=unit.files[0], digest=hasher.hexdigest(), bytes=size)]

    def read(self, unit: Unit) -> Iterator[Record]:
        uri = unit.files[0]
        name = files.relative(uri, self.path)
        split = _SHARD.search(name)
        tags = {} if split is None else {"split": split[1]}
        if int(storage.stat(uri)["bytes"]) == 0:
            empty = Provenance(uri=uri, digest=blake3(b"").hexdigest(), length=0)
            yield Record(name, empty, refusal(BadRecord("empty_file", "no bytes")))
        for frame in self._frames(unit):
            key = f"{name}@{frame.offset}"
            provenance = Provenance(uri=uri, digest=_digest(frame), offset=frame.offset, length=frame.length)
            if frame.data is None:
                fault = frame.fault or BadRecord("tfrecord_damaged", "no payload")
                yield Record(key, provenance, refusal(fault))
                continue
            small = frame.data if frame.length <= files.SMALL_BYTES else None
            yield Record(key, provenance, partial(self._decode, unit, key, provenance, frame.data, tags), small)

    def _frames(self, unit: Unit) -> Iterator[Frame]:
        start = int(unit.options.get("offset", 0))
        stop = start + int(unit.options["length"]) if unit.options else None
        uri = unit.files[0]
        with storage.open_read(uri) as stream:
            yield from read_frames(stream, int(storage.stat(uri)["bytes"]), self.max_record_bytes, start, stop)

    def _decode(
        self, unit: Unit, key: str, provenance: Provenance, data: bytes, tags: dict[str, str]
    ) -> Sequence[Example]:
        features = {name.removeprefix(_STEPS): values for name, values in parse_example(data).items()}
        length = self._length(features)
        states, actions = (_matrix(features, names, length) for names in (self.state, self.action))
        words = _words(features.get(self.instruction), self.instruction, length)
        episode = Episode(
            name=key,
            length=length,
            texts=lambda step: [Text(role="instruction", text=words[step])] if words and words[step] else [],
            states=states,
            actions=actions,
            state_names=_names(self.state, features, length),
            action_names=_names(self.action, features, length),
            steps_per_second=self.steps_per_second,
            tags=tags,
        )
        pictures = self._pictures(features, length, provenance)
        return run_examples(self, unit, key, provenance, self, episode, pictures)

    def _length(self, features: dict[str, Feature]) -> int:
        """Steps of an episode, by its flags or its instructions.

        Raises:
            BadRecord: ``rlds_steps_missing``; ``rlds_episode_malformed`` for a first step that is not the first or a
                last one that is not the last.
        """
        telling = ("is_first", "is_last", "is_terminal", self.instruction)
        values_of = {name: features[name] for name in telling if name in features}
        spelled = values_of.get(self.instruction)
        if isinstance(spelled, np.ndarray):
            del values_of[self.instruction]
        counted = [len(values) for values in values_of.values() if len(values)]
        if not counted:
            raise BadRecord("rlds_steps_missing", f"no steps; features: {', '.join(sorted(features)[:20])}")
        length = counted[0]
        if any(count != length for count in counted):
            raise BadRecord("rlds_feature_uneven", f"flags of {', '.join(map(str, counted))} steps")
        for name, inside in (("is_first", slice(1, None)), ("is_last", slice(None, -1))):
            values = features.get(name)
            if isinstance(values, np.ndarray) and values[inside].any():
                raise BadRecord("rlds_episode_malformed", f"{name} inside of the episode's {length} steps")
        return length

    def _pictures(self, features: dict[str, Feature], length: int, provenance: Provenance) -> dict[int, Image]:
        camera = self.camera or next((name for name in sorted(features) if _is_camera(features[name])), None)
        if camera is None:
            return {}
        values = features.get(camera)
        if not isinstance(values, list):
            raise BadRecord(
                "rlds_feature_missing", f"no pictures in {camera!r}; there are {', '.join(sorted(features))}"
            )
        if len(values) != length:
            raise BadRecord("rlds_feature_uneven", f"{camera}: {len(values)} pictures in {length} steps")
        return {step: decode_image(values[step], self.images, provenance.uri) for step in self.pictured(length)}


def _is_camera(feature: Feature) -> bool:
    if not isinstance(feature, list) or not feature:
        return False
    content = sniff(feature[0][:HEAD_BYTES])
    return content is not None and content.medium == "image"


def _words(values: Feature | None, name: str, length: int) -> list[str]:
    """A text for every step, or none at all.

    Raises:
        BadRecord: ``rlds_feature_uneven``, ``invalid_utf8``.
    """
    if isinstance(values, np.ndarray) and len(values):
        if values.dtype != np.int64 or len(values) % length or values.min() < 0 or values.max() > _BYTE:
            raise BadRecord("rlds_feature_uneven", f"{name}: {len(values)} numbers are no bytes of {length} texts")
        values = [row.astype(np.uint8).tobytes().rstrip(b"\0") for row in values.reshape(length, -1)]
    words = [utf8(text).strip() for text in values] if isinstance(values, list) else []
    if len(words) not in (0, length):
        raise BadRecord("rlds_feature_uneven", f"{name}: {len(words)} values in {length} steps")
    return words


def _matrix(features: dict[str, Feature], names: Sequence[str], length: int) -> Matrix | None:
    """Features of numbers side by side, [steps, numbers]; None when none is named.

    Raises:
        BadRecord: ``rlds_feature_missing``, ``rlds_feature_uneven``, ``trajectory_not_finite``.
    """
    columns = []
    for name in names:
        values = features.get(name)
        if not isinstance(values, np.ndarray) or not len(values):
            raise BadRecord("rlds_feature_missing", f"no numbers in {name!r}; there are {', '.join(sorted(features))}")
        if len(values) % length:
            raise BadRecord("rlds_feature_uneven", f"{name}: {len(values)} numbers in {length} steps")
        columns.append(values.reshape(length, -1).astype(np.float64))
    if not columns:
        return None
    matrix = np.concatenate(columns, axis=1)
    if not np.isfinite(matrix).all():
        row = int(np.argmin(np.isfinite(matrix).all(axis=1)))
        raise BadRecord("trajectory_not_finite", f"step {row} holds a value that is not a finite number")
    return matrix


def _names(names: Sequence[str], features: dict[str, Feature], length: int) -> list[str]:
    return [f"{name}.{index}" for name in names for index in range(len(features[name]) // length)]


def _digest(frame: Frame) -> str:
    return "" if frame.data is None else blake3(frame.data).hexdigest()
