"""Adapters of annotated video, sound and agents."""

from __future__ import annotations

from omnimill.pipelines.base import Source

CLIP_ADAPTERS: tuple[type[Source], ...] = ()
