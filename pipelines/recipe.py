"""What decides a unit's outcome besides its input, as a digest: settings, and versions of the code that uses them."""

from __future__ import annotations

from collections.abc import Sequence

from omnimill.config import digest_json
from omnimill.pipelines.base import Operator, Source
from omnimill.schema import SCHEMA_VERSION

# Raised when `process_unit` gives other shards for the same records.
PROCESS_VERSION = 3


def recipe_digest(source: Source, operators: Sequence[Operator]) -> str:
    """64 hex digits that change whenever the same unit could come out differently.

    Covers the source's and operators' settings, their classes' ``version`` and the example schema's. Settings that
    only choose which units there are (`Source.selection`) and run settings (threads, budgets) are not part of it.
    """
    settings = source.model_dump(mode="json", exclude=set(source.selection))
    return digest_json(
        {
            "schema": SCHEMA_VERSION,
            "process": PROCESS_VERSION,
            "source": [source.version, settings],
            "operators": [[operator.version, operator.model_dump(mode="json")] for operator in operators],
        }
    )
