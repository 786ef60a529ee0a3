"""How a recording is divided into segments: the rule that ingestion and tokenization share."""

from __future__ import annotations

# Taken off what is left over before it is judged: the last frames of a film often cannot be read.
END_SECONDS = 0.1


def segment_count(seconds: float, segment: float, least: int = 1) -> int:
    """How many segments of `segment` seconds a recording has.

    All whole ones, and one for the rest if the rest less 0.1 s is longer than half a segment (the rule of the
    Unified-IO 2 preprocessors for audio and video).

    Args:
        least: what it is at least: 1 for sound (a short clip is one segment), 0 for film.
    """
    whole, rest = divmod(seconds, segment)
    return max(least, int(whole) + (rest - END_SECONDS > segment / 2))
