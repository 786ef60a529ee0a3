"""Adapters of annotated video, sound and agents.

Captions, labels and questions about whole films and recordings, or spans of them, need no adapter of their own: sources
``video`` and ``audio_files`` read them through a ``table`` (`omnimill.pipelines.sources.table_notes`), with ``segments:
equal``. Robots and agents are read by ``rlds``, ``lerobot``, ``alfred`` and ``navigation``.
"""

from __future__ import annotations

from omnimill.pipelines.adapters.sound_places import SoundPlacesSource
from omnimill.pipelines.adapters.table_manipulation import TableManipulationSource
from omnimill.pipelines.adapters.tracks import TracksSource
from omnimill.pipelines.adapters.video_boxes import VideoBoxesSource
from omnimill.pipelines.base import Source

CLIP_ADAPTERS: tuple[type[Source], ...] = (
    SoundPlacesSource,
    TableManipulationSource,
    TracksSource,
    VideoBoxesSource,
)
