"""Rows that were erased are neither tokenized nor learnt from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from omnimill.infra.dataset import Dataset
from omnimill.infra.erasures import Erasure, publish
from omnimill.infra.settling import settled
from omnimill.tokenizers import store
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.shards import ShardJob, ShardTokenizer, units_of
from omnimill.tokenizers.store import stored_set


def test_what_is_erased_is_neither_tokenized_nor_learnt_from(
    root: str, tmp_path: Path, samples: SimpleNamespace
) -> None:
    here = str(tmp_path)
    samples.store(here, "corpus", samples.corpus(6))
    stored = stored_set(root, "mini")
    files = {
        part: (Path(root) / "tokenizers" / "mini" / stored.digest / store.FILES[part]).read_bytes()
        for part in stored.digests
    }
    store.publish(here, "mini", stored, files)
    whole = Corpus(here, "corpus")
    units = [unit for unit in units_of(whole) if unit.source == "photos"]
    job = ShardJob.of(here, "tokens", "mini", stored_set(here, "mini"))

    def done(tokens: str) -> list[str]:
        tokenizer = ShardTokenizer(job.model_copy(update={"tokens": tokens}))
        try:
            (one,) = tokenizer(units)
        finally:
            tokenizer.close()
        assert one.commit is not None
        dataset = Dataset(here, tokens)
        made = dataset.read(one.commit.shards[0]).column("id").to_pylist()
        digest, manifest = dataset.publish_manifest("tokens", [one.commit], {"corpus": whole.digest})
        gone = settled(dataset, digest, manifest).rows(one.commit.shards[0].digest).tolist()
        assert one.commit.counts.records_dropped == ({"erased": 2} if tokens == "after" else {})
        return [id_ for row, id_ in enumerate(made) if row not in gone]

    ids = done("before")
    assert len(ids) > 3
    rules = {"id": (ids[1], ids[3])}
    publish(here, Erasure(queries=("q",), by="me", at="2026-01-01", reason="asked", rules=rules))  # type: ignore[arg-type]
    corpus = Corpus(here, "corpus")
    assert [unit for unit in units_of(corpus) if unit.source == "photos"] == units
    kept = [id_ for id_ in ids if id_ not in rules["id"]]
    assert done("before") == done("after") == kept
    assert not {one.example for one in corpus.media("images", 1000, 0)} & {*rules["id"]}
    assert {one.split("/")[0] for one in dict(corpus.texts())} == {one.split("/")[0] for one in dict(whole.texts())} - {
        *rules["id"]
    }
    split = corpus.split("images", 1.0, 0)
    assert split is not None
