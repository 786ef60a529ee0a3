"""Every family is judged from its own rows: a right answer gets full marks, an empty one none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import family_examples
import pyarrow as pa
import pytest
from contact_sheet import SETTINGS, Sheet, content, task_of, token_row

from omnimill.infra.dataset import Commit, Counts, Dataset, InputRef, Manifest
from omnimill.mixtures.task_families import families
from omnimill.mixtures.versions import TokenData
from omnimill.schema import to_table
from omnimill.tokenizers.vocabulary import CODE_OFFSET
from omnimill.tokens import TOKEN_SCHEMA
from omnimill.training.evaluation.example_shards import ExampleShards
from omnimill.training.evaluation.references import needs_example, right_texts, shown
from omnimill.training.loading.batch import DecoderModality
from omnimill.training.metrics.evaluate import Case, evaluate
from omnimill.training.metrics.families import measures
from omnimill.training.rendering.prompt import whole_renderer

# What a metric says of an answer that is right; the others are shares, 1 when right.
BEST = {
    "psnr": 120.0,
    "cider_d": 0.0,  # of a single example
    "success_auc": 20 / 21,
}
ZERO = {
    "abs_rel", "angle_mean", "angle_median", "direction_error", "end_point_error", "f1_all", "mel_distance",
    "number_error", "radius_error", "rmse", "spectral_convergence",
}  # fmt: skip


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    return Sheet(family_examples.examples())


def case(sheet: Sheet, name: str, with_example: bool = True) -> Case:
    """A family's example, answered as its row says."""
    example, made = sheet.examples[name], sheet.tokenizers
    row = content(token_row(example, made))
    task = task_of(name, example.source)
    renderer = whole_renderer([task], made.layout, made.text, SETTINGS)
    target = renderer.render(0, row, epoch=0).target
    recipe = renderer.recipes.make(0, row, row.id, epoch=0)
    if target.modality == DecoderModality.TEXT:
        wanted = [int(token) for i in recipe.target_segments for token in row.text_ids[i]]
    else:
        wanted = (target.targets - CODE_OFFSET).tolist()
    known = shown(recipe, row, made, example if with_example and needs_example(task) else None)
    return Case(wanted, wanted, known, right_texts(recipe, row, made), loss=(0.0, 1.0))


@pytest.mark.parametrize("name", sorted(families()))
def test_a_right_answer_gets_full_marks(sheet: Sheet, name: str) -> None:
    right = case(sheet, name)
    scores = {score.name: score for score in evaluate(name, [right], sheet.tokenizers)}
    without = {metric for measure in measures(name) if measure.network for metric in measure.names}
    assert scores.keys() == {metric for measure in measures(name) for metric in measure.names} - without
    for metric, score in scores.items():
        assert score.unread == 0
        wanted = 0.0 if metric in ZERO else BEST.get(metric, 1.0)
        if metric == "bleu_4" and len(right.texts[0].split()) < 4:
            wanted = 0.0  # there are no four words in a row
        assert score.value == pytest.approx(wanted, abs=1e-6), metric
    assert not right.texts or sheet.tokenizers.text.decode(list(right.wanted)) in right.texts


def test_cuboids_need_the_example_and_are_left_out_without(sheet: Sheet) -> None:
    assert case(sheet, "3d").shown.camera is not None
    assert evaluate("3d", [case(sheet, "3d", with_example=False)], sheet.tokenizers) == []


def test_examples_are_found_by_their_token_rows(sheet: Sheet, tmp_path: Path) -> None:
    """Through the shard that the token unit was made from; None once that is gone."""
    example, root = sheet.examples["3d"], str(tmp_path)
    examples, tokens = Dataset(root, "examples"), Dataset(root, "tokens")
    shard = examples.publish_shard(to_table([sheet.examples["vqa"], example]))
    row: dict[str, Any] = token_row(example, sheet.tokenizers)
    made = tokens.publish_shard(pa.Table.from_pylist([row], TOKEN_SCHEMA))
    uri = f"examples/shards/{shard.digest}.arrow"
    commit = Commit(
        unit="u",
        source="3d",
        recipe="r",
        inputs=(InputRef(uri=uri, digest=shard.digest, bytes=shard.bytes),),
        shards=(made,),
        counts=Counts(records_in=1, kept=1, examples_written=1),
    )
    found = ExampleShards(TokenData(root, (Manifest(dataset="tokens", kind="tokens", commits=(commit,)),)))
    assert found.example(tokens.shard_url(made), example.id) == example
    assert found.example(tokens.shard_url(made), "0" * 32) is None
    assert found.example("elsewhere", example.id) is None
