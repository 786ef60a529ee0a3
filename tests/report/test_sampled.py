"""Of large versions some rows are looked at, of small ones all; erased rows never."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_rows import make_row

from omnimill.infra.arrow_files import BATCH_ROWS
from omnimill.infra.dataset import Commit, Counts, Dataset
from omnimill.infra.erasures import Erasure, publish
from omnimill.infra.report import sampled as module
from omnimill.infra.report.datasets import dataset_card
from omnimill.infra.report.sampled import sampled
from omnimill.schema import Example, to_table


def publish_shards(root: Path, shards: dict[str, list[list[Example]]]) -> tuple[Dataset, str]:
    """A dataset with one unit for each shard, of which it has some for every source."""
    dataset = Dataset(str(root), "corpus")
    commits = []
    for source, all_rows in shards.items():
        for number, rows in enumerate(all_rows):
            counts = Counts(records_in=len(rows), kept=len(rows), examples_written=len(rows))
            shard = dataset.publish_shard(to_table(rows))
            commits.append(
                Commit(unit=f"{source}-{number}", source=source, recipe="r", inputs=(), shards=(shard,), counts=counts)
            )
    return dataset, dataset.publish_manifest("examples", commits)[0]


def test_of_many_shards_every_source_has_some_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 6)
    large = [[make_row("large", f"{i}", "text")] for i in range(20)]
    dataset, digest = publish_shards(tmp_path, {"large": large, "small": [[make_row("small", "0", "text")]]})
    found = sampled(dataset, *dataset.manifest(digest))
    assert {source: [source for source, _ in found.shards].count(source) for source in ("large", "small")} == {
        "large": 3,
        "small": 1,
    }
    card = dataset_card(dataset, *dataset.manifest(digest))
    assert card.looked_at == "4 of 21 rows, of 4 of 21 shards, chosen by a hash"
    assert card.rows == card.sources[-1].counts.kept == 21, "what is counted is the whole version"
    assert {source: len(shown) for source, shown in card.samples.items()} == {"large": 3, "small": 1}
    again = dataset_card(dataset, *dataset.manifest(digest))
    assert again.samples == card.samples, "the same for the same version"


def test_of_a_large_shard_some_batches_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCHES_LOCAL", 2)
    rows = [make_row("texts", f"{i}", "text") for i in range(4 * BATCH_ROWS + 10)]
    dataset, digest = publish_shards(tmp_path, {"texts": [rows]})
    found = sampled(dataset, *dataset.manifest(digest))
    pieces = list(found.pieces())
    assert [piece.batch for piece in pieces] == [1, 3]
    assert sum(piece.rows.num_rows for piece in pieces) == found.seen == 2 * BATCH_ROWS
    card = dataset_card(dataset, *dataset.manifest(digest))
    places = {row.key: number for number, row in enumerate(rows)}
    assert {places[shown.key] // BATCH_ROWS for shown in card.samples["texts"]} <= {1, 3}


def test_erased_rows_are_not_looked_at(tmp_path: Path) -> None:
    rows = [make_row("texts", f"key-{i}", f"text {i}", language="de" if i == 1 else "en") for i in range(3)]
    dataset, digest = publish_shards(tmp_path, {"texts": [rows]})
    request = Erasure(
        queries=(rows[1].id,),
        by="who asked",
        at="2026-01-01T00:00:00Z",
        reason="asked for",
        rules={"id": (rows[1].id,)},
    )
    publish(str(tmp_path), request)
    card = dataset_card(dataset, *dataset.manifest(digest))
    assert card.erased == 1
    assert {shown.key for shown in card.samples["texts"]} == {"key-0", "key-2"}
    assert card.findings.languages == {"texts": [("en", 2)]}
