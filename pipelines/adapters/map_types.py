"""Adapters of pictures that belong to pictures, of conversations and of text."""

from __future__ import annotations

from omnimill.pipelines.base import Source

MAP_ADAPTERS: tuple[type[Source], ...] = ()
