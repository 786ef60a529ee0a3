"""A folder of real and hostile files of every modality, ingested and tokenized: nothing is lost on the way."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from omnimill.config import load_config
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.run import ingest
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.run import tokenize
from omnimill.tokenizers.train import train_tokenizers

PROJECT = Path(__file__).parents[2]


def _real_folder() -> list[Path]:
    folder = Path(os.environ.get("OMNIMILL_REALDATA", PROJECT.parent / "shared" / "realdata"))
    return [folder] if folder.is_dir() else []


def media(dataset: Dataset, columns: dict[str, str]) -> tuple[Counter[str], list[str]]:
    """How many items the list columns of a dataset hold, by modality, and the ids of its rows."""
    counts: Counter[str] = Counter()
    ids: list[str] = []
    for commit in dataset.manifest()[1].commits:
        for ref in commit.shards:
            table = dataset.read(ref)
            ids += table["id"].to_pylist()
            counts.update(
                {name: pc.sum(pc.list_value_length(table[column])).as_py() for name, column in columns.items()}
            )
    return counts, ids


@pytest.mark.ray
@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize("folder", _real_folder())
def test_three_modalities_add_up(
    folder: Path, tmp_path: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIMILL_REALDATA", str(folder))
    root = str(tmp_path)
    examples = ingest(load_config(PROJECT / "pipelines" / "dags" / "realdata.yaml", Dag), root)
    whole = load_config(PROJECT / "tokenizers" / "configs" / "realdata.yaml", TokenizerConfig)
    steps: dict[str, Any] = {part: {"training": {"steps": 2, "warmup_steps": 0}} for part in ("image", "audio")}
    config = TokenizerConfig.model_validate(merged(whole.model_dump(mode="json"), steps))
    train_tokenizers(config, root)
    tokens = tokenize(config, root)

    counts = tokens.manifest.counts
    assert counts.records_in == examples.manifest.rows == examples.manifest.counts.examples_written
    assert counts.records_in == counts.kept + sum(counts.quarantined.values())
    assert tokens.manifest.rows == counts.kept == counts.examples_written
    assert set(tokens.manifest.parents) == {"realdata"}

    before, ids = media(examples.dataset, {"image": "images", "audio": "audio"})
    after, kept = media(tokens.dataset, {"image": "image_data", "audio": "audio_data"})
    codes, _ = media(tokens.dataset, {"image": "image_codes", "audio": "audio_codes"})
    assert after == codes
    assert min(after.values()) > 100
    if not counts.quarantined:
        assert after == before
        assert sorted(kept) == sorted(ids)


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested settings with some of them changed."""
    nested = {key: merged(values[key], change) for key, change in changes.items() if isinstance(change, dict)}
    return {**values, **changes, **nested}
