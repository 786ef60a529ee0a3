"""Filters of examples that were cut from films. Every one passes examples of other kinds; None only measures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from omnimill.pipelines.base import Operator
from omnimill.pipelines.decoders.pixels import load_grey
from omnimill.schema import Example

_THUMBNAIL_SIDE = 64
_BORDER_SIDE = 256


class VideoStatic(Operator):
    """Drops a run of segments in which hardly anything changes: slides, still pictures set to music.

    Measures the mean absolute difference of grey levels (0 to 255) between thumbnails (64 pixels) of consecutive
    frames; the largest one is the score ``video_motion``. A single frame tells nothing and passes.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("video", "images")
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["video_static"]
    min_difference: float | None = Field(1.0, ge=0)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        if example.video is None or len(example.images) < 2:
            return None
        frames = _thumbnails(example, _THUMBNAIL_SIDE)
        motion = max(float(np.abs(after - before).mean()) for before, after in pairwise(frames))
        example.meta.scores["video_motion"] = motion
        return "video_static" if self.min_difference is not None and motion < self.min_difference else None


class VideoBorders(Operator):
    """Drops a run whose pictures are framed by black (letterbox, pillarbox), or black altogether.

    A row or column belongs to the border when no frame of the run has a grey level above `threshold` in it (16 as in
    the reference's preprocessing); the border's share of the area is the score ``video_border``.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("video", "images")
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["video_borders"]
    max_share: float | None = Field(0.4, ge=0, le=1)
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
        return "video_borders" if self.max_share is not None and share > self.max_share else None


class VideoShape(Operator):
    """Drops a run of a film that is too small, too narrow or wide, or has too few frames per second.

    Of the film as it lay, the right way up: its shorter side in pixels, width over height and frames per second are
    the scores ``video_short_side``, ``video_aspect`` and ``video_frame_rate``.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("video",)
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["video_shape"]
    min_short_side: int | None = Field(None, gt=0)
    min_aspect: float | None = Field(None, gt=0)
    max_aspect: float | None = Field(None, gt=0)
    min_frame_rate: float | None = Field(None, gt=0)

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        film = example.video
        if film is None:
            return None
        side, aspect = min(film.width, film.height), film.width / max(film.height, 1)
        found = {"video_short_side": float(side), "video_aspect": aspect, "video_frame_rate": film.frame_rate}
        example.meta.scores.update(found)
        if self.min_short_side is not None and side < self.min_short_side:
            return "video_too_small"
        narrow = self.min_aspect is not None and aspect < self.min_aspect
        if narrow or (self.max_aspect is not None and aspect > self.max_aspect):
            return "video_aspect"
        return "video_slow" if self.min_frame_rate is not None and film.frame_rate < self.min_frame_rate else None


class TranscriptDensity(Operator):
    """Drops a recording's run in which too few or too many words are said; examples without a recording pass.

    Words of role ``transcript``, as separated by spaces, per second of the run; the score is ``words_per_second``.
    """

    per_example: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("video", "audio", "text")
    writes: ClassVar[tuple[str, ...]] = ("meta",)

    op: Literal["transcript_density"]
    min_words_per_second: float | None = Field(0.0, ge=0)
    max_words_per_second: float | None = Field(8.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> TranscriptDensity:
        least, most = self.min_words_per_second, self.max_words_per_second
        if least is not None and most is not None and most < least:
            raise ValueError("max_words_per_second is below min_words_per_second")
        return self

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        heard = sum(clip.samples / clip.sample_rate for clip in example.audio)
        seconds = _run_seconds(example) if example.video else heard
        if seconds <= 0:
            return None
        words = sum(len(text.text.split()) for text in example.text if text.role == "transcript")
        density = words / seconds
        example.meta.scores["words_per_second"] = density
        if self.min_words_per_second is not None and density < self.min_words_per_second:
            return "transcript_sparse"
        too_many = self.max_words_per_second is not None and density > self.max_words_per_second
        return "transcript_dense" if too_many else None


def _thumbnails(example: Example, side: int) -> NDArray[np.int16]:
    """Grey thumbnails of the frames that have the first one's size, [frames, height, width]."""
    greys = [load_grey(image, side).astype(np.int16) for image in example.images]
    return np.stack([grey for grey in greys if grey.shape == greys[0].shape])


def _extent(lit: NDArray[np.bool_]) -> int:
    """How many lines lie from the first to the last one that is not black."""
    places = np.flatnonzero(lit)
    return int(places[-1] - places[0] + 1) if len(places) else 0


def _run_seconds(example: Example) -> float:
    """Length of the run, as the source noted it; else by its segments, of which the film's last may be shorter."""
    scores, video = example.meta.scores, example.video
    if "start_seconds" in scores and "end_seconds" in scores:
        return scores["end_seconds"] - scores["start_seconds"]
    assert video is not None
    begin = video.first_segment * video.segment_seconds
    return min(video.segments * video.segment_seconds, max(video.seconds - begin, 0.0))
