"""Several pictures with their captions in one example, made from a dataset of single ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3
from pydantic import Field

from omnimill import rng
from omnimill.errors import RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Record
from omnimill.pipelines.sources.example_shards import ExampleShards, examples_at, open_shard, shard_digest
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.schema import Example, Meta, Provenance, Text

# Texts that say what is in a picture, the best first.
_ROLES = ("caption", "alt_text", "label")


class InterleavedPairsSource(ExampleShards):
    """Groups of image-caption pairs, as Unified-IO 2 made of CC3M, CC12M and RedCaps (its appendix C.1).

    The pairs of a shard are ordered by a hash of `seed` and their ids and cut into groups of nearly the same size, none
    larger than `pairs`. Every pair is in one group; a group is a record, and an example with as many pictures and a
    caption for each. Of an example with several pictures or captions the first count; one that lacks either is a record
    of its own, dropped as ``no_pair``.

    Pictures keep their uri and the digest of their first bytes; the licence and tags are kept where a whole group
    agrees.

    pairs: the default of 5 fills the reference's four history pictures and its current one.
    """

    type: Literal["interleaved_pairs"]
    pairs: int = Field(5, ge=2, le=64)
    seed: int = 0

    def read(self, unit: Unit) -> Iterator[Record]:
        uri = unit.files[0]
        table, rows = open_shard(unit)
        pairs: list[int] = []
        ids = table.column("id").to_pylist()
        are_pairs = _are_pairs(table)
        for row in rows:
            if are_pairs[row]:
                pairs.append(row)
            else:
                yield Record(ids[row], Provenance(uri=uri, digest=""), refusal(RecordDropped("no_pair")))
        pairs.sort(key=lambda row: rng.digest64("interleaved", self.seed, ids[row]))
        count = -(-len(pairs) // self.pairs)
        for number in range(count):
            first, last = (len(pairs) * step // count for step in (number, number + 1))
            group = pairs[first:last]
            digest = blake3("\n".join(ids[row] for row in group).encode()).hexdigest()
            provenance = Provenance(uri=uri, digest=digest)
            key = f"{shard_digest(uri)[:16]}:{number}"
            yield Record(key, provenance, partial(self._decode, unit, key, provenance, table, group))

    def _decode(
        self, unit: Unit, key: str, provenance: Provenance, table: pa.Table, group: Sequence[int]
    ) -> list[Example]:
        members = examples_at(table, group)
        text = [Text(role="caption", text=_caption(member), image=place) for place, member in enumerate(members)]
        images = [member.images[0] for member in members]
        return [make_example(self, unit, key, provenance, text=text, images=images, meta=_common(members))]


def _are_pairs(table: pa.Table) -> list[bool]:
    """For every row whether it has a picture and a caption; looks at no picture."""
    pictures = pc.list_value_length(table.column("images")).to_pylist()
    texts = table.column("text").to_pylist()
    return [
        count > 0 and any(_describes(Text(**text)) for text in row) for count, row in zip(pictures, texts, strict=True)
    ]


def _describes(text: Text) -> bool:
    return text.role in _ROLES and text.image in (None, 0)


def _caption(example: Example) -> str:
    found = sorted(filter(_describes, example.text), key=lambda text: _ROLES.index(text.role))
    return found[0].text


def _common(members: Sequence[Example]) -> Meta:
    """What holds for all members of a group."""
    first = members[0].meta
    licences = {member.meta.licence for member in members}
    languages = {member.meta.language for member in members}
    shared = first.tags.items() & set.intersection(*(set(member.meta.tags.items()) for member in members))
    return Meta(
        licence=first.licence if len(licences) == 1 else None,
        language=first.language if len(languages) == 1 else None,
        tags=dict(sorted(shared)),
    )
