"""The catalog as a page of tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from omnimill.mixtures.catalog_entries import Entry, FamilyUse, catalog
from omnimill.mixtures.task_families import families

# Where the reference's table counts other than the catalog does, and why.
UNNAMED = {
    "image-from-text": "The table counts 5; the reference names eight, so that it counts some as one.",
    "vqa": "The table counts 31; the reference names 18, and M3IT's versions of some without saying which.",
    "image-captioning": "The table counts 14; the reference names ten, and M3IT's versions, of which M3IT has three.",
    "region-classification": "The table counts 4; the reference names three.",
    "relationship-prediction": "The table counts 6; the reference names five.",
    "image-instruction-following": "The table counts 6; the reference names five.",
    "video-question-answering": "The table counts 9; the reference names six.",
    "video-instruction-following": "The table counts 6; the reference names five.",
    "embodied-qa": "The table counts 6, made from sets of manipulation; the reference names none. ALFRED stands in.",
}

_HEAD = """# Catalog

`omnimill catalog list --markdown` writes this page. [mixtures.md](mixtures.md) shows how to use a dataset and how to
add one. Each entry is a file of [mixtures/catalog](../mixtures/catalog), which says where its figures are from. What
stands here of licences is what publishers say, as far as it could be found out; the home page, to which each name
leads, has the last word.
"""


def size_text(use: FamilyUse) -> str:
    """Examples in one pass, ``?`` where nobody says."""
    return "?" if use.examples is None else f"{use.examples:,}"


def markdown(entries: Mapping[str, Entry] | None = None) -> str:
    """Two tables: the datasets, and by family what its entries come to."""
    entries = catalog() if entries is None else entries
    return "\n".join([_HEAD, *_datasets(entries), "", *_families(entries), ""])


def _datasets(entries: Mapping[str, Entry]) -> Iterator[str]:
    yield f"## {len(entries)} datasets"
    yield ""
    yield "| dataset | families (examples in one pass) | licence |"
    yield "|---|---|---|"
    for entry in entries.values():
        uses = [f"{name} ({size_text(use)})" for name, use in entry.families.items()]
        row = [f"pre-training: {entry.pretrain}"] if entry.pretrain else []
        name = f"[{entry.name}]({entry.home})" if entry.home else entry.name
        yield f"| {name} | {', '.join([*row, *uses])} | {entry.licence} |"


def _families(entries: Mapping[str, Entry]) -> Iterator[str]:
    yield "## By family"
    yield ""
    yield "A dataset counts as often as the reference's table counts it: variants are counted each."
    yield ""
    yield "| family | datasets | entries | where the table counts otherwise |"
    yield "|---|---:|---|---|"
    for family in families():
        uses = {name: entry.families[family] for name, entry in entries.items() if family in entry.families}
        if uses:
            count = sum(use.count for use in uses.values())
            yield f"| {family} | {count} | {', '.join(uses)} | {UNNAMED.get(family, '')} |"
