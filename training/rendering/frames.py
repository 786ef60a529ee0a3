"""Which pictures and clips of a row an example reads, and how many patches of each, decided from lengths alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from omnimill.mixtures.config import Task
from omnimill.mixtures.row_columns import RowLengths
from omnimill.rng import subkey, unit
from omnimill.training.loading.batch import EncoderModality
from omnimill.training.objectives.budgets import Portions
from omnimill.training.planning.draws import Purpose
from omnimill.training.rendering.settings import RenderSettings

# Streams of which the codes can be asked for as well, and what they are called as such.
CODED: dict[EncoderModality, Literal["image", "audio"]] = {
    EncoderModality.IMAGE: "image",
    EncoderModality.AUDIO: "audio",
}
_STREAMS = (
    EncoderModality.IMAGE,
    EncoderModality.IMAGE_HISTORY,
    EncoderModality.AUDIO,
    EncoderModality.AUDIO_HISTORY,
)

# Valid patches of a row's pictures or clips, oldest first, by stream.
Valid = Mapping[EncoderModality, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture or clip that the encoder reads.

    number: its place among the row's. valid: patches that are not padding. hidden: those that the objective hides.
    kept: those that remain after sub-sampling.
    """

    number: int
    valid: int
    hidden: int
    kept: int


Frames = Mapping[EncoderModality, tuple[Frame, ...]]


def streams_read(task: Task) -> set[EncoderModality]:
    """Media streams of the encoder that a task may fill; a denoised target is one of them."""
    return {EncoderModality[name.upper()] for name in task.streams}


def may_drop(task: Task, stream: EncoderModality) -> bool:
    """Whether some of the task's examples do not read a stream though they have it."""
    name = stream.name.lower()
    return task.keep_optional < 1 and name in task.optional and name != task.own_stream


def valid_patches(task: Task, lengths: RowLengths, key: int) -> Valid:
    """What the row has of every stream that the example reads."""
    patches = {
        EncoderModality.IMAGE: lengths.image_patches,
        EncoderModality.IMAGE_HISTORY: lengths.history_patches,
        EncoderModality.AUDIO: lengths.audio_patches,
        EncoderModality.AUDIO_HISTORY: lengths.audio_patches,
    }
    return {
        stream: patches[stream]
        for stream in sorted(streams_read(task))
        if not may_drop(task, stream) or unit(subkey(key, Purpose.KEEP_STREAM, stream)) < task.keep_optional
    }


def frames_of(
    task: Task,
    valid: Valid,
    portions: Portions | None,
    most: Mapping[EncoderModality, int],
    settings: RenderSettings,
    key: int,
) -> Frames:
    """The frames of every stream that the example reads, oldest first; without those that no patch is kept of.

    Args:
        valid: of :func:`valid_patches`.
        portions: of an example with token budgets.
        most: patches that are kept of one frame at most.
    """

    def hidden(stream: EncoderModality, whole: int) -> int:
        if portions is not None and stream in CODED:
            return whole - int(portions.shown[CODED[stream]][0])
        if task.own_stream is None or task.own_stream != stream.name.lower():
            return 0
        low, high = settings.objectives.mask_of(task)
        share = low + (high - low) * unit(subkey(key, Purpose.HIDDEN_SHARE))
        # Whatever the share, at least one patch stays visible.
        return min(max(round(whole * share), 1), whole - 1)

    def frames(stream: EncoderModality, patches: Sequence[int]) -> tuple[Frame, ...]:
        found = []
        for number in numbers_read(stream, len(patches), settings.history_frames):
            away = hidden(stream, patches[number]) if patches[number] else 0
            kept = min(patches[number] - away, most[stream])
            if kept:
                found.append(Frame(number, patches[number], away, kept))
        return tuple(found)

    return {stream: frames(stream, patches) for stream, patches in valid.items()}


def media_lengths(frames: Frames, settings: RenderSettings) -> dict[str, int]:
    """The fields of `Lengths` that belong to the encoder's pictures and clips."""
    image, earlier_images, audio, earlier_clips = (frames.get(stream, ()) for stream in _STREAMS)
    return {
        "image": sum(frame.kept for frame in image),
        "image_history": len(earlier_images) * settings.image_latents,
        "audio": sum(frame.kept for frame in audio),
        "audio_history": len(earlier_clips) * settings.audio_latents,
        "images": len(image),
        "earlier_images": len(earlier_images),
        "clips": len(audio),
        "earlier_clips": len(earlier_clips),
    }


def numbers_read(stream: EncoderModality, count: int, history_frames: int) -> range:
    """Which of a row's `count` pictures or clips a stream reads: the last one, or those before it."""
    last = max(count - 1, 0)
    if stream in (EncoderModality.IMAGE_HISTORY, EncoderModality.AUDIO_HISTORY):
        return range(max(last - history_frames, 0), last)
    return range(last, count)
