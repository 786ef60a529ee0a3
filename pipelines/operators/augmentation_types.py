"""Operators that build new tasks from annotations that are there."""

from __future__ import annotations

from omnimill.pipelines.base import Operator

AUGMENTATION_TYPES: tuple[type[Operator], ...] = ()
