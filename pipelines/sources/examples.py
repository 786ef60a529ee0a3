"""How sources make an example, and how they refuse a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omnimill.config import digest_json
from omnimill.errors import OmnimillError
from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Source
from omnimill.schema import Example, Provenance, example_id


def make_example(source: Source, unit: Unit, key: str, provenance: Provenance, **columns: Any) -> Example:
    """An example of a record; its id comes from the record's bytes and the texts that were put to them."""
    example = Example(id="", source=source.name, unit=unit.id, key=key, provenance=provenance, **columns)
    example.meta.licence = example.meta.licence or source.licence
    content = digest_json([provenance.digest, [[text.role, text.text] for text in example.text]])
    example.id = example_id(source.name, key, content)
    return example


def refuse(verdict: OmnimillError) -> Sequence[Example]:
    """The decoder of a record whose verdict is known already.

    Raises:
        OmnimillError: `verdict`, a BadRecord or RecordDropped.
    """
    raise verdict
