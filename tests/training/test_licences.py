"""Which licences a checkpoint learnt under: exactly, against a count by hand; and what is expected without a replay."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from omnimill.cli.main import main
from omnimill.infra.dataset import Commit, Counts, Dataset, InputRef
from omnimill.mixtures.config import Mixture
from omnimill.schema import Example, Meta, Provenance, to_table
from omnimill.tokens import TOKEN_SCHEMA
from omnimill.training.checkpoints import checkpoint
from omnimill.training.lineage.licences import licences
from omnimill.training.lineage.replay import replay
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.inputs import resolve
from omnimill.training.runs.loop import Worker, train_worker

LICENCES = ("CC0-1.0", "CC-BY-4.0", None)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    train_root: Path,
    train_config: TrainConfig,
    mixture: Mixture,
    token_data: Any,
) -> tuple[Path, Path, dict[str, str]]:
    """A root with examples of three licences and tokens of them; a run's checkpoint; and the licence of each id."""
    root = tmp_path_factory.mktemp("licences")
    shutil.copytree(train_root / "tokenizers", root / "tokenizers")
    examples, tokens = Dataset(str(root), "examples"), Dataset(str(root), "tokens")
    said: dict[str, str] = {}
    commits: dict[str, list[Commit]] = {"examples": [], "tokens": []}
    for source in ("photos", "pages"):
        rows = token_data.rows[source][:12]
        # All pages state one licence; photos one of three by turns.
        stated = [LICENCES[i % 3] if source == "photos" else LICENCES[0] for i in range(len(rows))]
        said |= {row["id"]: one or "not stated" for row, one in zip(rows, stated, strict=True)}
        made = [
            Example(
                id=row["id"],
                source=source,
                unit=source,
                key=row["key"],
                provenance=Provenance(uri=f"/{source}", digest="0" * 64),
                meta=Meta(licence=one),
            )
            for row, one in zip(rows, stated, strict=True)
        ]
        shard = examples.publish_shard(to_table(made))
        ref = tokens.publish_shard(pa.Table.from_pylist(rows, TOKEN_SCHEMA))
        counts = Counts(records_in=12, kept=12, examples_written=12)
        read = InputRef(uri=f"examples/shards/{shard.digest}.arrow", digest=shard.digest, bytes=shard.bytes)
        facts = {"unit": source, "source": source, "recipe": "r", "counts": counts}
        commits["examples"].append(Commit(inputs=(), shards=(shard,), **facts))
        commits["tokens"].append(Commit(inputs=(read,), shards=(ref,), **facts))
    version, _ = examples.publish_manifest("examples", commits["examples"])
    attributes = {"layout": token_data.layout.model_dump(mode="json")}
    tokens.publish_manifest("tokens", commits["tokens"], {"examples": version}, attributes)
    tasks = tuple(task for task in mixture.tasks if task.name in ("caption", "read"))
    body = Mixture(datasets=("tokens",), seed=7, window=4, tasks=tasks).model_dump(mode="json", exclude_defaults=True)
    (root / "mixture.yaml").write_text(yaml.safe_dump(body))
    config = train_config.model_copy(update={"mixture": str(root / "mixture.yaml"), "streams": 2, "steps": 10})
    train_worker(resolve(config, str(root)), str(root), Worker())
    folder = checkpoint.newest(checkpoint.run_folder(str(root), config.name))
    assert folder is not None
    return root, folder, said


def test_exact_shares_are_those_of_all_that_was_drawn(trained: tuple[Path, Path, dict[str, str]]) -> None:
    root, folder, said = trained
    found = licences(folder, str(root), exact=True)
    examples: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for sequence in replay(folder, str(root)):
        for item in sequence.items:
            examples[said[item.example_id]] += 1
            tokens[said[item.example_id]] += item.lengths.encoder + item.lengths.decoder
    assert {one["licence"]: one["examples"] for one in found["licences"]} == examples
    assert {one["licence"]: one["tokens"] for one in found["licences"]} == tokens
    assert found["tokens"] == tokens.total()
    assert found["exact"] == {"examples": True, "tokens": True}
    assert sum(one["tokens_share"] for one in found["licences"]) == pytest.approx(1)
    assert {one["source"] for one in found["sources"]} == {"photos", "pages"}


def test_expected_shares_are_near_and_say_that_they_are_expected(
    trained: tuple[Path, Path, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, folder, _ = trained
    exact, found = licences(folder, str(root), exact=True), licences(folder, str(root))
    assert found["exact"] == {"examples": False, "tokens": False}
    assert found["examples"] == exact["examples"]
    by_source = [{one["source"]: one["examples"] for one in answer["sources"]} for answer in (exact, found)]
    assert by_source[0] == by_source[1]
    shares = [{one["licence"]: one["tokens_share"] for one in answer["licences"]} for answer in (exact, found)]
    assert shares[1].keys() == shares[0].keys() == {"CC0-1.0", "CC-BY-4.0", "not stated"}
    assert all(abs(shares[1][name] - shares[0][name]) < 0.12 for name in shares[0])
    capsys.readouterr()
    assert main(["lineage", "licences", str(folder.parent.parent), "--root", str(root)]) == 0
    assert "examples expected, tokens expected" in capsys.readouterr().out


def test_examples_that_are_gone_are_unknown(trained: tuple[Path, Path, dict[str, str]], tmp_path: Path) -> None:
    root, folder, _ = trained
    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    shutil.rmtree(copy / "examples")
    for exact in (True, False):
        found = licences(copy / folder.relative_to(root), str(copy), exact=exact)
        assert [one["licence"] for one in found["licences"]] == ["unknown"]
    assert json.dumps(found)
