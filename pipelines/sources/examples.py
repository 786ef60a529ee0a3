"""How sources make an example, and how they refuse a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from omnimill.config import digest_json
from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders.sniff import HEAD_BYTES, mislabelled
from omnimill.schema import Example, Provenance, example_id


def make_example(source: Source, unit: Unit, key: str, provenance: Provenance, **columns: Any) -> Example:
    """An example of a record; its id comes from the record's bytes and the texts that were put to them."""
    example = Example(id="", source=source.name, unit=unit.id, key=key, provenance=provenance, **columns)
    example.meta.licence = example.meta.licence or source.licence
    content = digest_json([provenance.digest, [[text.role, text.text] for text in example.text]])
    example.id = example_id(source.name, key, content)
    return example


def name_tags(name: str, data: bytes) -> dict[str, str]:
    """The tag ``mislabelled`` of a file whose content is not what its name says, as in ``png as .jpg``."""
    found = mislabelled(name, data[:HEAD_BYTES])
    return {} if found is None else {"mislabelled": found}


def refusal(verdict: BadRecord | RecordDropped) -> Callable[[], Sequence[Example]]:
    """The decoder of a record whose verdict is known already: it raises one of the same words.

    The verdict itself is not kept: its traceback holds on to the frames, and so to the data, that it came from.
    """
    return partial(_refuse, verdict.reason, verdict.message if isinstance(verdict, BadRecord) else None)


def _refuse(reason: str, message: str | None) -> Sequence[Example]:
    raise RecordDropped(reason) if message is None else BadRecord(reason, message)
