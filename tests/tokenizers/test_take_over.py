"""A changed tokenizer redoes its own columns: the others are taken over, and the outcome is that of a full run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import safetensors.torch

from omnimill.infra.dataset import Commit, Dataset
from omnimill.infra.done import Done
from omnimill.locations import Range
from omnimill.schema import Annotation, Target
from omnimill.tokenizers import store
from omnimill.tokenizers.columns import earlier_recipes, publish_recipe
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.shards import ShardJob, ShardTokenizer, units_of
from omnimill.tokenizers.store import StoredSet, stored_set
from omnimill.tokenizers.text import BpeConfig, train_bpe
from omnimill.tokens import PARTS

PICTURES = {"image_codes", "target_codes"}


@pytest.fixture(scope="module")
def here(root: str, tmp_path_factory: pytest.TempPathFactory, samples: SimpleNamespace) -> str:
    """A corpus of every part (masks and other targets too), with the set ``mini``."""
    folder = str(tmp_path_factory.mktemp("take-over"))
    examples = samples.corpus(10)
    examples[3].annotations = [Annotation(kind="region", box=[0.0, 0.0, 0.5, 0.5], mask=samples.mask_of(examples[3]))]
    examples[4].targets = [Target(kind="picture", data=examples[5].images[0].data, format="png", role="edited", item=0)]
    samples.store(folder, "corpus", examples, shard_rows=8)
    stored = stored_set(root, "mini")
    publish(folder, stored, files_of(root, stored))
    return folder


def files_of(root: str, stored: StoredSet) -> dict[str, bytes]:
    folder = Path(root) / "tokenizers" / "mini" / stored.digest
    return {part: (folder / store.FILES[part]).read_bytes() for part in stored.digests}


def publish(root: str, stored: StoredSet, files: Mapping[str, bytes]) -> StoredSet:
    stored = stored.model_copy(update={"digests": store.file_digests(files)})
    store.publish(root, "mini", stored, files)
    return stored


def with_part(root: str, stored: StoredSet, part: str, change: Any) -> StoredSet:
    """The set with other weights of a network: the codebook the other way round."""
    files = files_of(root, stored)
    files[part] = change(files[part])
    return publish(root, stored, files)


def other_codebook(weights: bytes) -> bytes:
    tensors = safetensors.torch.load(weights)
    tensors["quantiser.codebook"] = tensors["quantiser.codebook"].flip(0).contiguous()
    return safetensors.torch.save(tensors)


def other_words(_: bytes) -> bytes:
    return train_bpe(["some other words to learn from, 0123456789 " * 20], BpeConfig(pieces=330, characters=10_000))


def run(root: str, tokens: str, stored: StoredSet, **settings: Any) -> dict[str, Done]:
    """Do the whole corpus as the command does, without Ray; what became of every unit."""
    dataset = Dataset(root, tokens)
    job = ShardJob.of(root, tokens, "mini", stored, **settings)
    publish_recipe(dataset, job.parts)
    tokenizer = ShardTokenizer(job.model_copy(update={"earlier": earlier_recipes(dataset, job.parts), "threads": 2}))
    try:
        done = {one.unit.id: one for one in tokenizer(units_of(Corpus(root, "corpus")))}
    finally:
        tokenizer.close()
    assert [one.error for one in done.values()] == [None] * len(done)
    return done


def commits(done: Mapping[str, Done]) -> list[Commit | None]:
    return [one.commit for _, one in sorted(done.items())]


def taken(done: Mapping[str, Done]) -> set[frozenset[str]]:
    return {frozenset(one.observed["taken_over"]) for one in done.values()}


CHANGES: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    "picture network": (lambda root, old: with_part(root, old, "image", other_codebook), {}, PICTURES),
    "sound network": (lambda root, old: with_part(root, old, "audio", other_codebook), {}, {"audio_codes"}),
    "text model": (lambda root, old: with_part(root, old, "text", other_words), {}, {"text"}),
    "jpeg quality": (lambda root, old: old, {"jpeg_quality": 60}, {"image"}),
    "batch": (lambda root, old: old, {"batch": 5}, {*PICTURES, "audio_codes"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_did_not_change_is_taken_over_and_the_shards_are_those_of_a_full_run(here: str, name: str) -> None:
    change, settings, parts = CHANGES[name]
    old = stored_set(here, "mini")
    tokens = name.replace(" ", "-")
    before = run(here, tokens, old)
    assert taken(before) == {frozenset()}
    new = change(here, old)
    after = run(here, tokens, new, **settings)
    full = run(here, f"{tokens}-full", new, **settings)
    assert taken(after) == {frozenset(PARTS) - parts}
    assert taken(full) == {frozenset()}
    assert commits(after) == commits(full)
    assert commits(after) != commits(before)
    # Back again there is nothing to do at all.
    assert commits(run(here, tokens, old)) == commits(before)
    publish(here, old, files_of(here, old))


def test_ranges_that_come_and_go_change_who_is_rejected(here: str) -> None:
    known = stored_set(here, "mini")
    unknown = publish(here, known.model_copy(update={"ranges": {}}), files_of(here, known))
    rejecting = run(here, "ranges", unknown)
    accepting = run(here, "ranges", known)
    publish(here, known, files_of(here, known))
    reasons = [commit.counts.quarantined for commit in commits(rejecting) if commit]
    assert {"no_vector_ranges": 3} in reasons
    assert {"no_vector_ranges": 3} not in [commit.counts.quarantined for commit in commits(accepting) if commit]
    assert commits(accepting) == commits(run(here, "ranges-full", known))
    # And the other way round: rows that were there are rejected now.
    run(here, "gone", known)
    assert commits(run(here, "gone", unknown)) == commits(rejecting)


def test_an_example_that_was_rejected_among_others_is_made_whole(
    here: str, tmp_path: Path, samples: SimpleNamespace
) -> None:
    """One robot of three has vectors that the ranges of the first set do not fit."""
    known = stored_set(here, "mini")
    root = str(tmp_path)
    robots = [item for item in samples.corpus(1) if item.source == "robot"]
    robots[1].trajectory.states = [[*row, 0.5] for row in robots[1].trajectory.states]
    samples.store(root, "corpus", robots)
    wide = known.ranges["robot"].model_copy(update={"state": (*known.ranges["robot"].state, Range(low=0, high=1))})
    store.publish(root, "mini", known, files_of(here, known))
    other = publish(root, known.model_copy(update={"ranges": {"robot": wide}}), files_of(here, known))
    for first, second, rejected in ((known, other, 2), (other, known, 1)):
        tokens = f"robots-{rejected}"
        run(root, tokens, first)
        after = run(root, tokens, second)
        assert taken(after) == {frozenset(PARTS) - {"text"}}
        assert [commit.counts.quarantined for commit in commits(after) if commit] == [{"vector_length": rejected}]
        assert commits(after) == commits(run(root, f"{tokens}-full", second))


def test_it_is_the_earlier_shard_that_columns_come_from(here: str) -> None:
    """Codes that no network would give stay, because nobody asks the network."""
    stored = stored_set(here, "mini")
    dataset = Dataset(here, "doctored")
    for one in run(here, "doctored", stored).values():
        assert one.commit is not None
        (shard,) = one.commit.shards
        table = dataset.read(shard)
        odd = pa.array([[[7] * len(codes) for codes in row] for row in table.column("image_codes").to_pylist()])
        place = table.column_names.index("image_codes")
        table = table.set_column(place, table.schema.field("image_codes"), odd.cast(table.schema.types[place]))
        dataset.commit(one.commit.model_copy(update={"shards": (dataset.publish_shard(table),)}))
    after = run(here, "doctored", stored, jpeg_quality=60)
    rows = [row for commit in commits(after) if commit for row in dataset.read(commit.shards[0]).to_pylist()]
    codes = {code for row in rows for codes in row["image_codes"] for code in codes}
    assert codes == {7}


@pytest.mark.parametrize("harm", ["damaged", "lost"])
def test_an_earlier_shard_that_is_not_sound_is_done_again(here: str, harm: str) -> None:
    stored = stored_set(here, "mini")
    for one in run(here, harm, stored).values():
        assert one.commit is not None
        path = Path(Dataset(here, harm).shard_url(one.commit.shards[0]))
        if harm == "lost":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-9])
    after = run(here, harm, stored, jpeg_quality=60)
    assert taken(after) == {frozenset()}
    assert commits(after) == commits(run(here, f"{harm}-full", stored, jpeg_quality=60))


def test_examples_that_cannot_be_told_apart_are_done_again(here: str, tmp_path: Path, samples: SimpleNamespace) -> None:
    stored = stored_set(here, "mini")
    root = str(tmp_path)
    store.publish(root, "mini", stored, files_of(here, stored))
    twin = samples.corpus(1)[0]
    samples.store(root, "corpus", [twin, twin])
    run(root, "twins", stored)
    after = run(root, "twins", stored, jpeg_quality=60)
    assert taken(after) == {frozenset()}
    assert commits(after) == commits(run(root, "twins-full", stored, jpeg_quality=60))


def test_the_recipe_that_saves_most_is_asked_first(here: str, tmp_path: Path) -> None:
    stored = stored_set(here, "mini")
    dataset = Dataset(str(tmp_path), "tokens")

    def parts(**settings: Any) -> dict[str, str]:
        return ShardJob.of(here, "tokens", "mini", stored, **settings).parts

    for other in (parts(batch=5), parts(jpeg_quality=60), parts(jpeg_quality=61, batch=5), {"text": "of another kind"}):
        publish_recipe(dataset, other)
    found = earlier_recipes(dataset, parts())
    assert found == (parts(jpeg_quality=60), parts(batch=5), parts(jpeg_quality=61, batch=5))
