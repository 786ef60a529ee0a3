"""At most so many rows of one domain, tag or concept."""

from __future__ import annotations

from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from omnimill.errors import ConfigError
from omnimill.infra import storage
from omnimill.pipelines.dedup.base import NODE, Featurizer, GroupStep
from omnimill.pipelines.dedup.columns import contains, take_table
from omnimill.pipelines.dedup.facts import tag
from omnimill.pipelines.dedup.shingles import mix, shingles, shingles_of
from omnimill.pipelines.dedup.texts import flat_texts
from omnimill.pipelines.dedup.verdicts import verdicts
from omnimill.rng import digest64

# Words of a concept, and bytes of a file of concepts.
_LONGEST = 12
_MOST_BYTES = 64 << 20


class Cap(GroupStep):
    """Keeps at most so many rows of each domain, tag value or concept (reason ``cap_domain``, ``cap_tag``, …).

    Which ones is drawn by a hash of the example's id and `seed`, the same for all groups a row belongs to.

    by: what rows are grouped by.
        domain: the registered domain of ``meta.url`` by the public suffix list (``example.co.uk``), or the address.
        tag: the value of the tag named in `tag`.
        concept: words and phrases of `concepts` that occur in the text, as in MetaCLIP (Xu et al. 2023, arXiv
        2309.16671). A row with several is kept when one of them has room for it, so that rare concepts are kept whole
        and frequent ones come with them above `most` at times.
    most: rows of a group that are kept.
    concepts: a file with a concept on each line. digest: of its content, found out when the step runs.
    without: what becomes of rows without a group (reason ``cap_without``).
    """

    decides: ClassVar[tuple[str, ...]] = ("most", "seed", "without", "concepts")

    reasons: ClassVar[tuple[str, ...]] = ("cap_domain", "cap_tag", "cap_concept", "cap_without")

    step: Literal["cap"]
    by: Literal["domain", "tag", "concept"]
    most: int = Field(ge=1)
    tag: str | None = None
    concepts: str | None = None
    digest: str | None = None
    without: Literal["keep", "drop"] = "keep"
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for kind, needed in (("tag", "tag"), ("concept", "concepts")):
            if (self.by == kind) != (getattr(self, needed) is not None):
                raise ValueError(f"`{needed}` is needed with `by: {kind}` and only then")
        return self

    def resolve(self, root: str) -> Self:  # noqa: ARG002 - files lie anywhere
        if self.concepts is None:
            return self
        _concepts(self.concepts)
        return self.model_copy(update={"digest": storage.digest_file(self.concepts)})

    @property
    def keys(self) -> int:
        return 4 if self.by == "concept" else 1

    @property
    def row_bytes(self) -> int:
        return 48

    def reads(self) -> tuple[str, ...]:
        return {"domain": ("meta",), "tag": (), "concept": ("text",)}[self.by]

    def featurizer(self) -> Featurizer:
        if self.by == "domain":
            return _domains
        assert self.concepts is not None
        known = _concepts(self.concepts)
        return lambda table: _matches(table, known)

    def keyed(self, rows: pa.Table) -> pa.Table:
        groups, counts = self._groups(rows)
        each = np.repeat(np.arange(rows.num_rows), counts)
        votes = counts[each]
        if self.without == "drop":
            # In groups of their own, so that they spread over partitions.
            bare = np.flatnonzero(counts == 0)
            own = rows.column("id_lo").to_numpy()[bare]
            each, groups, votes = np.append(each, bare), np.append(groups, own), np.append(votes, counts[bare])
        keyed = take_table(rows.select(NODE.names), each)
        keyed = keyed.append_column("key", pa.array(groups, pa.uint64()))
        return keyed.append_column("votes", pa.array(votes, pa.uint32()))

    def decide(self, keyed: pa.Table) -> pa.Table:
        draw = mix(keyed.column("id_hi").to_numpy() ^ np.uint64(digest64("cap", self.seed)))
        frame = pl.from_arrow(keyed.append_column("draw", pa.array(draw)))
        assert isinstance(frame, pl.DataFrame)
        bare = frame.filter(pl.col("votes") == 0).to_arrow()
        grouped = frame.filter(pl.col("votes") > 0).sort("draw", "id_hi", "id_lo", "shard", "row")
        lost = grouped.filter(pl.int_range(pl.len()).over("key") >= self.most).to_arrow()
        return pa.concat_tables(
            [verdicts(lost, f"cap_{self.by}", votes=lost.column("votes")), verdicts(bare, "cap_without")]
        )

    def _groups(self, rows: pa.Table) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The groups of all rows, one row after the other, and how many each row has."""
        if self.by == "concept":
            lists = rows.column("groups").combine_chunks()
            return lists.flatten().to_numpy(), pc.list_value_length(lists).to_numpy().astype(np.int64)
        column = _numbers(tag(rows.column("meta"), str(self.tag))) if self.tag else rows.column("group")
        return column.drop_null().to_numpy(), pc.is_valid(column).to_numpy().astype(np.int64)


def _numbers(texts: pa.Array) -> pa.ChunkedArray:
    """A number for every text, uint64; null for null."""
    coded = texts.dictionary_encode()
    numbers = pa.array([digest64(text) for text in coded.dictionary.to_pylist()], pa.uint64())
    return pa.chunked_array([numbers.take(coded.indices)])


def _domains(table: pa.Table) -> pa.Table:
    try:
        from courlan import extract_domain  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError(f"`by: domain` needs the extra 'web': pip install 'omnimill[web]' ({error})") from None
    domains = []
    for url in pc.struct_field(table.column("meta"), "url").to_pylist():
        domains.append(None if url is None else extract_domain(url) or _address(url))
    return pa.table({"group": _numbers(pa.array(domains, pa.string()))})


def _address(url: str) -> str | None:
    """The host of a URL that has no registered domain: a number, a name in a local network."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _concepts(url: str) -> dict[int, NDArray[np.uint64]]:
    """Hashes of the concepts in a file, sorted, by their number of words.

    Raises:
        ConfigError: the file is missing, too large or no text, or a concept has too many words.
    """
    try:
        if int(storage.stat(url)["bytes"]) > _MOST_BYTES:
            raise ConfigError(f"concepts {url}: larger than {_MOST_BYTES >> 20} MiB")
        lines = storage.read_bytes(url).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"concepts {url}: {error}") from None
    # A text of fewer words than a run is one run.
    whole = shingles_of(lines, _LONGEST)
    long = np.flatnonzero(whole.words > _LONGEST)
    if len(long):
        raise ConfigError(f"concepts {url}:{long[0] + 1}: more than {_LONGEST} words")
    each = whole.words[whole.words > 0]
    return {int(count): np.unique(whole.hashes[each == count]) for count in np.unique(each)}


def _matches(table: pa.Table, known: dict[int, NDArray[np.uint64]]) -> pa.Table:
    """The concepts that occur in the text of each row, as sorted lists of their hashes."""
    chunks = []
    for texts in flat_texts(table.column("text")):
        count = len(texts.rows) - 1
        rows, found = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        for words, hashes in known.items():
            runs = shingles(texts, words)
            hit = contains(hashes, runs.hashes)
            rows.append(runs.row_of[hit])
            found.append(runs.hashes[hit])
        pairs = (
            pl.DataFrame({"row": np.concatenate(rows), "group": np.concatenate(found)}).unique().sort("row", "group")
        )
        starts = np.searchsorted(pairs["row"].to_numpy(), np.arange(count + 1)).astype(np.int32)
        chunks.append(pa.ListArray.from_arrays(pa.array(starts), pairs["group"].to_arrow()))
    return pa.table({"groups": pa.chunked_array(chunks, pa.list_(pa.uint64()))})
