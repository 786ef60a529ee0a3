"""Adapters of annotated pictures."""

from __future__ import annotations

from omnimill.pipelines.base import Source

PICTURE_ADAPTERS: tuple[type[Source], ...] = ()
