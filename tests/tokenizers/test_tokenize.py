"""``tokenizer train`` and ``tokenize`` as commands: exactly once, the same bytes with actors and without, lineage."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from omnimill.cli.main import main
from omnimill.cli.tokenize import tokenize as tokenize_command
from omnimill.errors import IntegrityError, OmnimillError
from omnimill.infra import lineage
from omnimill.infra.dataset import Dataset, Unit
from omnimill.infra.done import Done
from omnimill.infra.selections import Selection, publish_left_out, publish_selection
from omnimill.tokenizers import store
from omnimill.tokenizers.columns import shared
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.run import tokenize
from omnimill.tokenizers.shards import ShardJob, ShardTokenizer, units_of
from omnimill.tokenizers.store import Made, Tokenizers, load_tokenizers, stored_set
from omnimill.tokens import PARTS, TokenLayout


def copy_of(root: str, target: Path, samples: SimpleNamespace, photos: int = 24) -> str:
    """Another root with the same examples and the same tokenizer set."""
    samples.store(str(target), "corpus", samples.corpus(photos))
    stored = stored_set(root, "mini")
    folder = Path(root) / "tokenizers" / "mini" / stored.digest
    files = {part: (folder / store.FILES[part]).read_bytes() for part in stored.digests}
    store.publish(str(target), "mini", stored, files)
    return str(target)


def job_of(root: str, tokens: str = "corpus-tokens") -> ShardJob:
    return ShardJob.of(root, tokens, "mini", stored_set(root, "mini"))


def do(job: ShardJob, units: Sequence[Unit]) -> list[Done]:
    tokenizer = ShardTokenizer(job)
    try:
        return list(tokenizer(units))
    finally:
        tokenizer.close()


def plain(root: str) -> str:
    """Tokenize in this process; the manifest's digest."""
    corpus, job = Corpus(root, "corpus"), job_of(root)
    commits = [done.commit for done in do(job, units_of(corpus)) if done.commit is not None]
    attributes = {"layout": job.layout.model_dump(mode="json"), "selections": {}}
    dataset = Dataset(root, "corpus-tokens")
    return dataset.publish_manifest("tokens", commits, {"corpus": corpus.digest}, attributes)[0]


def files(root: str) -> dict[str, bytes]:
    folder = Path(root) / "corpus-tokens"
    kept = [path for name in ("shards", "quarantine") for path in sorted((folder / name).glob("*.arrow"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_actors_and_plain_calls_give_the_same_bytes_and_nothing_is_redone(
    root: str, tmp_path: Path, config: TokenizerConfig, samples: SimpleNamespace, tokenizers: Tokenizers
) -> None:
    here, there = copy_of(root, tmp_path / "a", samples), copy_of(root, tmp_path / "b", samples)
    result = tokenize(config, here)
    assert result.digest == plain(there)
    assert files(here) == files(there)

    counts = result.manifest.counts
    assert (counts.records_in, counts.kept, counts.quarantined) == (36, 35, {"image_undecodable": 1})
    assert result.manifest.rows == counts.examples_written == 35
    assert result.manifest.parents == {"corpus": Corpus(here, "corpus").digest}
    assert TokenLayout.model_validate(result.manifest.attributes["layout"]) == tokenizers.layout
    quarantine = [c.quarantine for c in result.manifest.commits if c.quarantine]
    (row,) = result.dataset.read(quarantine[0], "quarantine").to_pylist()
    assert (row["key"], row["operator"], row["reason"]) == ("1000", "tokenize", "image_undecodable")
    assert row["uri"] == "raw/photos/1000"

    before = {path: path.stat().st_mtime_ns for path in Path(here, "corpus-tokens", "commits").iterdir()}
    again = tokenize(config, here)
    assert (again.digest, again.committed) == (result.digest, 0)
    assert before == {path: path.stat().st_mtime_ns for path in Path(here, "corpus-tokens", "commits").iterdir()}

    run = lineage.runs(here, "tokenize")[0]
    assert [ref.digest for ref in lineage.references(run, "output")] == [result.digest]
    inputs = {ref.name: ref.digest for ref in lineage.references(run, "input")}
    assert inputs["tokenizers-mini"] == tokenizers.layout.digests["set"]
    assert "corpus" in inputs


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_only_what_is_new_is_done_and_a_failure_keeps_the_rest(
    root: str,
    tmp_path: Path,
    config: TokenizerConfig,
    samples: SimpleNamespace,
    tokenizers: Tokenizers,
    capfd: pytest.CaptureFixture[str],
) -> None:
    here = copy_of(root, tmp_path, samples)
    before = plain(here)
    # Four photographs more: the second shard of them is new.
    samples.store(here, "corpus", samples.corpus(28))
    dataset = Dataset(here, config.tokens)
    known = {commit.unit for commit in dataset.manifest()[1].commits}
    (new,) = [unit for unit in units_of(Corpus(here, "corpus")) if unit.id not in known]
    shard = Path(here) / new.files[0]
    content = shard.read_bytes()
    shard.write_bytes(content[:-100] + bytes(100))
    with pytest.raises(OmnimillError, match=rf"unit {new.id} \(corpus/shards/.*content hashes to"):
        tokenize(config, here)
    assert dataset.manifest()[0] == before

    shard.write_bytes(content)
    # Asking for GPUs where there are none is no obstacle.
    actors = config.actors.model_copy(update={"num_gpus": 1000.0})
    grown = tokenize(config.model_copy(update={"actors": actors}), here)
    assert "the cluster has too few GPUs" in capfd.readouterr().err
    assert (grown.committed, len(grown.manifest.commits)) == (1, len(known))
    assert grown.manifest.counts.kept == 39


def test_too_much_in_quarantine_fails(
    root: str, tmp_path: Path, config: TokenizerConfig, samples: SimpleNamespace, tokenizers: Tokenizers
) -> None:
    here = copy_of(root, tmp_path, samples)
    plain(here)
    strict = config.model_copy(update={"max_quarantined_share": 0.0})
    with pytest.raises(OmnimillError, match=r"1 of 36 examples are quarantined.*image_undecodable 1"):
        tokenize(strict, here)


def test_a_recipe_is_what_decides_the_bytes(root: str, tokenizers: Tokenizers) -> None:
    stored = stored_set(root, "mini")
    job = job_of(root)
    assert ShardJob.of("/elsewhere", "u", "other", stored).recipe == job.recipe
    assert job.model_copy(update={"device": "cuda", "threads": 7}).recipe == job.recipe
    assert ShardJob.of(root, "t", "mini", stored.model_copy(update={"made": Made(recipe="other")})).recipe == job.recipe

    def changed(**change: Any) -> set[str]:
        other = ShardJob.of(root, "t", "mini", stored.model_copy(update=change.pop("stored", {})), **change)
        return set(PARTS) - shared(other.parts, job.parts)

    pictures, sounds = {"image_codes", "target_codes"}, {"audio_codes"}
    assert changed(jpeg_quality=80) == {"image"}
    assert changed(batch=3) == changed(bf16=True) == changed(compiled=True) == pictures | sounds
    for part, parts in (("text", {"text"}), ("image", pictures), ("audio", sounds)):
        assert changed(stored={"digests": {**stored.digests, part: "other"}}) == parts
    assert changed(stored={"ranges": {}}) == {"text"}
    layout = stored.image.model_copy(update={"target_size": 64})
    assert changed(stored={"image": layout}) == pictures
    layout = stored.image.model_copy(update={"input_size": 96})
    assert changed(stored={"image": layout}) == {"text", "image"}
    layout = stored.audio.model_copy(update={"frames": 64})
    assert changed(stored={"audio": layout}) == {"audio", "audio_codes"}


def test_a_damaged_shard_is_not_tokenized(
    root: str, tmp_path: Path, samples: SimpleNamespace, tokenizers: Tokenizers
) -> None:
    here = copy_of(root, tmp_path, samples)
    unit = units_of(Corpus(here, "corpus"))[0]
    shard = Path(here) / unit.files[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    (done,) = do(job_of(here, "t"), [unit])
    assert done.commit is None
    assert re.search("content hashes to", done.error or "")


def test_what_a_selection_leaves_out_is_not_tokenized_and_says_why(
    root: str, tmp_path: Path, samples: SimpleNamespace, tokenizers: Tokenizers
) -> None:
    here = copy_of(root, tmp_path, samples)
    whole = Corpus(here, "corpus")
    shard = whole.manifest.commits[0].shards[0]
    ids = whole.dataset.read(shard).column("id").to_pylist()
    rows = [
        {"row": row, "id": ids[row], "step": "exact", "reason": "exact_duplicate", "twin": ids[0], "score": 1.0}
        for row in (2, 1)
    ]
    part = publish_left_out(whole.dataset, shard.digest, rows)
    publish_selection(
        whole.dataset,
        Selection(
            name="once",
            dataset="corpus",
            manifest=whole.digest,
            config={},
            kept=whole.manifest.rows - 2,
            shards=(part,),
        ),
    )
    corpus = Corpus(here, "corpus", ["once"])
    before, units = units_of(whole), units_of(corpus)
    assert [unit for unit in units if unit not in before] == units[:1], "the other units are what they were"

    (done,) = do(job_of(here, "t"), units[:1])
    commit = done.commit
    assert commit is not None
    assert commit.counts.records_dropped == {"exact_duplicate": 2}
    assert commit.counts.records_in == shard.rows
    dataset = Dataset(here, "t")
    kept = dataset.read(commit.shards[0]).column("id").to_pylist()
    assert kept == [id_ for row, id_ in enumerate(ids) if row not in (1, 2)]
    assert commit.drops is not None
    assert dataset.read(commit.drops, "drops").column("operator").to_pylist() == ["exact", "exact"]

    # Neither is it learnt from.
    assert len(dict(corpus.texts())) < len(dict(whole.texts()))
    assert not {one.example for one in corpus.media("images", 1000, 0)} & {ids[1], ids[2]}


def test_a_selection_holds_for_its_version_only(root: str, tmp_path: Path, samples: SimpleNamespace) -> None:
    here = copy_of(root, tmp_path, samples)
    whole = Corpus(here, "corpus")
    selection = Selection(name="all", dataset="corpus", manifest=whole.digest, config={}, kept=36, shards=())
    digest = publish_selection(whole.dataset, selection)
    assert Corpus(here, "corpus", ["all"]).selections == {"all": digest}
    samples.store(here, "corpus", samples.corpus(28))
    with pytest.raises(IntegrityError, match=r"selection 'all' judged version .* run `omnimill dedup` again"):
        Corpus(here, "corpus", ["all"])
    with pytest.raises(OmnimillError, match="has no selection 'none'"):
        Corpus(here, "corpus", ["none"])


def example_of(command: str, config: str, file: str, root: str) -> list[str]:
    """The example that a command's help shows, as arguments, on other files."""
    (line,) = re.findall(rf"Example: omnimill ({command} .*)", tokenize_command.__doc__ or "")
    words = shlex.split(line)
    assert words[1:] == [config, "--root", "runs/demo"]
    return [command, file, "--root", root]


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_the_commands(
    tmp_path: Path, config: TokenizerConfig, samples: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path)
    samples.store(root, "corpus", samples.corpus(8))
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))

    trained = run_json(capsys, "tokenizer", "train", str(file), "--root", root)
    assert trained["reused"] is False
    assert {"image_psnr_db", "audio_mel_error", "text_characters_per_token"} <= set(trained["quality"])
    assert load_tokenizers(root, "mini").layout.digests["set"] == trained["digest"]
    again = run_json(capsys, "tokenizer", "train", str(file), "--root", root)
    assert (again["reused"], again["digest"]) == (True, trained["digest"])

    answer = run_json(capsys, *example_of("tokenize", "tokenizers/configs/demo.yaml", str(file), root))
    assert answer["records"] == {"in": 20, "kept": 19, "dropped": {}, "quarantined": {"image_undecodable": 1}}
    assert answer["examples"] == {"written": 19, "dropped": {}}
    assert answer["units"] == answer["committed"] == 5
    assert answer["manifest"] == Dataset(root, "corpus-tokens").manifest()[0]
    assert answer["taken_over"] == {}

    # Other JPEGs: everything else is taken over.
    file.write_text(yaml.safe_dump(config.model_dump(mode="json") | {"jpeg_quality": 70}))
    answer = run_json(capsys, "tokenize", str(file), "--root", root)
    assert answer["committed"] == 5
    assert answer["taken_over"] == dict.fromkeys(sorted(set(PARTS) - {"image"}), 5)

    # Without --json both print tables, the second time of work that was done.
    for command in (["tokenizer", "train"], ["tokenize"]):
        assert main([*command, str(file), "--root", root]) == 0
    printed = capsys.readouterr().out
    assert "trained before" in printed
    assert "0 of 5 units done" in printed


def test_training_twice_gives_the_same_set(root: str, config: TokenizerConfig) -> None:
    from omnimill.tokenizers.train import make_set

    stored, _ = make_set(config, Corpus(root, "corpus"))
    assert stored.digest == stored_set(root, "mini").digest


def test_what_is_missing_is_named(tmp_path: Path, config: TokenizerConfig, samples: SimpleNamespace) -> None:
    with pytest.raises(OmnimillError, match="no dataset 'corpus'"):
        tokenize(config, str(tmp_path))
    samples.store(str(tmp_path), "corpus", samples.corpus(2))
    with pytest.raises(OmnimillError, match="omnimill tokenizer train"):
        tokenize(config, str(tmp_path))
