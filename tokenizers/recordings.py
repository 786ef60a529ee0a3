"""Recordings cut into segments as the reference cuts them (Unified-IO 2, arXiv 2312.17172, released code).

A recording is windows of a segment's length that follow each other, or as many equal parts as a film has pictures.
Parts that are shorter than a segment lie centred between zeros, of longer ones the middle is taken.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from omnimill.segments import segment_count
from omnimill.tokenizers.audio import FloatArray, to_segment
from omnimill.tokens import AudioLayout


def windows(waveform: FloatArray, layout: AudioLayout) -> FloatArray:
    """A recording as consecutive segments: float32 [:func:`~omnimill.segments.segment_count`, segment_samples].

    The last one is filled up with zeros at its end. A rest that is too short to be a segment is left out.

    Args:
        waveform: float32 [n] at the layout's sample rate, not empty.
        layout: sizes.
    """
    count = segment_count(len(waveform) / layout.sample_rate, layout.segment_seconds)
    return _parts(waveform, count, layout.segment_seconds, layout)


def equal_parts(waveform: FloatArray, count: int, layout: AudioLayout) -> FloatArray:
    """A recording as `count` segments, one of each of its equal parts: float32 [count, segment_samples]."""
    return _parts(waveform, count, len(waveform) / layout.sample_rate / count, layout)


def _parts(waveform: FloatArray, count: int, seconds: float, layout: AudioLayout) -> FloatArray:
    bounds = (np.linspace(0.0, count * seconds, count + 1) * layout.sample_rate).astype(np.int64)
    whole = np.pad(waveform, (0, max(int(bounds[-1]) - len(waveform), 0)))
    return np.stack([to_segment(whole[begin:end], layout) for begin, end in pairwise(bounds)])
