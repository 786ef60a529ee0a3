"""Filters of examples that were cut from films. Every one passes examples of other kinds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from omnimill.pipelines.base import Operator
from omnimill.pipelines.decoders.images import load_grey
from omnimill.schema import Example, Video

_THUMBNAIL_SIDE = 64
_BORDER_SIDE = 256


class VideoStatic(Operator):
    """Drops a run of segments in which hardly anything changes: slides, still pictures set to music.

    Measures the mean absolute difference of grey levels (0 to 255) between thumbnails (64 pixels) of consecutive
    frames; the largest one is the score ``video_motion``. A single frame tells nothing and passes.
    """

    reads: ClassVar[tuple[str, ...]] = ("video", "images")
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["video_static"]
    min_difference: float = Field(1.0, ge=0)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        if example.video is None or len(example.images) < 2:
            return None
        frames = _thumbnails(example, _THUMBNAIL_SIDE)
        motion = max(float(np.abs(after - before).mean()) for before, after in pairwise(frames))
        example.meta.scores["video_motion"] = motion
        return "video_static" if motion < self.min_difference else None


class VideoBorders(Operator):
    """Drops a run whose pictures are framed by black (letterbox, pillarbox), or black altogether.

    A row or column belongs to the border when no frame of the run has a grey level above `threshold` in it (16 as in
    the reference's preprocessing); the border's share of the area is the score ``video_border``.
    """

    reads: ClassVar[tuple[str, ...]] = ("video", "images")
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["video_borders"]
    max_share: float = Field(0.4, ge=0, le=1)
    threshold: int = Field(16, ge=0, le=255)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        if example.video is None or not example.images:
            return None
        brightest = np.max(_thumbnails(example, _BORDER_SIDE), axis=0)
        rows, columns = (_extent(brightest.max(axis=axis) > self.threshold) for axis in (1, 0))
        share = 1 - rows * columns / brightest.size
        example.meta.scores["video_border"] = share
        return "video_borders" if share > self.max_share else None


class TranscriptDensity(Operator):
    """Drops a recording's run in which too few or too many words are said; examples without a recording pass.

    Words of role ``transcript``, as separated by spaces, per second of the run; the score is ``words_per_second``.
    """

    reads: ClassVar[tuple[str, ...]] = ("video", "audio", "text")
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["transcript_density"]
    min_words_per_second: float = Field(0.0, ge=0)
    max_words_per_second: float = Field(8.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> TranscriptDensity:
        if self.max_words_per_second < self.min_words_per_second:
            raise ValueError("max_words_per_second is below min_words_per_second")
        return self

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        heard = sum(clip.samples / clip.sample_rate for clip in example.audio)
        seconds = _run_seconds(example.video) if example.video else heard
        if seconds <= 0:
            return None
        words = sum(len(text.text.split()) for text in example.text if text.role == "transcript")
        example.meta.scores["words_per_second"] = words / seconds
        if words / seconds < self.min_words_per_second:
            return "transcript_sparse"
        return "transcript_dense" if words / seconds > self.max_words_per_second else None


def _thumbnails(example: Example, side: int) -> NDArray[np.int16]:
    """Grey thumbnails of the frames that have the first one's size, [frames, height, width]."""
    greys = [load_grey(image, side).astype(np.int16) for image in example.images]
    return np.stack([grey for grey in greys if grey.shape == greys[0].shape])


def _extent(lit: NDArray[np.bool_]) -> int:
    """How many lines lie from the first to the last one that is not black."""
    places = np.flatnonzero(lit)
    return int(places[-1] - places[0] + 1) if len(places) else 0


def _run_seconds(video: Video) -> float:
    """Length of the run; the film's last segment may be shorter than the others."""
    begin = video.first_segment * video.segment_seconds
    return min(video.segments * video.segment_seconds, max(video.seconds - begin, 0.0))
