"""Lengths of many examples at once are those of each, whatever the rows, the tasks and the settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import IntegrityError, OmnimillError
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.eligibility import reasons
from omnimill.mixtures.objectives import OBJECTIVES, Denoiser
from omnimill.mixtures.rows import RowLengths
from omnimill.rng import generator
from omnimill.schema import example_id
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vocabulary import Vocabulary
from omnimill.tokens import LENGTH_COLUMNS, TOKEN_SCHEMA, TokenLayout
from omnimill.training.objectives.settings import ObjectiveSettings, TokenBudgets
from omnimill.training.planning.bulk_lengths import FIELDS, BulkLengths, costs_of
from omnimill.training.planning.draws import id_of, id_words
from omnimill.training.planning.lengths import Budgets, Lengths
from omnimill.training.planning.row_batch import COLUMNS, RowBatch
from omnimill.training.planning.sequence_lengths import BulkSequenceLengths
from omnimill.training.rendering.recipe import Recipes
from omnimill.training.rendering.sequence_recipe import SequenceRecipes
from omnimill.training.rendering.settings import RenderSettings
from omnimill.vocabulary_layout import VocabularyLayout

ROLES = ("caption", "question", "answer", "body")
SCHEMA = pa.schema([TOKEN_SCHEMA.field(name) for name in COLUMNS])


def tasks() -> tuple[Task, ...]:
    """Every target and stream, with and without items."""

    def task(name: str, **settings: Any) -> Task:
        return Task(name=name, rate=1, sources=("s",), **settings)

    answering = ("{question}", "read this: {question} and {caption}", "{caption} {caption}")
    return (
        task("caption", target="text:caption", inputs=("image",), prompts=("what?", "describe the picture")),
        task("answer", target="text:answer", prompts=answering, optional=("image", "audio", "image_history")),
        task("mask", target="image:mask", inputs=("image",), prompts=("where is {answer}",)),
        task("paint", target="image", prompts=("paint {caption}", "{caption}")),
        task("restore", target="image", objective="image_denoising"),
        task("complete", target="image", objective="croco", optional=("image_history",)),
        task("hear", target="audio", objective="audio_denoising", optional=("image",)),
        task("read", target="text:body", objective="text_denoising", optional=("audio_history",)),
        task("know", target="text:body", objective="text_denoising", prompts=("{question}",)),
        task("moved", target="text:body", objective="cm3", prompts=("{question}",)),
        task(
            "follow",
            target="text:body",
            objective="prefix_lm",
            inputs=("audio",),
            optional=("image",),
            keep_optional=0.4,
        ),
        task("some", target="text:caption", objective="token_budgets", optional=("image", "audio"), keep_optional=0.6),
        task("any", target="image", objective="token_budgets", inputs=("audio",), optional=("image_history",)),
        task("sound", target="audio", inputs=("image_history",), optional=("audio_history",)),
    )


TASKS = tasks()
NUMBERS = st.none() | st.integers(0, 2)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    length = st.one_of(st.integers(0, 12), st.integers(0, 400))
    texts = draw(
        st.lists(st.tuples(st.sampled_from(ROLES), NUMBERS, NUMBERS, NUMBERS, length), min_size=2, max_size=12)
    )
    pictures = draw(st.lists(st.tuples(st.integers(0, 36), st.integers(0, 16), st.sampled_from((0, 64))), max_size=7))
    clips = draw(st.lists(st.tuples(st.integers(0, 8), st.sampled_from((0, 32))), max_size=6))
    targets = draw(st.lists(st.tuples(st.sampled_from(("mask", "edited")), NUMBERS, NUMBERS, st.sampled_from((0, 64)))))
    lists = [
        *(list(column) for column in zip(*texts, strict=True)),
        *(list(column) for column in zip(*pictures, strict=True)),
        *(list(column) for column in zip(*clips, strict=True)),
        *(list(column) for column in zip(*targets, strict=True)),
    ]
    names = (
        *(() if not texts else ("text_roles", "text_images", "text_audio", "text_items", "text_lengths")),
        *(() if not pictures else ("image_patches", "history_patches", "image_codes_lengths")),
        *(() if not clips else ("audio_patches", "audio_codes_lengths")),
        *(() if not targets else ("target_roles", "target_images", "target_items", "target_codes_lengths")),
    )
    row = {name: [] for name in LENGTH_COLUMNS} | dict(zip(names, lists, strict=True))
    return {"id": example_id("s", str(draw(st.integers(0, 10**6))), ""), **row}


@st.composite
def render_settings(draw: st.DrawFn) -> RenderSettings:
    keep = st.floats(0.05, 1.0)
    entries = [entry.denoiser for entry in OBJECTIVES.values() if entry.denoiser]
    denoisers = st.sampled_from([*entries, Denoiser(paradigm="S", rate=0.02)])
    few = st.tuples(st.integers(1, 20), st.integers(20, 60))
    return RenderSettings(
        max_text=draw(st.integers(40, 300)),
        max_target_text=draw(st.integers(8, 200)),
        image_keep=draw(keep),
        history_keep=draw(keep),
        audio_keep=draw(keep),
        history_frames=draw(st.integers(0, 4)),
        image_latents=draw(st.integers(1, 8)),
        audio_latents=draw(st.integers(1, 8)),
        prompt_drop=draw(st.sampled_from([0.0, 0.5])),
        objectives=ObjectiveSettings(
            denoisers=tuple(draw(st.lists(denoisers, min_size=1, max_size=4))),
            token_budgets=TokenBudgets(
                input_tokens=draw(few),
                target_tokens=draw(few),
                alphas=draw(st.sampled_from([(0.01,), (0.1, 1.0), (50.0,)])),
            ),
        ),
    )


def as_lengths(values: Any) -> Lengths:
    return Lengths(**dict(zip(FIELDS, values.tolist(), strict=True)))


@settings(max_examples=15)
@given(data=st.data(), made=st.lists(rows(), min_size=3, max_size=16), render=render_settings())
def test_many_lengths_are_each_ones(
    data: st.DataObject, made: list[dict[str, Any]], render: RenderSettings, layout: TokenLayout, text: TextTokenizer
) -> None:
    budgets = Budgets(encoder=data.draw(st.integers(180, 400)), decoder=data.draw(st.integers(64, 256)))
    recipes = Recipes(Mixture(datasets=("tokens",), seed=3, tasks=TASKS), layout, text, render, budgets)
    epochs = data.draw(st.lists(st.integers(0, 2**40), min_size=len(made), max_size=len(made)))
    table = pa.Table.from_pylist(made, SCHEMA)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    # Rows come from several places, in any order.
    whole = RowBatch.concatenate([RowBatch.of(table.slice(0, 3)), RowBatch.of(table.slice(3))])
    whole = whole.take(np.arange(len(made))[::-1])
    for number, task in enumerate(TASKS):
        usable = np.flatnonzero(reasons(frame, task).is_null().to_numpy())
        batch = whole.take(len(made) - 1 - usable)
        found = BulkLengths(recipes).of(number, batch, np.array(epochs, np.int64)[usable])
        wanted = [
            recipes.make(number, RowLengths(*(made[i][name] for name in LENGTH_COLUMNS)), made[i]["id"], epochs[i])
            for i in usable
        ]
        assert [as_lengths(one) for one in found.T] == [one.lengths for one in wanted]
        assert costs_of(found).T.tolist() == [list(one.lengths.costs) for one in wanted]
        assert [id_of(words) for words in batch.ids.tolist()] == [made[i]["id"] for i in usable]


JOINT = VocabularyLayout(joint=("image",), specials=("<break>", "<mask>"))


def sequence_tasks() -> tuple[Task, ...]:
    """Every objective and target of sequences."""

    def task(name: str, **settings: Any) -> Task:
        return Task(name=name, rate=1, sources=("s",), **settings)

    return (
        task("caption", target="text:caption", objective="causal", inputs=("image",), prompts=("what?", "")),
        task("answer", target="text:answer", prompts=("{question}",), optional=("image_history",), keep_optional=0.5),
        task("paint", target="image", objective="causal_masked", prompts=("{caption}", "paint {caption}")),
        task("mask", target="image:mask", inputs=("image", "image_history"), prompts=("where is {answer}",)),
        task("read", target="text:body", objective="causal_lm"),
        task("moved", target="text:body", objective="cm3", prompts=("{question}",), optional=("image",)),
        task("denoised", target="text:body", objective="text_denoising"),
        task("tell", target="document:body", prompts=("{question} {question}",)),
        task("told", target="document:caption", objective="causal_masked"),
    )


@settings(max_examples=15)
@given(data=st.data(), made=st.lists(rows(), min_size=3, max_size=16), render=render_settings())
def test_many_sequences_are_each_ones(
    data: st.DataObject, made: list[dict[str, Any]], render: RenderSettings, layout: TokenLayout, text: TextTokenizer
) -> None:
    chosen, tasks = data.draw(st.integers(420, 600)), sequence_tasks()
    joint = layout.model_copy(update={"vocabulary": JOINT})
    render = render.model_copy(update={"form": "sequence", "uninformative_prompt": "<mask>"})
    recipes = SequenceRecipes(
        Mixture(datasets=("tokens",), seed=3, tasks=tasks),
        joint,
        TextTokenizer.of(text.model, "joint", Vocabulary.of(joint).text),
        render,
        Budgets(encoder=1, decoder=chosen),
    )
    frame = pl.from_arrow(table := pa.Table.from_pylist(made, SCHEMA))
    assert isinstance(frame, pl.DataFrame)
    for number, task in enumerate(tasks):
        usable = np.flatnonzero(reasons(frame, task).is_null().to_numpy())
        found = BulkSequenceLengths(recipes).of(number, RowBatch.of(table).take(usable), usable.astype(np.int64))
        wanted = [
            recipes.make(number, RowLengths(*(made[i][name] for name in LENGTH_COLUMNS)), made[i]["id"], int(i))
            for i in usable
        ]
        assert [as_lengths(one) for one in found.T] == [one.lengths for one in wanted]
        assert all(one.lengths.decoder <= chosen for one in wanted)


def test_items_are_drawn_evenly_and_whole(layout: TokenLayout, text: TextTokenizer) -> None:
    """Three questions with answers of telling lengths, one without: pairs stay pairs and come equally often."""
    row = {name: [] for name in LENGTH_COLUMNS} | {
        "text_roles": ["question"] * 4 + ["answer"] * 3,
        "text_images": [None] * 7,
        "text_audio": [None] * 7,
        "text_items": [2, 1, 0, 3, 0, 1, 2],
        "text_lengths": [22, 21, 20, 99, 10, 11, 12],
    }
    asking = Task(name="ask", rate=1, sources=("s",), target="text:answer", prompts=("{question}",))
    recipes = Recipes(Mixture(datasets=("tokens",), tasks=(asking,)), layout, text, RenderSettings(), Budgets())
    table = pa.Table.from_pylist([{"id": example_id("s", str(i), ""), **row} for i in range(3000)], SCHEMA)
    found = [as_lengths(one) for one in BulkLengths(recipes).of(0, RowBatch.of(table), np.zeros(3000, np.int64)).T]
    pairs = [(one.text - 2, one.target_text - 1) for one in found]
    assert {pair: abs(pairs.count(pair) - 1000) < 120 for pair in set(pairs)} == {
        (20 + i, 10 + i): True for i in range(3)
    }
    lacking = pa.Table.from_pylist([{"id": "0" * 32, **row, "text_items": [0, 0, 0, 0, 1, 1, 1]}], SCHEMA)
    with pytest.raises(OmnimillError, match="lacks something"):
        BulkLengths(recipes).of(0, RowBatch.of(lacking), np.zeros(1, np.int64))


def test_ids_are_read_as_they_are_written() -> None:
    ids = [generator("ids", i).bytes(16).hex() for i in range(50)]
    words = id_words(pa.array(ids).slice(7))
    assert [id_of(pair) for pair in words.view(np.int64).tolist()] == ids[7:]
    for wrong in ("", "0" * 31, "A" * 32, "g" * 32, "é" * 16):
        with pytest.raises(IntegrityError, match="32 hex digits"):
            id_words(pa.array([ids[0], wrong]))
